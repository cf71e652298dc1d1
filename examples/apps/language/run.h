// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/lawn.h>
#include <lawn/subnetwork/select_by_name.h>
#include <torch/utils.h>

#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "examples/apps/language/options.h"
#include "examples/apps/support/language_modelling.h"
#include "examples/apps/support/result_table.h"
#include "examples/apps/support/run.h"

/// How a run ended.
struct Result : examples::RunResult {
  examples::Evaluation train;  ///< on as many windows of the training text as of the test text
  examples::Evaluation test;   ///< on all of the test text
};

/// The figures of a finished run, for its record. Losses are in nats a character.
inline examples::Figures figures(const Result& result) {
  return {{"train_loss", result.train.loss},
          {"train_logit_norm", result.train.logit_norm},
          {"train_vanished", result.train.vanished},
          {"test_loss", result.test.loss},
          {"test_bits", result.test.loss / std::log(2.0)},
          {"test_chance", std::exp(-result.test.loss)},
          {"test_accuracy", result.test.accuracy},
          {"test_logit_norm", result.test.logit_norm},
          {"test_calibration", result.test.calibration},
          {"best_probed_test_chance", result.best_score}};
}

/// The weights that LAWN constrains in a network, as --select says.
inline lawn::Subnetwork choose_subnetwork(examples::Transformer& network, const std::string& select,
                                          const examples::Text& text) {
  if (select == "blocks") return lawn::select_by_name(*network, examples::kBlockWeights);
  if (select == "all") return lawn::select_all_weights(*network);
  return lawn::final_homogeneous_subnetwork(network(text.tokens.slice(0, 0, 2).unsqueeze(0)),
                                            *network);
}

/// Trains one network: from its checkpoint if there is one to resume, else from the options' seed.
inline Result train(const Options& options, const examples::TextSplit& text, at::Device device,
                    bool with_lawn) {
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  examples::Transformer network(options.shape(text.train));
  network->to(device);
  const lawn::Subnetwork subnetwork = choose_subnetwork(network, options.select, text.train);

  examples::LanguageModelling task(network, text,
                                   {options.context, options.windows, options.probe_size});
  Result result = {
      examples::run_training(task, subnetwork, options, with_lawn,
                             examples::fingerprint({text.train.tokens, text.test.tokens})),
      {},
      {}};
  if (!result.finished) return result;
  result.train = task.on_training_text();
  result.test = task.on_test_text();
  examples::write_record("language", options, with_lawn, result, task.unit(), device,
                         figures(result));
  return result;
}

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  table.row("train loss", [](const Result& r) { return fixed(r.train.loss, 4); });
  table.row("train: mean logit norm", [](const Result& r) { return fixed(r.train.logit_norm, 2); });
  table.row("test loss, nats a character", [](const Result& r) { return fixed(r.test.loss, 4); });
  table.row("  in bits", [](const Result& r) { return fixed(r.test.loss / std::log(2.0), 4); });
  table.row("test accuracy", [](const Result& r) { return percent(r.test.accuracy); });
  table.row("test: mean logit norm", [](const Result& r) { return fixed(r.test.logit_norm, 2); });
  table.row("test: calibration error", [](const Result& r) { return percent(r.test.calibration); });
  table.add_run_rows(
      "probed test loss", [](double chance) { return fixed(-std::log(chance), 4); }, "windows");
  out << table;
}
