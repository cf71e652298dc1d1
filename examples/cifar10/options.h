// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <ostream>
#include <string>

#include "examples/support/cifar10.h"
#include "examples/support/flags.h"
#include "examples/support/generated.h"
#include "examples/support/idx.h"
#include "examples/support/run_options.h"

/// What the command line of cifar10 says.
struct Options : examples::RunOptions {
  std::string data = "generated";
  std::string root = ".";
  std::string network = "resnet20";
  int64_t train_size = 0;
  int64_t test_size = 0;
  int64_t validation = 0;
  int64_t probe_size = 1000;
  bool augment = false;
  std::string precision = "float32";
  bool channels_last = true;

  /// Reads a command line; nothing if only --help was asked for, which is then printed.
  static std::optional<Options> parse(int argc, char** argv);

  at::ScalarType torch_precision() const {
    if (precision == "float16") return at::kHalf;
    return precision == "bfloat16" ? at::kBFloat16 : at::kFloat;
  }
};

inline std::optional<Options> Options::parse(int argc, char** argv) {
  Options o;
  examples::Flags flags("cifar10", "trains a network on small images, with and without LAWN.");
  flags.add("data", &o.data, "what to train on; generated needs no files")
      .choices({"generated", "cifar10", "fashion-mnist", "mnist"});
  flags.add("root", &o.root, "folder of the data's files").incidental();
  flags.add("network", &o.network, "what to train; vgg and mlp have no normalisation")
      .choices({"resnet20", "resnet18", "vgg", "mlp"});
  o.add_training(flags);
  flags
      .add("train-size", &o.train_size,
           "train on that many images, classes in equal shares; 0 is all (generated: 1000)")
      .range(0, 1e6);
  flags.add("test-size", &o.test_size, "test on that many; 0 is all (generated: 2000)")
      .range(0, 1e6);
  flags
      .add("validation", &o.validation,
           "hold that many training images out and test on them, so that settings can be chosen "
           "without the test images; 0 is none")
      .range(0, 1e6);
  flags.add("probe-size", &o.probe_size, "images of each half that every epoch is measured on")
      .range(1, 1e6);
  flags.add("augment", &o.augment, "crop and flip at random");
  flags
      .add("precision", &o.precision, "the halves are autocast, float16 with a scaler of gradients")
      .choices({"float32", "bfloat16", "float16"});
  flags.add("channels-last", &o.channels_last, "memory format of images and kernels");
  o.add_running(flags);
  if (!static_cast<examples::RunOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
  TORCH_CHECK(o.validation == 0 || o.test_size == 0,
              "--validation tests on the images that it holds out: leave --test-size out");
  return o;
}

/// One line on what is going to happen.
inline void print_job(std::ostream& out, const Options& options, const examples::Split& data,
                      at::Device device) {
  out << options.network << " on " << data.train.size() << " " << data.train.name << " ("
      << data.test.size() << (options.validation > 0 ? " held out" : "") << " to test), "
      << options.summary() << ", " << options.precision << examples::device_text(device) << "\n\n";
}

/// The data of a run, in host memory.
inline examples::Split load_data(const Options& options) {
  if (options.data == "generated") {
    examples::GeneratedOptions generated;  // the images do not depend on --seed: runs share them
    if (options.train_size > 0) generated.train_size = options.train_size;
    if (options.test_size > 0) generated.test_size = options.test_size;
    const int64_t trained = generated.train_size;
    generated.train_size += options.validation;
    const examples::Split data = examples::generate_images(generated);
    if (options.validation == 0) return data;
    return examples::hold_out(data.train, trained, options.validation, 0);
  }
  examples::Split data;
  if (options.data == "cifar10") data = examples::load_cifar10(options.root);
  if (options.data == "fashion-mnist") data = examples::load_mnist(options.root, "Fashion-MNIST");
  if (options.data == "mnist") data = examples::load_mnist(options.root, "MNIST");
  if (options.validation > 0) {
    return examples::hold_out(data.train, options.train_size, options.validation, 0);
  }
  return {examples::subset(data.train, options.train_size, 0),
          examples::subset(data.test, options.test_size, 0)};
}
