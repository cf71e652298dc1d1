// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iostream>
#include <optional>
#include <string>

#include "examples/apps/support/flags.h"
#include "examples/apps/support/generated_interactions.h"
#include "examples/apps/support/movielens.h"
#include "examples/apps/support/neural_cf.h"
#include "examples/apps/support/recommendation.h"
#include "examples/apps/support/run_options.h"

/// What the command line of recommender says.
struct Options : examples::RunOptions {
  std::string data = "generated";
  std::string root = ".";
  std::string network = "neumf";
  int64_t factors = 8;
  int64_t negatives = 4;
  bool validation = false;
  int64_t probe_size = 2000;

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv) {
    Options o;
    o.epochs = 20;
    o.batch_size = 256;
    examples::Flags flags("recommender",
                          "trains a network on who took what, with and without LAWN.");
    flags.add("data", &o.data, "what to train on; generated needs no files")
        .choices({"generated", "movielens"});
    flags
        .add("root", &o.root,
             "folder of MovieLens: with u.data (100K) or ratings.dat (1M), or the parent of such")
        .incidental();
    flags.add("network", &o.network, "what to train; none has normalisation")
        .choices(examples::kRecommenders);
    flags.add("factors", &o.factors, "size of what each branch of the network hands to the output")
        .range(1, 1e4);
    flags.add("negatives", &o.negatives, "items drawn beside each interaction, anew every epoch")
        .range(1, 1e3);
    o.add_training(flags);
    flags.add("validation", &o.validation,
              "hold out each user's latest item but one and test on it, so that settings can be "
              "chosen without the test items");
    flags
        .add("probe-size", &o.probe_size,
             "interactions that the training figures of an epoch come from")
        .range(1, 1e9);
    o.add_running(flags);
    if (!static_cast<examples::RunOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
    return o;
  }
};

/// The data of a run, in host memory.
inline examples::RankingData load_data(const Options& options) {
  return examples::make_ranking_data(options.data == "movielens"
                                         ? examples::load_movielens(options.root)
                                         : examples::generate_interactions({}),
                                     options.validation);
}

/// One line on what is going to happen.
inline void print_job(std::ostream& out, const Options& options, const examples::RankingData& data,
                      at::Device device) {
  out << options.network << " with " << options.factors << " factors on " << data.train.size()
      << " " << data.train.name << " of " << data.train.user_count << " users and "
      << data.train.item_count << " items, " << (options.validation ? "validation" : "test")
      << " on one more of each user among " << data.candidates.size(1) << ", " << options.summary()
      << "," << examples::device_text(device) << "\n\n";
}
