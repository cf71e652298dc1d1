// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <torch/cuda.h>

#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "examples/apps/support/betas.h"
#include "examples/apps/support/flags.h"
#include "examples/apps/support/optimizers.h"
#include "examples/apps/support/settings.h"

namespace examples {

/// Of a larger seed torch's generator on the CPU takes the low 32 bits: two would be one.
inline constexpr double kLargestSeed = 4294967295;

/// What every training program takes from its command line, whatever it trains.
struct RunOptions {
  std::string optimizer = "adam";
  bool lawn = false;
  bool compare = false;
  std::string select = "walk";
  std::string ablate = "none";
  int64_t epochs = 24;
  int64_t batch_size = 64;
  double learning_rate = 0;
  double weight_decay = 0;
  std::string betas;
  bool decay_vectors = true;     ///< whether biases and scales of normalisations decay, too
  double max_gradient_norm = 0;  ///< 0: gradients are not clipped
  double free_fraction = 0.2;
  double radius_scale = 1;
  double init_scale = 1;
  double warmup = 0.05;
  double final_factor = 0;
  bool two_part_schedule = false;
  int64_t seed = 0;
  std::string device = "auto";
  int64_t threads = 0;
  std::string out = "out";
  int64_t checkpoint_every = 0;
  double stop_after = 0;
  std::string resume;

  bool many = false;                      ///< a program that trains several networks in any case
  std::vector<std::string> command_line;  ///< as it was given
  Settings settings;                      ///< of all flags that change what a run computes

  /// Declares the flags that say how to train, without LAWN's.
  /// @param optimizers  that the program knows
  void add_optimization(Flags& flags, const std::vector<std::string>& optimizers) {
    flags.add("optimizer", &optimizer, "one of LibTorch's optimizers, or one of lawn's fused ones")
        .choices(optimizers);
    flags.add("epochs", &epochs, "passes over the training data").range(1, 1e6);
    flags
        .add("batch-size", &batch_size,
             "samples a step, at most those of an epoch, whose last, smaller batch is left out")
        .range(1, 1e7);
    flags.add("lr", &learning_rate, "learning rate; 0 is 0.05 for sgd, 0.001 for the others")
        .range(0, 1e3);
    flags
        .add("weight-decay", &weight_decay,
             "weight decay, coupled or decoupled as the optimizer has it")
        .range(0, 1e3);
    flags.add("betas", &betas,
              "decay of the two moments of adam, adamw or lamb, fused or not, per step, as in "
              "0.9,0.95; empty leaves the optimizer's own");
    flags
        .add("warmup", &warmup,
             "share of the steps over which the learning rate rises; with LAWN it rises again "
             "after the switch")
        .range(0, 0.1);
    flags
        .add("final-factor", &final_factor,
             "share of the learning rate that is left at the end of its cosine decay")
        .range(0, 1);
    flags.add("seed", &seed, "seed of the weights and of all random draws in training")
        .range(0, kLargestSeed);
  }

  /// Declares the flags that say how to train, plain or with LAWN.
  void add_training(Flags& flags) {
    add_optimization(flags, kOptimizers);
    add_lawn(flags, "the sub-network that the walk finds, or all weights", {"walk", "all"});
  }

  /// Declares LAWN's flags.
  /// @param selects     what each of them is, for --help
  /// @param selections  its choices
  void add_lawn(Flags& flags, const std::string& selects,
                const std::vector<std::string>& selections) {
    flags.add("lawn", &lawn, "train with LAWN around the optimizer").incidental();
    flags.add("compare", &compare, "train plain and with LAWN from one seed").incidental();
    flags
        .add("select", &select,
             "what LAWN constrains, and what is measured without it, too: " + selects)
        .choices(selections);
    flags.add("ablate", &ablate, "part of LAWN to leave out, to see what the rest does")
        .choices(kAblations);
    flags
        .add("free-fraction", &free_fraction,
             "of LAWN: share of the steps before it constrains; without it this has no effect")
        .range(0, 0.9);
    flags.add("radius-scale", &radius_scale, "factor from the norms at the switch to LAWN's radii")
        .range(1e-3, 1e3);
    flags
        .add("init-scale", &init_scale,
             "factor to the initial values of what --select names, with LAWN and without: a "
             "control for --radius-scale")
        .range(1e-3, 1e3);
    flags.add("two-part-schedule", &two_part_schedule,
              "train the plain optimizer with LAWN's schedule too, as a control");
  }

