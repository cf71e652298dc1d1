// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <torch/cuda.h>

#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "examples/support/cifar10.h"
#include "examples/support/flags.h"
#include "examples/support/generated.h"
#include "examples/support/idx.h"
#include "examples/support/optimizers.h"
#include "examples/support/trainer.h"

/// What the command line of cifar10 says.
struct Options {
  std::string data = "generated";
  std::string root = ".";
  std::string network = "resnet20";
  std::string optimizer = "adam";
  bool lawn = false;
  bool compare = false;
  std::string select = "walk";
  std::string ablate = "none";
  int64_t epochs = 24;
  int64_t batch_size = 64;
  double learning_rate = 0;
  double weight_decay = 0;
  double free_fraction = 0.2;
  double warmup = 0.05;
  bool two_part_schedule = false;
  int64_t seed = 0;
  int64_t train_size = 0;
  int64_t test_size = 0;
  int64_t validation = 0;
  int64_t probe_size = 1000;
  bool augment = false;
  std::string device = "auto";
  std::string precision = "float32";
  bool channels_last = true;
  int64_t threads = 0;
  std::string out = "out";
  int64_t checkpoint_every = 0;
  double stop_after = 0;
  std::string resume;

  std::vector<std::string> command_line;  ///< as it was given
  examples::Settings settings;            ///< of all flags that change what a run computes

  /// Reads a command line; nothing if only --help was asked for, which is then printed.
  static std::optional<Options> parse(int argc, char** argv);

  at::Device torch_device() const {
    const bool cuda = device == "cuda" || (device == "auto" && torch::cuda::is_available());
    TORCH_CHECK(!cuda || torch::cuda::is_available(), "--device cuda: no CUDA device was found");
    return cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  }

  at::ScalarType torch_precision() const {
    if (precision == "float16") return at::kHalf;
    return precision == "bfloat16" ? at::kBFloat16 : at::kFloat;
  }

  /// The optimizer's usual learning rate, unless --lr gives another.
  double rate() const {
    if (learning_rate > 0) return learning_rate;
    return optimizer == "sgd" || optimizer == "fused-sgd" ? 0.05 : 1e-3;
  }

  /// Plain, with LAWN, or both.
  std::vector<bool> runs() const {
    if (compare) return {false, true};
    return {lawn};
  }

  /// "adam", "lawn-adam" or "lawn-adam-without-rescaling": names a run's files.
  std::string run_name(bool with_lawn) const {
    if (!with_lawn) return optimizer;
    return "lawn-" + optimizer + (ablate == "none" ? "" : "-without-" + ablate);
  }

  /// The checkpoint that a run goes on from, empty if it starts anew. With --compare --resume names
  /// a folder: a run whose checkpoint is not there had not begun.
  std::string resumed_checkpoint(bool with_lawn) const {
    if (resume.empty() || !std::filesystem::is_directory(resume)) {
      TORCH_CHECK(resume.empty() || !compare, "--resume ", resume,
                  ": with --compare name the folder that holds the checkpoints of both runs");
      return resume;
    }
    const std::filesystem::path path =
        std::filesystem::path(resume) / (run_name(with_lawn) + ".pt");
    TORCH_CHECK(std::filesystem::exists(path) || (compare && with_lawn), "--resume ", resume,
                ": there is no ", path.filename().string(), " in that folder");
    return std::filesystem::exists(path) ? path.string() : "";
  }

