// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/continual/methods.h"
#include "examples/apps/continual/stream.h"
#include "examples/apps/support/betas.h"
#include "examples/apps/support/flags.h"
#include "examples/apps/support/method_options.h"

/// What the command line of continual says.
struct Options : examples::MethodOptions {
  static constexpr const char* kUsualBetas = "0.9,0.999";

  std::string stream = "random-labels";
  int64_t epochs_per_task = 0;
  int64_t classes_per_task = 2;
  bool layer_norm = false;
  std::string betas = kUsualBetas;
  double strength = 1e-3;
  double shrink = 0.6;
  double perturb = 0.1;
  bool reset_state = false;
  double free_tasks = 1;
  double radius_scale = 1;
  std::string granularity = "layer";
  bool biases = false;

  Options() : MethodOptions(kMethods) {
    network = "mlp";
    epochs = 0;
    probe_size = 2000;
  }

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv) {
    Options o;
    examples::Flags flags("continual",
                          "trains one network on a stream of tasks, by methods that keep it "
                          "learning and by some that do not.");
    o.add_stream(flags);
    o.add_methods(flags);
    o.add_running(flags, "tasks");
    if (!static_cast<examples::MethodOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
    o.fill_in();
    return o;
  }

  /// The network's name among those of make_network().
  std::string network_name() const { return layer_norm ? network + "-layer-norm" : network; }

  /// The usual weight decay of a method, unless --weight-decay gives another.
  double decay_of(const std::string& name) const {
    return weight_decay == 0 && name == "adamw" ? 0.01 : weight_decay;
  }

  /// The options of a method's optimizer.
  /// @param steps_per_task  the unit of the free phase
  MethodSettings settings_of(const std::string& name, int64_t steps_per_task) const {
    MethodSettings made;
    made.learning_rate = rate();
    made.betas = examples::parse_betas(betas);
    made.weight_decay = decay_of(name);
    made.strength = strength;
    made.lawn = lawn::LAWNOptions()
                    .free_steps(std::llround(free_tasks * static_cast<double>(steps_per_task)))
                    .radius_scale(radius_scale)
                    .granularity(granularity == "layer" ? lawn::Granularity::kLayer
                                                        : lawn::Granularity::kOutputUnit)
                    .biases(biases);
    made.total_steps = epochs * steps_per_task;
    return made;
  }

  /// "8 methods on 100 tasks of random-labels, 20 epochs each ...", for the line that heads a job.
  std::string job_text(const examples::Split& split, at::Device where) const {
    return methods_text() + " on " + std::to_string(epochs) + " tasks of " + stream + ", " +
           std::to_string(epochs_per_task) + " epochs each of batches of " +
           std::to_string(batch_size) + " of " + images_text(split) + ", by " + network_name() +
           examples::device_text(where);
  }

 private:
  void add_stream(examples::Flags& flags) {
    flags.add("stream", &stream, "what changes from task to task").choices(kStreams);
    flags
        .add("tasks", &epochs,
             "of the stream; 0 is 100, or as many as growing-classes and warm-start have")
        .range(0, 1e6);
    flags
        .add("epochs", &epochs_per_task,
             "passes over a task; 0 is 20 for random-labels, 1 for permuted-inputs, 2 for "
             "class-pairs, 10 for growing-classes, 40 for warm-start")
        .range(0, 1e6);
    flags
        .add("batch-size", &batch_size,
             "images a step, at most those of a task; what does not fill a step is left out")
        .range(1, 1e7);
    flags.add("classes-per-task", &classes_per_task, "that growing-classes adds").range(1, 1e3);
    add_data(flags);
    add_sizes(flags,
              "0 is 1600 for random-labels, 10000 for permuted-inputs, all for the others "
              "(generated: 2000)",
              "task");
    flags.add("network", &network, "what to train; only resnet20 has batch norm")
        .choices({"mlp", "cnn", "vgg", "resnet20", "resnet20-without-norm"});
    flags.add("layer-norm", &layer_norm, "between the layers of mlp");
  }

  void add_methods(examples::Flags& flags) {
    add_method(flags);
    flags.add("lr", &learning_rate, "learning rate; 0 is 0.05 for sgd, 0.001 for the others")
        .range(0, 1e3);
    flags.add("betas", &betas, "decays of Adam's two moments; all methods except sgd have them");
    flags
        .add("weight-decay", &weight_decay,
             "as the optimizer understands it; 0 is 0.01 for adamw, none for the others")
        .range(0, 1e3);
    flags.add("strength", &strength, "of l2-init: the gradient gets strength times (w - w_0)")
        .range(0, 1e3);
    flags.add("shrink", &shrink, "of shrink-and-perturb: the share of the weights that is kept")
        .range(0, 1);
    flags.add("perturb", &perturb, "of shrink-and-perturb: the share of new weights that is added")
        .range(0, 10);
    flags.add("reset-state", &reset_state, "forget the optimizer's state as a task begins");
    flags
        .add("select", &select,
             "what lawn constrains, and every method measures: what the walk finds, or all weights")
        .choices({"walk", "all"});
    flags
        .add("free-tasks", &free_tasks,
             "of lawn: tasks before it constrains; 0.5 is half of the first")
        .range(0, 1e6);
    flags
        .add("radius-scale", &radius_scale,
             "of lawn: factor from the norms at the switch to the radii")
        .range(1e-3, 1e3);
    flags.add("granularity", &granularity, "of lawn: unit whose norm is held")
        .choices({"layer", "unit"});
    flags.add("biases", &biases, "of lawn: hold the norms of biases, too");
    flags.add("seed", &seed, "of the stream, the weights and the orders of images")
        .range(0, examples::kLargestSeed);
  }

  /// Sets what the stream decides unless the command line does, and refuses what cannot be.
  /// @throws c10::Error for flags that contradict each other
  void fill_in() {
    examples::parse_betas(betas);
    TORCH_CHECK(betas == kUsualBetas || chosen_methods() != std::vector<std::string>{"sgd"},
                "--betas: sgd has none; leave --betas out");
    TORCH_CHECK(label_noise == 0 || stream != "random-labels",
                "--label-noise: the labels of random-labels are random; expected another --stream");
    TORCH_CHECK(!layer_norm || network == "mlp", "--layer-norm: expected --network mlp, got ",
                network);
    struct Usual {
      int64_t tasks, epochs, images, drawn;
    };
    const auto usual = stream == "random-labels"     ? Usual{100, 20, 1600, 1600}
                       : stream == "permuted-inputs" ? Usual{100, 1, 10000, 10000}
                       : stream == "class-pairs"     ? Usual{100, 2, 0, 2000}
                       : stream == "growing-classes"
                           ? Usual{(10 + classes_per_task - 1) / classes_per_task, 10, 0, 2000}
                           : Usual{2, 40, 0, 2000};
    const bool ends = stream == "growing-classes" || stream == "warm-start";
    TORCH_CHECK(!ends || epochs <= usual.tasks, "--tasks ", epochs, ": ", stream, " has ",
                usual.tasks);
    if (epochs == 0) epochs = usual.tasks;
    if (epochs_per_task == 0) epochs_per_task = usual.epochs;
    if (train_size == 0) train_size = usual.images;
    generated.train_size = usual.drawn;
    if (network != "mlp") return;
    generated.channels = 1;
    generated.image_size = 28;
  }
};
