// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <ostream>
#include <string>

#include "examples/apps/support/distributed.h"
#include "examples/apps/support/flags.h"
#include "examples/apps/support/image_options.h"
#include "examples/apps/support/run_options.h"

/// What the command line of cifar10 says.
struct Options : examples::RunOptions, examples::ImageOptions, examples::RankOptions {
  std::string precision = "float32";
  bool channels_last = true;

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv);

  /// Rank 0 takes the folder then, in Session::run().
  bool shares_folder() const { return distributed; }

  at::ScalarType torch_precision() const {
    if (precision == "float16") return at::kHalf;
    return precision == "bfloat16" ? at::kBFloat16 : at::kFloat;
  }
};

inline std::optional<Options> Options::parse(int argc, char** argv) {
  Options o;
  examples::Flags flags("cifar10", "trains a network on small images, with and without LAWN.");
  o.add_images(flags);
  o.add_training(flags);
  flags
      .add("precision", &o.precision,
           "float16 and bfloat16 run under autocast; float16 also scales the loss")
      .choices({"float32", "bfloat16", "float16"});
  flags.add("channels-last", &o.channels_last, "memory format of images and kernels");
  o.add_running(flags);
  o.add_ranks(flags);
  if (!static_cast<examples::RunOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
  o.check_images();
  return o;
}

/// One line on what is going to happen.
inline void print_job(std::ostream& out, const Options& options, const examples::Split& data,
                      at::Device device, const examples::Ranks& ranks) {
  out << options.network << " on " << options.images_text(data) << ", " << options.summary() << ", "
      << options.precision << examples::device_text(device)
      << (ranks.size() > 1 ? " on each of " + std::to_string(ranks.size()) + " ranks" : "")
      << "\n\n";
}