  /// Threads, and kernels that give the same bits each time.
  void apply_to_torch() const {
    if (threads > 0) at::set_num_threads(static_cast<int>(threads));
    at::globalContext().setBenchmarkCuDNN(false);
    at::globalContext().setDeterministicCuDNN(true);
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
  flags.add("optimizer", &o.optimizer, "LibTorch's, or lawn's fused ones")
      .choices(examples::kOptimizers);
  flags.add("lawn", &o.lawn, "train with LAWN around the optimizer").incidental();
  flags.add("compare", &o.compare, "train plain and with LAWN from one seed").incidental();
  flags
      .add("select", &o.select,
           "what LAWN constrains: the sub-network that the walk finds, or all weights")
      .choices({"walk", "all"});
  flags.add("ablate", &o.ablate, "part of LAWN to leave out, to see what the rest does")
      .choices(examples::kAblations);
  flags.add("epochs", &o.epochs, "passes over the training images").range(1, 1e6);
  flags.add("batch-size", &o.batch_size, "images a step").range(1, 1e6);
  flags.add("lr", &o.learning_rate, "learning rate; 0 is 0.05 for sgd, 0.001 for the others")
      .range(0, 1e3);
  flags.add("weight-decay", &o.weight_decay, "as the optimizer understands it").range(0, 1e3);
  flags.add("free-fraction", &o.free_fraction, "share of the steps before LAWN constrains")
      .range(0, 0.9);
  flags
      .add("warmup", &o.warmup,
           "share of the steps that the learning rate rises; with LAWN, after the switch too")
      .range(0, 0.1);
  flags.add("two-part-schedule", &o.two_part_schedule,
            "train the plain optimizer with LAWN's schedule too, as a control");
  flags.add("seed", &o.seed, "of weights, order of images and augmentation").range(0, 1e15);
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
  flags.add("device", &o.device, "").choices({"auto", "cpu", "cuda"});
  flags
      .add("precision", &o.precision, "the halves are autocast, float16 with a scaler of gradients")
      .choices({"float32", "bfloat16", "float16"});
  flags.add("channels-last", &o.channels_last, "memory format of images and kernels");
  flags.add("threads", &o.threads, "of the CPU; 0 leaves the choice to torch").range(0, 1024);
  flags.add("out", &o.out, "folder for CSV files and checkpoints").incidental();
  flags
      .add("checkpoint-every", &o.checkpoint_every,
           "epochs between checkpoints; 0 saves at the end and on Ctrl-C only")
      .range(0, 1e6)
      .incidental();
  flags.add("stop-after", &o.stop_after, "seconds after which to stop as on Ctrl-C; 0 is never")
      .range(0, 1e9)
      .incidental();
  flags.add("resume", &o.resume, "checkpoint to go on from; with --compare the folder of both")
      .incidental();
  if (!flags.parse(argc, argv)) {
    std::cout << flags.help();
    return std::nullopt;
  }
  TORCH_CHECK(!(o.lawn && o.compare), "--compare trains with and without LAWN: leave --lawn out");
  TORCH_CHECK(o.ablate == "none" || o.lawn || o.compare, "--ablate ", o.ablate,
              ": takes a part of LAWN away; expected --lawn or --compare beside it");
  TORCH_CHECK(o.ablate == "none" || o.weight_decay == 0, "--ablate ", o.ablate,
              ": expected --weight-decay 0, got ", o.weight_decay,
              ": its effect could not be told from that of the missing part");
  TORCH_CHECK(o.validation == 0 || o.test_size == 0,
              "--validation tests on the images that it holds out: leave --test-size out");
  o.command_line.assign(argv, argv + argc);
  o.settings = flags.essential_values();
  return o;
}

/// One line on what is going to happen.
inline void print_job(std::ostream& out, const Options& options, const examples::Split& data,
                      at::Device device) {
  out << options.network << " on " << data.train.size() << " " << data.train.name << " ("
      << data.test.size() << (options.validation > 0 ? " held out" : "") << " to test), "
      << options.optimizer
      << (options.compare ? " without and with LAWN"
          : options.lawn  ? " with LAWN"
                          : "")
      << ", " << options.epochs << " epochs of batches of " << options.batch_size << ", "
      << options.precision << " on " << device;
  if (device.is_cpu()) out << " with " << at::get_num_threads() << " threads";
  out << "\n\n";
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
