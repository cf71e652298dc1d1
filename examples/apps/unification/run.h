// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/pruning/snapshot.h>
#include <lawn/companions/unification/admm.h>
#include <lawn/companions/unification/frozen_structure.h>
#include <lawn/subnetwork/selection.h>
#include <torch/utils.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "examples/apps/support/classification.h"
#include "examples/apps/support/decorated_stepper.h"
#include "examples/apps/support/networks.h"
#include "examples/apps/support/run.h"
#include "examples/apps/unification/admm_task.h"
#include "examples/apps/unification/options.h"

/// A training run. The three of the table have as many epochs behind them.
struct Stage {
  enum class Method { kPlain, kAdmm, kProjected };

  std::string name;   ///< of its files
  std::string start;  ///< the stage whose weights it takes over; the first draws them
  Method method;      ///< kProjected: the weights are projected, and stay so
  bool in_table;
};

inline const std::vector<Stage> kStages = {
    {"pretraining", "", Stage::Method::kPlain, false},
    {"plain", "pretraining", Stage::Method::kPlain, false},
    {"admm-training", "pretraining", Stage::Method::kAdmm, false},
    {"dense", "plain", Stage::Method::kPlain, true},
    {"one-shot", "plain", Stage::Method::kProjected, true},
    {"admm", "admm-training", Stage::Method::kProjected, true},
};

/// How a run ended.
struct Result : examples::RunResult {
  examples::Evaluation before;     ///< on the test images, with the weights that it took over
  examples::Evaluation projected;  ///< the same right after the projection
  examples::Evaluation train;      ///< at the end, on all training images, without augmentation
  examples::Evaluation test;
  std::optional<double> residual;  ///< ||W - P(W)|| / ||W|| of the weights that were projected
  lawn::EncodedSize bytes;         ///< of all weights at the end
};

/// The figures of a finished run, for its record.
inline examples::Figures figures(const Result& result) {
  examples::Figures all = {{"test_accuracy_before", result.before.accuracy},
                           {"test_loss_before", result.before.loss},
                           {"test_accuracy_at_projection", result.projected.accuracy},
                           {"test_loss_at_projection", result.projected.loss},
                           {"train_accuracy", result.train.accuracy},
                           {"train_loss", result.train.loss},
                           {"test_accuracy", result.test.accuracy},
                           {"test_loss", result.test.loss},
                           {"bytes", static_cast<double>(result.bytes.encoded)},
                           {"dense_bytes", static_cast<double>(result.bytes.dense)},
                           {"best_probed_test_accuracy", result.best_score}};
  if (result.residual) all.emplace_back("residual", *result.residual);
  return all;
}

/// The runs of the table and those that they start from, all in one network.
class Experiment {
 public:
  /// @throws c10::Error if a block is larger than one of the network's weights
  Experiment(const Options& options, const examples::Split& data, at::Device device)
      : options_(options),
        data_(data),
        feeding_({examples::channel_statistics(data.train), device}),
        network_(draw(options.seed)),
        weights_(lawn::select_all_weights(*network_)) {
    ends_.emplace("", *network_);
    for (const auto& weight : weights_.all()) {  // refuses before an hour of training
      if (weight.constrained()) options_.projection()(weight.tensor, weight.name);
    }
  }

  /// Trains one of kStages, from its checkpoint if there is one to resume. Those whose weights it
  /// takes over must have been trained.
  Result run(const Stage& stage) {
    using Method = Stage::Method;
    ends_.at(stage.start).rewind(*network_);
    examples::RunOptions options = options_of(stage);
    AdmmTask task(network_, data_, feeding_, {options_.augment, options_.probe_size});
    examples::Classification plain_task(network_, data_, feeding_,
                                        {options_.augment, options_.probe_size});
    Result result;
    result.before = task.on_test_data();

    const auto stepping = examples::stepper_options(task, options);
    const auto stepper = stage.method == Method::kPlain
                             ? examples::make_stepper(network_->parameters(), weights_, stepping)
                             : examples::make_decorated_stepper<lawn::Admm>(
                                   network_->parameters(), stepping, weights_,
                                   options_.projection(), options_.admm());
    torch::optim::Optimizer& optimizer = stepper->optimizer();
    if (stage.method == Method::kProjected) {
      visit_admm(optimizer, [&result](auto& admm) {
        result.residual = admm.residual();  // to the projection, as long as there was no step
        admm.finalize();
      });
    }
    if (stage.method == Method::kAdmm) task.follow(optimizer);
    result.projected = task.on_test_data();

    // A checkpoint of another start is refused.
    options.settings.emplace_back("start",
                                  std::to_string(examples::fingerprint(network_->parameters())));
    examples::Task& trained = stage.method == Method::kAdmm ? task : plain_task;
    static_cast<examples::RunResult&>(result) =
        examples::train_with(trained, *stepper, weights_, options, stage.name,
                             options.resumed_from_folder(stage.name, /*begun=*/stage.start.empty()),
                             examples::fingerprint(data_.train));
    if (!result.finished) return result;
    ends_.emplace(stage.name, *network_);
    result.train = task.on_training_data();
    result.test = task.on_test_data();
    result.bytes =
        stage.method == Method::kProjected
            ? visit_admm(optimizer,
                         [](auto& admm) { return lawn::encoded_size(admm.structures()); })
            : dense_size();
    examples::write_record("unification", options, result, task.unit(), feeding_.device,
                           figures(result));
    return result;
  }

 private:
  std::shared_ptr<examples::Classifier> draw(int64_t seed) const {
    torch::manual_seed(static_cast<uint64_t>(seed));
    const auto network = examples::make_network(options_.network, data_.train);
    feeding_.place(*network);
    return network;
  }

  examples::RunOptions options_of(const Stage& stage) const {
    if (stage.start.empty()) return options_;
    return stage.in_table ? options_.after_projection() : options_.before_projection();
  }

  lawn::EncodedSize dense_size() const {
    lawn::EncodedSize size;
    for (const at::Tensor& weight : weights_.parameters()) {
      size.dense += static_cast<int64_t>(weight.nbytes());
    }
    size.encoded = size.dense;
    return size;
  }

  Options options_;
  examples::Split data_;
  examples::Feeding feeding_;
  std::shared_ptr<examples::Classifier> network_;
  lawn::Subnetwork weights_;
  std::map<std::string, lawn::Snapshot> ends_;  ///< of each stage; "" is the start of the first
};
