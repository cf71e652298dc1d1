// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/mimicnorm/centered.h>
#include <lawn/companions/mimicnorm/mimic_norm.h>
#include <lawn/companions/mimicnorm/residual_scale.h>
#include <torch/utils.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "examples/apps/mimicnorm/kept_bytes.h"
#include "examples/apps/mimicnorm/network.h"
#include "examples/apps/mimicnorm/options.h"
#include "examples/apps/support/classification.h"
#include "examples/apps/support/decorated_stepper.h"
#include "examples/apps/support/result_table.h"
#include "examples/apps/support/run.h"

/// How a run ended.
struct Result : examples::RunResult {
  examples::Evaluation train;  ///< on all training images
  examples::Evaluation test;
  double kept_bytes = 0;  ///< for the backward pass of one batch
};

/// The figures of a finished run, for its record.
inline examples::Figures figures(const Result& result) {
  return {
      {"train_accuracy", result.train.accuracy}, {"train_loss", result.train.loss},
      {"test_accuracy", result.test.accuracy},   {"test_loss", result.test.loss},
      {"kept_bytes", result.kept_bytes},         {"best_probed_test_accuracy", result.best_score}};
}

/// The bytes that a training step keeps between forward and backward pass.
/// @param network  is in training mode afterwards; the running statistics of its norms have moved
inline double kept_bytes(examples::Classifier& network, const examples::Dataset& data,
                         const examples::Feeding& feeding, int64_t batch_size) {
  network.train();
  const at::Tensor images = data.images.slice(0, 0, batch_size);
  const at::Tensor labels = data.labels.slice(0, 0, batch_size);
  return static_cast<double>(bytes_kept_for_backward(
      [&] { return at::cross_entropy_loss(feeding.logits(network, images), labels); }));
}

/// Trains one network: from its checkpoint if there is one to resume, else from the options' seed.
inline Result train(const Options& options, const examples::Split& data,
                    const examples::Feeding& feeding, const std::string& method) {
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  NetworkOptions shape;
  shape.residual = options.network == "residual";
  shape.batch_norm = method == "batch-norm";
  shape.last_norm = options.last_norm(method);
  shape.centred = options.centred(method);
  shape.logit_scale = options.logit_scale;
  shape.channels = data.train.channels();
  shape.classes = data.train.classes;
  const auto network = Network(shape).ptr();
  // In a chain the weights make up for the loss by centring; in blocks the residual scales do.
  const auto centring = lawn::MimicNormOptions().gain(shape.residual ? 1 : lawn::kCenteringGain);
  if (shape.centred) {
    lawn::mimic_norm_init_(*network, centring);
  } else {
    he_init_(*network);
  }
  feeding.place(*network);

  examples::Classification task(network, data, feeding, {false, options.probe_size});
  const lawn::Subnetwork selection = lawn::select_for_centering(*network, centring);
  const auto stepping = examples::stepper_options(task, options);
  const auto stepper = shape.centred
                           ? examples::make_decorated_stepper<lawn::Centered>(network->parameters(),
                                                                              stepping, selection)
                           : examples::make_stepper(network->parameters(), selection, stepping);
  Result result = {examples::train_with(task, *stepper, selection, options, method,
                                        options.resumed(method), examples::fingerprint(data.train)),
                   {},
                   {}};
  if (!result.finished) return result;
  result.train = task.on_training_data();
  result.test = task.on_test_data();
  result.kept_bytes = kept_bytes(*network, data.train, feeding, options.batch_size);
  examples::write_record("mimicnorm", options, result, task.unit(), feeding.device,
                         figures(result));
  return result;
}

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  table.row("test accuracy", [](const Result& r) { return percent(r.test.accuracy); });
  table.row("test loss", [](const Result& r) { return fixed(r.test.loss, 4); });
  table.row("train accuracy", [](const Result& r) { return percent(r.train.accuracy); });
  table.row("train loss", [](const Result& r) { return fixed(r.train.loss, 4); });
  table.row("kept for backward, MiB",
            [](const Result& r) { return fixed(r.kept_bytes / (1 << 20), 2); });
  table.add_best_rows("probed test accuracy", percent);
  table.add_cost_rows("images");
  out << table;
}
