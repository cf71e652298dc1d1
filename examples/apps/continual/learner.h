// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/lawn.h>
#include <torch/utils.h>

#include <memory>
#include <string>
#include <utility>

#include "examples/apps/continual/methods.h"
#include "examples/apps/continual/options.h"
#include "examples/apps/continual/shrink_and_perturb.h"
#include "examples/apps/continual/stream.h"
#include "examples/apps/continual/stream_task.h"
#include "examples/apps/support/metrics.h"
#include "examples/apps/support/networks.h"

/// A network on its way through a stream, and the method by which that network learns: all that a
/// Trainer needs, drawn from the seed of the options.
class Learner {
 public:
  Learner(Options options, const examples::Split& data, const examples::Feeding& feeding,
          std::string method)
      : options_(std::move(options)),
        method_(std::move(method)),
        seed_(static_cast<uint64_t>(options_.seed)),
        feeding_(feeding_for(options_.network, feeding)),
        stream_(make_stream(options_.stream, {fed(data.train), fed(data.test)}, data.train.classes,
                            seed_, options_.classes_per_task)),
        shape_{"", data.train.images.slice(0, 0, 2), data.train.labels, stream_->outputs()},
        network_(new_network(seed_)),
        measured_(choose_subnetwork()),
        task_(network_, stream_, measured_.parameters(),
              {options_.epochs_per_task, options_.batch_size, options_.probe_size, seed_,
               feeding_.channels_last}),
        stepper_(make_method(method_, network_->parameters(), measured_,
                             options_.settings_of(method_, task_.size() / options_.batch_size))) {
    task_.at_beginning([this](int64_t number) { begin_task(number); });
  }
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;

  StreamTask& task() { return task_; }
  examples::Stepper& stepper() { return *stepper_; }
  /// The weights that LAWN constrains, and that every method measures.
  const lawn::Subnetwork& measured() const { return measured_; }
  const Stream& stream() const { return *stream_; }

 private:
  static examples::Feeding feeding_for(const std::string& network, examples::Feeding feeding) {
    feeding.channels_last = network != "mlp";
    return feeding;
  }

  Examples fed(const examples::Dataset& half) const {
    return {feeding_.input(half.images), half.labels};
  }

  std::shared_ptr<examples::Classifier> new_network(uint64_t drawn_from) const {
    torch::manual_seed(drawn_from);
    auto made = examples::make_network(options_.network_name(), shape_);
    feeding_.place(*made);
    return made;
  }

  lawn::Subnetwork choose_subnetwork() {
    if (options_.select == "all") return lawn::select_all_weights(*network_);
    network_->eval();  // the walk needs a graph, not new statistics in the batch norms
    return lawn::final_homogeneous_subnetwork(feeding_.logits(*network_, shape_.images), *network_);
  }

  /// What the method does between two tasks.
  void begin_task(int64_t number) {
    if (number == 0) return;
    const uint64_t drawn_from = stream_seed(seed_, number, Draw::kWeights);
    if (method_ == "fresh") start_anew_(*network_, *new_network(drawn_from));
    if (method_ == "shrink-and-perturb") {
      shrink_and_perturb_(*network_, *new_network(drawn_from), options_.shrink, options_.perturb);
    }
    if (method_ == "fresh" || options_.reset_state) lawn::reset_state(stepper_->optimizer());
  }

  Options options_;
  std::string method_;
  uint64_t seed_;
  examples::Feeding feeding_;
  std::shared_ptr<const Stream> stream_;
  examples::Dataset shape_;  ///< two images, with as many classes as the network has outputs
  std::shared_ptr<examples::Classifier> network_;
  lawn::Subnetwork measured_;
  StreamTask task_;
  std::unique_ptr<examples::Stepper> stepper_;
};
