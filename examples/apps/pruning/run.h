// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/mask.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/companions/pruning/snapshot.h>
#include <lawn/companions/pruning/weight_overlap.h>
#include <lawn/subnetwork/selection.h>
#include <torch/utils.h>

#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "examples/apps/pruning/options.h"
#include "examples/apps/support/classification.h"
#include "examples/apps/support/decorated_stepper.h"
#include "examples/apps/support/networks.h"
#include "examples/apps/support/result_table.h"
#include "examples/apps/support/run.h"

/// The runs in their order: the first prunes, and the others train what it leaves. Each begins
/// elsewhere: at the trained weights, at the initial ones, and at unrelated ones.
inline const std::vector<std::string> kRuns = {"dense", "fine-tune", "ticket", "fresh"};

/// How a run ended.
struct Result : examples::RunResult {
  double pruned = 0;            ///< part of the prunable weights that its masks hold at zero
  examples::Evaluation before;  ///< on the test images, with the masks on, before its first step
  examples::Evaluation train;   ///< on all training images, without augmentation
  examples::Evaluation test;
  std::optional<double> overlap;  ///< R_p of the dense run, p the part of the weights that is kept
};

/// The figures of a finished run, for its record.
inline examples::Figures figures(const Result& result) {
  examples::Figures all = {{"pruned", result.pruned},
                           {"test_accuracy_before", result.before.accuracy},
                           {"test_loss_before", result.before.loss},
                           {"train_accuracy", result.train.accuracy},
                           {"train_loss", result.train.loss},
                           {"test_accuracy", result.test.accuracy},
                           {"test_loss", result.test.loss},
                           {"best_probed_test_accuracy", result.best_score}};
  if (result.overlap) all.emplace_back("overlap", *result.overlap);
  return all;
}

/// The runs of the table, all in one network.
class Experiment {
 public:
  /// @throws c10::Error if the network is too small to be pruned as the options say
  Experiment(const Options& options, const examples::Split& data, at::Device device)
      : options_(options),
        data_(data),
        feeding_({examples::channel_statistics(data.train), device}),
        network_(draw(options.seed)),
        initial_(*network_),
        // Of other weights and, where batch norms have any, no other statistics.
        fresh_(*draw(options.seed, /*skip=*/1)),
        weights_(select(*network_, options.prune_head)) {
    // Refuses this before an hour of training. With the other scope, only the trained weights show
    // whether something of each layer is left.
    if (options_.scope == "layer") lawn::magnitude_masks(weights_, options_.magnitude());
  }

  /// Trains one of kRuns, from its checkpoint if there is one to resume. The dense run comes first.
  Result run(const std::string& name) {
    const bool dense = name == kRuns.front();
    start_of(name).rewind(*network_);
    examples::Classification task(network_, data_, feeding_,
                                  {options_.augment, options_.probe_size});
    examples::RunOptions options = dense ? options_ : options_.retraining();
    const auto stepping = examples::stepper_options(task, options);
    const auto stepper = dense ? examples::make_stepper(network_->parameters(), weights_, stepping)
                               : examples::make_decorated_stepper<lawn::Masked>(
                                     network_->parameters(), stepping, masks_);
    // A checkpoint of another start is refused.
    options.settings.emplace_back("start",
                                  std::to_string(examples::fingerprint(network_->parameters())));
    const examples::Evaluation before = task.on_test_data();

    Result result = {examples::train_with(task, *stepper, weights_, options, name,
                                          options.resumed_from_folder(name, /*begun=*/dense),
                                          examples::fingerprint(data_.train)),
                     dense ? 0 : lawn::sparsity(masks_),
                     before,
                     {},
                     {},
                     {}};
    if (!result.finished) return result;
    result.train = task.on_training_data();
    result.test = task.on_test_data();
    if (dense) {
      trained_.emplace(*network_);
      masks_ = lawn::magnitude_masks(weights_, options_.magnitude());
      result.overlap = lawn::weight_overlap(initial_.of(weights_), weights_.parameters(),
                                            1 - lawn::sparsity(masks_));
    }
    examples::write_record("pruning", options, result, task.unit(), feeding_.device,
                           figures(result));
    return result;
  }

 private:
  static lawn::Subnetwork select(const torch::nn::Module& network, bool head) {
    return lawn::select_if(network, [head](const std::string& name, const at::Tensor& tensor) {
      return tensor.dim() >= 2 && (head || name != "head.weight");
    });
  }

  /// A network from a seed, or the one that is drawn after `skip` others.
  std::shared_ptr<examples::Classifier> draw(int64_t seed, int64_t skip = 0) const {
    torch::manual_seed(static_cast<uint64_t>(seed));
    for (; skip > 0; --skip) examples::make_network(options_.network, data_.train);
    const auto network = examples::make_network(options_.network, data_.train);
    feeding_.place(*network);
    return network;
  }

  const lawn::Snapshot& start_of(const std::string& name) const {
    if (name == "fine-tune") return *trained_;
    return name == "fresh" ? fresh_ : initial_;
  }

  Options options_;
  examples::Split data_;
  examples::Feeding feeding_;
  std::shared_ptr<examples::Classifier> network_;
  lawn::Snapshot initial_;
  lawn::Snapshot fresh_;
  lawn::Subnetwork weights_;
  std::optional<lawn::Snapshot> trained_;  ///< at the end of the dense run
  lawn::Masks masks_;                      ///< of the dense run's weights
};

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const Options& options,
                          const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  table.row("weights pruned", [](const Result& r) { return percent(r.pruned); });
  table.row("test accuracy before training",
            [](const Result& r) { return percent(r.before.accuracy); });
  table.row("test accuracy", [](const Result& r) { return percent(r.test.accuracy); });
  table.row("test loss", [](const Result& r) { return fixed(r.test.loss, 4); });
  table.row("train accuracy", [](const Result& r) { return percent(r.train.accuracy); });
  table.row("train loss", [](const Result& r) { return fixed(r.train.loss, 4); });
  table.row("overlap R_p, start and end",
            [](const Result& r) { return r.overlap ? percent(*r.overlap) : std::string("-"); });
  table.add_best_rows("probed test accuracy", percent);
  table.add_cost_rows("images");
  out << table << "\nAll were trained for " << options.epochs
      << " epochs; fine-tune goes on from weights that had as many before. R_p is the part of the "
         "largest "
      << percent(1 - results[1].pruned)
      << " of the weights at the start that is among the largest at the end; by chance it is as "
         "much as that.\n";
}
