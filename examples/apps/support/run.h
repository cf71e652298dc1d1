// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>

#include "examples/apps/support/dataset.h"
#include "examples/apps/support/interrupt.h"
#include "examples/apps/support/run_options.h"
#include "examples/apps/support/run_record.h"
#include "examples/apps/support/trainer.h"

namespace examples {

/// How a run ended, as far as it does not depend on what was trained.
struct RunResult {
  std::string name;
  int64_t ranks = 1;  ///< that trained together
  bool finished = false;
  Settings settings;       ///< all that decides what the run computed
  double norm_growth = 0;  ///< of the sub-network's weights: norm at the end over norm at the start
  double norm_growth_of_all = 0;  ///< the same of all weights
  double loss_scale = 1;          ///< at the end; 1 without gradient scaling
  int64_t skipped_steps = 0;      ///< because a gradient overflowed
  StepTimes times;
  double steps = 0;
  double samples_per_second = 0;
  double best_score = 0;
  int64_t best_epoch = 0;    ///< 0 if no score was a number
  uint64_t fingerprint = 0;  ///< of all parameters: equal for equal bits
  std::string checkpoint;
  History history{{}};
};

/// Steps that a task takes.
inline int64_t total_steps(const Task& task, const RunOptions& options) {
  return options.epochs * Trainer::steps_per_epoch(task.size(), options.batch_size);
}

/// What the options say of the optimizer and its schedule, without LAWN.
inline StepperOptions stepper_options(const Task& task, const RunOptions& options) {
  StepperOptions stepping;
  stepping.total_steps = total_steps(task, options);
  stepping.optimizer = options.optimizer;
  stepping.learning_rate = options.rate();
  stepping.weight_decay = options.weight_decay;
  stepping.decay_vectors = options.decay_vectors;
  stepping.betas = parse_betas_if_any(options.betas);
  stepping.warmup_steps =
      static_cast<int64_t>(options.warmup * static_cast<double>(stepping.total_steps));
  stepping.final_factor = options.final_factor;
  return stepping;
}

/// `text` as one word of a command line of a POSIX shell, quoted if it has to be.
inline std::string shell_word(const std::string& text) {
  const std::string plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:=+@%";
  if (!text.empty() && text.find_first_not_of(plain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char character : text) {
    quoted += character == '\'' ? std::string("'\\''") : std::string(1, character);
  }
  return quoted + "'";
}

/// The flag that goes on from a checkpoint in the output folder, as it is to be typed.
inline std::string resume_flag(const RunOptions& options, const std::string& checkpoint) {
  return "--resume " + shell_word(options.several() ? options.out : checkpoint);
}

/// Trains the network of a task with a stepper, from its checkpoint if there is one to resume.
/// @param measured         weights whose norms are in the history
/// @param name             of the run and its files
/// @param resumed          checkpoint to go on from, or empty
/// @param data             fingerprint of the training data: a checkpoint of other data is refused
/// @param scale_gradients  see TrainerOptions
/// @throws c10::Error as Trainer does
inline RunResult train_with(Task& task, Stepper& stepper, const lawn::Subnetwork& measured,
                            const RunOptions& options, const std::string& name,
                            const std::string& resumed, uint64_t data,
                            bool scale_gradients = false) {
  RunResult result;
  result.name = name;
  result.ranks = task.ranks().size();

  TrainerOptions training;
  training.epochs = options.epochs;
  training.batch_size = options.batch_size;
  training.seed = static_cast<uint64_t>(options.seed);
  training.scale_gradients = scale_gradients;
  training.max_gradient_norm = options.max_gradient_norm;
  training.checkpoint_every = options.checkpoint_every;
  training.checkpoint = std::filesystem::path(options.out) / (result.name + ".pt");
  training.csv = std::filesystem::path(options.out) / (result.name + ".csv");

  result.settings = options.settings;
  result.settings.emplace_back("run", result.name);
  result.settings.emplace_back("training data", std::to_string(data));
  Trainer trainer(task, stepper, measured, training, result.settings);
  if (!resumed.empty()) {
    trainer.load(resumed);
  } else if (std::filesystem::exists(training.checkpoint)) {
    std::cout << training.checkpoint.string() << " of an earlier run will be replaced: this one "
              << "starts anew; to go on from it, stop and give "
              << resume_flag(options, training.checkpoint.string()) << '\n';
  }
  Progress progress(std::cout, result.name, trainer.total_steps() * training.batch_size,
                    trainer.steps() * training.batch_size, task.ranks().on_terminal(), task.unit());
  static const auto start = std::chrono::steady_clock::now();  // of the first of several runs
  result.finished = trainer.run(progress, [&] {
    const std::chrono::duration<double> so_far = std::chrono::steady_clock::now() - start;
    return interrupted() || (options.stop_after > 0 && so_far.count() > options.stop_after);
  });
  result.checkpoint = training.checkpoint.string();
  result.steps = static_cast<double>(trainer.steps());
  if (!result.finished) return result;

  result.norm_growth = trainer.norm_growth();
  result.norm_growth_of_all = trainer.norm_growth_of_all();
  result.loss_scale = trainer.loss_scale();
  result.skipped_steps = trainer.skipped_steps();
  result.times = trainer.times();
  result.samples_per_second =
      result.steps * static_cast<double>(training.batch_size) / result.times.whole;
  result.best_score = trainer.best_score();
  result.best_epoch = trainer.best_epoch();
  result.fingerprint = fingerprint(task.network().parameters());
  result.history = trainer.history();
  return result;
}

/// Multiplies the weights of a sub-network by a factor.
inline void scale_weights(const lawn::Subnetwork& subnetwork, double factor) {
  const at::NoGradGuard no_grad;
  for (at::Tensor weight : subnetwork.parameters()) weight.mul_(factor);
}

/// Trains the network of a task, plain or with LAWN, from its checkpoint if there is one to resume.
/// @param subnetwork       what LAWN constrains, and what is measured without LAWN too
/// @param data             fingerprint of the training data: a checkpoint of other data is refused
/// @param scale_gradients  see TrainerOptions
inline RunResult run_training(Task& task, const lawn::Subnetwork& subnetwork,
                              const RunOptions& options, bool with_lawn, uint64_t data,
                              bool scale_gradients = false) {
  if (with_lawn) std::cout << subnetwork << '\n';
  if (options.init_scale != 1) scale_weights(subnetwork, options.init_scale);
  StepperOptions stepping = stepper_options(task, options);
  stepping.lawn = with_lawn;
  stepping.ablate = options.ablate;
  stepping.two_part_schedule = options.two_part_schedule;
  stepping.radius_scale = options.radius_scale;
  stepping.free_steps =
      static_cast<int64_t>(options.free_fraction * static_cast<double>(stepping.total_steps));
  const auto stepper = make_stepper(task.network().parameters(), subnetwork, stepping);
  RunResult result = train_with(task, *stepper, subnetwork, options, options.run_name(with_lawn),
                                options.resumed_checkpoint(with_lawn), data, scale_gradients);
  if (with_lawn && result.finished) stepper->print_report(std::cout);
  return result;
}

/// Writes the record of a finished run, `<out>/<name>.json`.
/// @param figures  what the task measured at the end
inline void write_record(const std::string& program, const RunOptions& options,
                         const RunResult& result, const std::string& unit, at::Device device,
                         const Figures& figures) {
  RunRecord record;
  record.program = program;
  record.name = result.name;
  record.settings = result.settings;
  record.device = device.str();
  record.ranks = result.ranks;
  record.seconds = result.times.whole;
  record.figures = {{"learning_rate", options.rate()}, {"steps", result.steps}};
  record.figures.insert(record.figures.end(), figures.begin(), figures.end());
  for (const auto& figure : Figures{
           {"norm_growth", result.norm_growth},
           {"norm_growth_of_all", result.norm_growth_of_all},
           {unit + "_per_second", result.samples_per_second},
           {"optimizer_seconds_per_step", result.times.optimizer_per_step()},
           {"loss_scale", result.loss_scale},
           {"skipped_steps", static_cast<double>(result.skipped_steps)},
       }) {
    record.figures.push_back(figure);
  }
  record.write(options.out, result.history);
}

/// The same, of a run plain or with LAWN.
inline void write_record(const std::string& program, const RunOptions& options, bool with_lawn,
                         RunResult result, const std::string& unit, at::Device device,
                         const Figures& figures) {
  result.settings.emplace_back("lawn", with_lawn ? "on" : "off");
  write_record(program, options, result, unit, device, figures);
}

/// Says where an unfinished run stopped and how to go on.
inline void print_how_to_resume(std::ostream& out, const RunOptions& options,
                                const RunResult& result) {
  out << "\nstopped after " << fixed(result.steps, 0) << " steps of " << result.name
      << "; saved to " << result.checkpoint << "\nto go on from there"
      << (result.ranks > 1
              ? ", on any number of ranks:\n  mpirun -n " + std::to_string(result.ranks)
              : ":\n ");
  for (size_t index = 0; index < options.command_line.size(); ++index) {
    const std::string& argument = options.command_line[index];
    if (argument == "--resume") ++index;  // and its value
    if (argument.compare(0, 8, "--resume") != 0) out << ' ' << shell_word(argument);
  }
  out << ' ' << resume_flag(options, result.checkpoint) << '\n';
}

}  // namespace examples
