// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/subnetwork/subnetwork.h>
#include <torch/utils.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "examples/apps/afan/adversarial.h"
#include "examples/apps/afan/network.h"
#include "examples/apps/afan/options.h"
#include "examples/apps/support/result_table.h"
#include "examples/apps/support/run.h"

/// How a run ended.
struct Result : examples::RunResult {
  examples::Evaluation train;  ///< on all training images
  examples::Evaluation test;
  Perturbed signs;        ///< on the test images, their features moved by random signs
  Perturbed adversarial;  ///< and up the loss, as far
};

/// The figures of a finished run, for its record.
inline examples::Figures figures(const Result& result) {
  return {{"train_accuracy", result.train.accuracy},
          {"train_loss", result.train.loss},
          {"test_accuracy", result.test.accuracy},
          {"test_loss", result.test.loss},
          {"signs_test_accuracy", result.signs.accuracy},
          {"signs_test_loss", result.signs.loss},
          {"adversarial_test_accuracy", result.adversarial.accuracy},
          {"adversarial_test_loss", result.adversarial.loss},
          {"best_probed_test_accuracy", result.best_score}};
}

/// Trains one network: from its checkpoint if there is one to resume, else from the options' seed.
inline Result train(const Options& options, const examples::Split& data,
                    const examples::Feeding& feeding, const std::string& method) {
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  const auto network = Network(options.width, data.train.channels(), data.train.classes).ptr();
  feeding.place(*network);

  AdversarialClassification task(network, data, feeding, {options.augment, options.probe_size},
                                 options.split, options.afan(method));
  const lawn::Subnetwork weights = lawn::select_all_weights(*network);
  const auto stepper = examples::make_stepper(network->parameters(), weights,
                                              examples::stepper_options(task, options));
  Result result = {examples::train_with(task, *stepper, weights, options, method,
                                        options.resumed(method), examples::fingerprint(data.train)),
                   {},
                   {},
                   {},
                   {}};
  if (!result.finished) return result;
  result.train = task.on_training_data();
  result.test = task.on_test_data();
  using Direction = lawn::PerturbationDirection;
  const auto perturbed = [&](Direction direction) {
    return evaluate_perturbed(*network, data.test, feeding, options.split,
                              options.perturbation(direction));
  };
  torch::manual_seed(static_cast<uint64_t>(options.seed));  // the same signs for all methods
  result.signs = perturbed(Direction::kRandomSigns);
  result.adversarial = perturbed(Direction::kAscent);
  examples::write_record("afan", options, result, task.unit(), feeding.device, figures(result));
  return result;
}

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  table.row("test accuracy", [](const Result& r) { return percent(r.test.accuracy); });
  table.row("  features with random signs",
            [](const Result& r) { return percent(r.signs.accuracy); });
  table.row("  adversarial features",
            [](const Result& r) { return percent(r.adversarial.accuracy); });
  table.row("test loss", [](const Result& r) { return fixed(r.test.loss, 4); });
  table.row("  with random signs", [](const Result& r) { return fixed(r.signs.loss, 4); });
  table.row("  adversarial", [](const Result& r) { return fixed(r.adversarial.loss, 4); });
  table.row("train accuracy", [](const Result& r) { return percent(r.train.accuracy); });
  table.row("train loss", [](const Result& r) { return fixed(r.train.loss, 4); });
  table.add_best_rows("probed test accuracy", percent);
  table.add_cost_rows("images");
  out << table;
}
