// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/lawn.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "examples/cifar10/options.h"
#include "examples/support/interrupt.h"
#include "examples/support/networks.h"
#include "examples/support/run_record.h"
#include "examples/support/trainer.h"

/// How a run ended.
struct Result {
  std::string name;
  bool finished = false;
  examples::Evaluation train;  ///< on all training images, without augmentation
  examples::Evaluation test;
  double norm_growth = 0;  ///< of the sub-network's weights: norm at the end over norm at the start
  double norm_growth_of_all = 0;  ///< the same of all weights
  double loss_scale = 1;          ///< at the end; 1 without gradient scaling
  int64_t skipped_steps = 0;      ///< because a gradient overflowed
  examples::StepTimes times;
  double steps = 0;
  double images_per_second = 0;
  double best_accuracy = 0;
  int64_t best_epoch = 0;
  uint64_t fingerprint = 0;  ///< of all parameters: equal for equal bits
  std::string checkpoint;
};

/// The figures of a finished run, for its record.
inline examples::Figures figures(const Result& result, const Options& options) {
  examples::Figures all = {{"learning_rate", options.rate()}, {"steps", result.steps}};
  const auto add = [&all](const std::string& half, const examples::Evaluation& measured) {
    all.emplace_back(half + "_accuracy", measured.accuracy);
    all.emplace_back(half + "_loss", measured.loss);
    all.emplace_back(half + "_logit_norm", measured.logit_norm);
    all.emplace_back(half + "_vanished", measured.vanished);
    all.emplace_back(half + "_calibration", measured.calibration);
  };
  add("train", result.train);
  add("test", result.test);
  all.emplace_back("norm_growth", result.norm_growth);
  all.emplace_back("norm_growth_of_all", result.norm_growth_of_all);
  all.emplace_back("best_probed_test_accuracy", result.best_accuracy);
  all.emplace_back("images_per_second", result.images_per_second);
  all.emplace_back("optimizer_seconds_per_step", result.times.optimizer_per_step());
  all.emplace_back("loss_scale", result.loss_scale);
  all.emplace_back("skipped_steps", static_cast<double>(result.skipped_steps));
  return all;
}

/// What LAWN constrains in a network: what the walk from its logits finds, or all weights.
inline lawn::Subnetwork choose_subnetwork(examples::Classifier& network, const Options& options,
                                          const examples::Split& data,
                                          const examples::Feeding& feeding) {
  if (options.select == "all") return lawn::select_all_weights(network);
  network.eval();  // the walk needs a graph, not new statistics in the batch norms
  examples::Feeding exact = feeding;
  exact.precision = at::kFloat;
  return lawn::final_homogeneous_subnetwork(exact.logits(network, data.train.images.slice(0, 0, 2)),
                                            network);
}

/// Trains one network from the seed of the options, from its checkpoint if there is one to resume.
inline Result train(const Options& options, const examples::Split& data,
                    const examples::Feeding& feeding, bool with_lawn) {
  Result result;
  result.name = options.run_name(with_lawn);
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  const auto network = examples::make_network(options.network, data.train);
  network->to(feeding.device);
  if (feeding.channels_last) examples::to_channels_last(*network);
  const lawn::Subnetwork subnetwork = choose_subnetwork(*network, options, data, feeding);
  if (with_lawn) std::cout << subnetwork << '\n';

  examples::TrainerOptions training;
  training.epochs = options.epochs;
  training.batch_size = std::min(options.batch_size, data.train.size());
  training.augment = options.augment;
  training.scale_gradients = options.torch_precision() == at::kHalf;
  training.seed = static_cast<uint64_t>(options.seed);
  training.probe_size = options.probe_size;
  training.checkpoint_every = options.checkpoint_every;
  training.checkpoint = std::filesystem::path(options.out) / (result.name + ".pt");
  training.csv = std::filesystem::path(options.out) / (result.name + ".csv");

  examples::StepperOptions stepping;
  stepping.total_steps =
      options.epochs * examples::Trainer::steps_per_epoch(data.train.size(), training.batch_size);
  const auto share = [&](double fraction) {
    return static_cast<int64_t>(fraction * static_cast<double>(stepping.total_steps));
  };
  stepping.optimizer = options.optimizer;
  stepping.learning_rate = options.rate();
  stepping.weight_decay = options.weight_decay;
  stepping.lawn = with_lawn;
  stepping.ablate = options.ablate;
  stepping.two_part_schedule = options.two_part_schedule;
  stepping.free_steps = share(options.free_fraction);
  stepping.warmup_steps = share(options.warmup);
  const auto stepper = examples::make_stepper(network->parameters(), subnetwork, stepping);

  examples::Settings settings = options.settings;
  settings.emplace_back("run", result.name);
  settings.emplace_back(
      "training data",
      std::to_string(examples::fingerprint({data.train.images, data.train.labels})));
  examples::Trainer trainer(network, *stepper, data, feeding, subnetwork, training, settings);
  const std::string resumed = options.resumed_checkpoint(with_lawn);
  if (!resumed.empty()) trainer.load(resumed);
  examples::Progress progress(std::cout, result.name, stepping.total_steps * training.batch_size,
                              trainer.steps() * training.batch_size,
                              examples::stdout_is_terminal());
  const auto start = std::chrono::steady_clock::now();
  result.finished = trainer.run(progress, [&] {
    const std::chrono::duration<double> so_far = std::chrono::steady_clock::now() - start;
    return examples::interrupted() ||
           (options.stop_after > 0 && so_far.count() > options.stop_after);
  });
  result.checkpoint = training.checkpoint.string();
  result.steps = static_cast<double>(trainer.steps());
  if (!result.finished) return result;

  if (with_lawn) stepper->print_report(std::cout);
  result.train = examples::evaluate(*network, data.train, feeding);
  result.test = examples::evaluate(*network, data.test, feeding);
  result.norm_growth =
      examples::joint_norm(examples::norms(subnetwork.parameters())) / trainer.initial_norm();
  result.norm_growth_of_all =
      examples::joint_norm(examples::norms(lawn::select_all_weights(*network).parameters())) /
      trainer.initial_norm_of_all();
  result.loss_scale = trainer.loss_scale();
  result.skipped_steps = trainer.skipped_steps();
  result.times = trainer.times();
  result.images_per_second =
      result.steps * static_cast<double>(training.batch_size) / result.times.whole;
  result.best_accuracy = trainer.best_accuracy();
  result.best_epoch = trainer.best_epoch();
  result.fingerprint = examples::fingerprint(network->parameters());

  examples::RunRecord record;
  record.program = "cifar10";
  record.name = result.name;
  record.settings = settings;
  record.settings.emplace_back("lawn", with_lawn ? "on" : "off");
  record.device = feeding.device.str();
  record.seconds = result.times.whole;
  record.figures = figures(result, options);
  record.write(options.out, trainer.history());
  return result;
}
