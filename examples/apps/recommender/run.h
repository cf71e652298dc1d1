// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/lawn.h>
#include <torch/utils.h>

#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "examples/apps/recommender/options.h"
#include "examples/apps/support/recommendation.h"
#include "examples/apps/support/result_table.h"
#include "examples/apps/support/run.h"

/// How a run ended.
struct Result : examples::RunResult {
  examples::RecommendationFigures at_end;
};

/// The figures of a finished run, for its record.
inline examples::Figures figures(const Result& result) {
  const auto& [ranking, train, test] = result.at_end;
  return {{"hit_rate", ranking.hit_rate},      {"ndcg", ranking.ndcg},
          {"train_loss", train.loss},          {"train_logit", train.logit},
          {"train_vanished", train.vanished},  {"test_loss", test.loss},
          {"test_logit", test.logit},          {"test_vanished", test.vanished},
          {"best_hit_rate", result.best_score}};
}

/// The weights that LAWN constrains in a network: those that the walk from its logits finds, or
/// all.
inline lawn::Subnetwork choose_subnetwork(examples::Recommender& network, const std::string& select,
                                          const at::Tensor& candidates) {
  if (select == "all") return lawn::select_all_weights(network);
  const at::Tensor items = candidates.slice(0, 0, 1).reshape(-1);
  return lawn::final_homogeneous_subnetwork(network.forward(at::zeros_like(items), items), network);
}

/// Trains one network: from its checkpoint if there is one to resume, else from the options' seed.
inline Result train(const Options& options, const examples::RankingData& data, at::Device device,
                    bool with_lawn) {
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  const auto network = examples::make_recommender(options.network, data.train.user_count,
                                                  data.train.item_count, options.factors);
  network->to(device);
  const lawn::Subnetwork subnetwork = choose_subnetwork(*network, options.select, data.candidates);

  examples::Recommendation task(network, data, {options.negatives, options.probe_size});
  Result result = {examples::run_training(task, subnetwork, options, with_lawn,
                                          examples::fingerprint({data.train.users, data.train.items,
                                                                 data.candidates})),
                   {}};
  if (!result.finished) return result;
  result.at_end = task.on_all_data();
  examples::write_record("recommender", options, with_lawn, result, task.unit(), device,
                         figures(result));
  return result;
}

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  std::ostringstream threshold;
  threshold << examples::kVanishedGradient;
  table.row("HR@10", [](const Result& r) { return fixed(r.at_end.ranking.hit_rate, 4); });
  table.row("NDCG@10", [](const Result& r) { return fixed(r.at_end.ranking.ndcg, 4); });
  table.row("train loss", [](const Result& r) { return fixed(r.at_end.train.loss, 4); });
  table.row("train: mean |logit|", [](const Result& r) { return fixed(r.at_end.train.logit, 2); });
  table.row("train: |sigmoid - label| < " + threshold.str(),
            [](const Result& r) { return percent(r.at_end.train.vanished); });
  table.row("test loss", [](const Result& r) { return fixed(r.at_end.test.loss, 4); });
  table.row("test: mean |logit|", [](const Result& r) { return fixed(r.at_end.test.logit, 2); });
  table.row("test: |sigmoid - label| < " + threshold.str(),
            [](const Result& r) { return percent(r.at_end.test.vanished); });
  table.add_run_rows(
      "HR@10 of an epoch", [](double score) { return fixed(score, 4); }, "samples");
  out << table;
}
