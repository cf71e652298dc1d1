// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/lawn.h>
#include <torch/utils.h>

#include <string>

#include "examples/apps/cifar10/options.h"
#include "examples/apps/support/classification.h"
#include "examples/apps/support/networks.h"
#include "examples/apps/support/ranks.h"
#include "examples/apps/support/run.h"

/// How a run ended.
struct Result : examples::RunResult {
  examples::Evaluation train;  ///< on all training images, without augmentation
  examples::Evaluation test;
};

/// The figures of a finished run, for its record.
inline examples::Figures figures(const Result& result) {
  examples::Figures all;
  const auto add = [&all](const std::string& half, const examples::Evaluation& measured) {
    all.emplace_back(half + "_accuracy", measured.accuracy);
    all.emplace_back(half + "_loss", measured.loss);
    all.emplace_back(half + "_logit_norm", measured.logit_norm);
    all.emplace_back(half + "_vanished", measured.vanished);
    all.emplace_back(half + "_calibration", measured.calibration);
  };
  add("train", result.train);
  add("test", result.test);
  all.emplace_back("best_probed_test_accuracy", result.best_score);
  return all;
}

/// The weights that LAWN constrains in a network: those that the walk from its logits finds, or
/// all.
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

/// Trains one network: from its checkpoint if there is one to resume, else from the options' seed.
inline Result train(const Options& options, const examples::Split& data,
                    const examples::Feeding& feeding, examples::Ranks& ranks, bool with_lawn) {
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  const auto network = examples::make_network(options.network, data.train);
  feeding.place(*network);
  const lawn::Subnetwork subnetwork = choose_subnetwork(*network, options, data, feeding);

  examples::Classification task(network, data, feeding, {options.augment, options.probe_size},
                                ranks);
  Result result = {examples::run_training(
                       task, subnetwork, options, with_lawn, examples::fingerprint(data.train),
                       /*scale_gradients=*/options.torch_precision() == at::kHalf),
                   {},
                   {}};
  if (!result.finished) return result;
  result.train = task.on_training_data();
  result.test = task.on_test_data();
  if (ranks.is_root()) {
    examples::write_record("cifar10", options, with_lawn, result, task.unit(), feeding.device,
                           figures(result));
  }
  return result;
}