  /// Declares the flags that say where to run, what to keep and when to stop.
  /// @param parts  of a run, as the program calls them: after so many it saves
  void add_running(Flags& flags, const std::string& parts = "epochs") {
    flags.add("device", &device, "device to train on").choices({"auto", "cpu", "cuda"});
    flags.add("threads", &threads, "CPU threads; 0 leaves the choice to torch").range(0, 1024);
    flags.add("out", &out, "folder for records, CSV files and checkpoints").incidental();
    flags
        .add("checkpoint-every", &checkpoint_every,
             parts + " between checkpoints; 0 saves at the end and on Ctrl-C only")
        .range(0, 1e6)
        .incidental();
    flags
        .add("stop-after", &stop_after,
             "seconds of training, of all networks together, after which to stop as on Ctrl-C; 0 "
             "is never")
        .range(0, 1e9)
        .incidental();
    flags
        .add("resume", &resume,
             "checkpoint to resume from; if several networks are trained, the folder of their "
             "checkpoints")
        .incidental();
  }

  /// Reads a command line by flags that are all declared.
  /// @return false if only --help was asked for, which is then printed
  /// @throws c10::Error as Flags::parse() does, and for flags that contradict each other
  bool parse(Flags& flags, int argc, char** argv) {
    if (!flags.parse(argc, argv)) {
      std::cout << flags.help();
      return false;
    }
    check_betas(parse_betas_if_any(betas), optimizer);
    TORCH_CHECK(!(lawn && compare), "--compare trains with and without LAWN: leave --lawn out");
    TORCH_CHECK(ablate == "none" || lawn || compare, "--ablate ", ablate,
                ": takes a part of LAWN away; expected --lawn or --compare beside it");
    TORCH_CHECK(radius_scale == 1 || ((lawn || compare) && ablate == "none"), "--radius-scale ",
                radius_scale, ": scales the radii of all of LAWN; expected --lawn or --compare ",
                "beside it, and no --ablate");
    TORCH_CHECK(ablate == "none" || weight_decay == 0, "--ablate ", ablate,
                ": expected --weight-decay 0, got ", weight_decay,
                ": its effect could not be told from that of the missing part");
    TORCH_CHECK(
        !(lawn || compare || two_part_schedule) || warmup + free_fraction < 1, "--warmup ", warmup,
        " --free-fraction ", free_fraction,
        ": LAWN's schedule warms up again after its free part; expected a sum below 1, got ",
        warmup + free_fraction);
    command_line.assign(argv, argv + argc);
    settings = flags.essential_values();
    return true;
  }

  /// @param place  of this process among those of the machine, which share its GPUs
  at::Device torch_device(int64_t place = 0) const {
    const bool cuda = device == "cuda" || (device == "auto" && torch::cuda::is_available());
    TORCH_CHECK(!cuda || torch::cuda::is_available(), "--device cuda: no CUDA device was found");
    if (!cuda) return at::kCPU;
    const auto devices = static_cast<int64_t>(torch::cuda::device_count());
    return {at::kCUDA, static_cast<c10::DeviceIndex>(place % devices)};
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

  /// What decides the runs of a program, in lines.
  std::string job() const {
    return lines(settings) + "lawn " + (lawn ? "on" : "off") + "\ncompare " +
           (compare ? "on" : "off") + "\n";
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
    return resumed_from_folder(run_name(with_lawn), /*begun=*/!(compare && with_lawn));
  }

  /// The same of one of several runs. --resume names the folder of all; a run whose checkpoint is
  /// not there had not begun.
  /// @param begun  the run must have, as the first of a program
  std::string resumed_from_folder(const std::string& run, bool begun) const {
    if (resume.empty()) return "";
    TORCH_CHECK(std::filesystem::is_directory(resume), "--resume ", resume,
                ": expected the folder that holds the checkpoints of all runs");
    const std::filesystem::path path = std::filesystem::path(resume) / (run + ".pt");
    const bool there = std::filesystem::exists(path);
    TORCH_CHECK(there || !begun, "--resume ", resume, ": there is no ", path.filename().string(),
                " in that folder");
    return there ? path.string() : "";
  }

  /// Whether several processes have the output folder together, so that one of them must take it
  /// for all.
  bool shares_folder() const { return false; }

  /// Whether more than one network is trained, so that --resume takes a folder.
  bool several() const { return many || compare; }

  /// "adam without and with LAWN, 3 epochs of batches of 64", for the line that heads a job.
  std::string summary() const {
    return optimizer +
           (compare ? " without and with LAWN"
            : lawn  ? " with LAWN"
                    : "") +
           ", " + std::to_string(epochs) + " epochs of batches of " + std::to_string(batch_size);
  }

  /// Threads, kernels that give the same bits each time, and zero for subnormal numbers, with which
  /// x86 is slow: moments of dead units become subnormal. Threads that begin later do the same.
  void apply_to_torch() const {
    at::globalContext().setFlushDenormal(true);
    if (threads > 0) at::set_num_threads(static_cast<int>(threads));
    at::globalContext().setBenchmarkCuDNN(false);
    at::globalContext().setDeterministicCuDNN(true);
  }
};

/// " on cpu with 2 threads".
inline std::string device_text(at::Device device) {
  return " on " + device.str() +
         (device.is_cpu() ? " with " + std::to_string(at::get_num_threads()) + " threads" : "");
}

}  // namespace examples
