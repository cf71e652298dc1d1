// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/checkpoint.h>
#include <lawn/lawn.h>
#include <lawn/schedule/warmup_decay.h>
#include <torch/optim/optimizer.h>

#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "examples/apps/support/betas.h"

namespace examples {

/// An optimizer with its learning-rate schedule, whatever their types.
class Stepper {
 public:
  virtual ~Stepper() = default;

  virtual torch::optim::Optimizer& optimizer() = 0;
  /// The learning rate of the next step; call it once after each optimizer().step().
  virtual void advance_schedule() = 0;
  /// Whether LAWN holds the norms by now; always false without LAWN.
  virtual bool constrained() const = 0;
  /// LAWN's report on each layer; nothing without LAWN.
  virtual void print_report(std::ostream& out) const = 0;
  /// Adds optimizer and schedule to a checkpoint.
  virtual void add_to(lawn::Checkpoint& checkpoint) = 0;

  double learning_rate() { return optimizer().param_groups().front().options().get_lr(); }
};

template <class Optimizer>
struct IsLAWN : std::false_type {};
template <class Base>
struct IsLAWN<lawn::LAWN<Base>> : std::true_type {};

template <class Optimizer, class = void>
struct HasPhase : std::false_type {};
template <class Optimizer>
struct HasPhase<Optimizer, std::void_t<decltype(std::declval<Optimizer>().phase())>>
    : std::true_type {};

template <class Optimizer, class Schedule>
class TypedStepper : public Stepper {
 public:
  /// @param optimizer_arguments  what the optimizer is constructed of, in place
  template <class ScheduleOptions, class... OptimizerArguments>
  explicit TypedStepper(const ScheduleOptions& schedule,
                        OptimizerArguments&&... optimizer_arguments)
      : optimizer_(std::forward<OptimizerArguments>(optimizer_arguments)...),
        schedule_(optimizer_, schedule) {}

  torch::optim::Optimizer& optimizer() override { return optimizer_; }
  void advance_schedule() override { schedule_.step(); }

  bool constrained() const override {
    if constexpr (HasPhase<Optimizer>::value)
      return optimizer_.phase() == lawn::Phase::kConstrained;
    return false;
  }

  void print_report(std::ostream& out) const override {
    if constexpr (IsLAWN<Optimizer>::value) out << optimizer_.report();
  }

  void add_to(lawn::Checkpoint& checkpoint) override {
    checkpoint.add("optimizer", optimizer_).add("schedule", schedule_);
  }

 private:
  Optimizer optimizer_;
  Schedule schedule_;
};

/// LibTorch's, and lawn's.
inline const std::vector<std::string> kOptimizers = {
    "sgd", "adam", "adamw", "fused-sgd", "fused-adam", "fused-adamw", "lamb", "lars"};

/// Parts of LAWN that can be taken away, to see what the others do. The free phase is taken away by
/// free_steps 0.
inline const std::vector<std::string> kAblations = {"none", "projection", "rescaling"};

/// What the optimizer of a run is.
struct StepperOptions {
  std::string optimizer = "adam";  ///< one of kOptimizers; sgd and lars have momentum 0.9
  double learning_rate = 1e-3;
  double weight_decay = 0;
  bool decay_vectors = true;   ///< whether biases and scales of normalisations decay, too
  std::optional<Betas> betas;  ///< of kAdaptiveOptimizers; nothing leaves them as they are
  bool lawn = false;
  std::string ablate = "none";     ///< one of kAblations; what is missing of LAWN
  bool two_part_schedule = false;  ///< LAWN's schedule without LAWN, as a control
  int64_t free_steps = 0;          ///< of LAWN, and the first part of its schedule
  double radius_scale = 1;         ///< of LAWN
  int64_t warmup_steps =
      0;  ///< of linear warm-up: at the start, and with LAWN after the switch too
  int64_t total_steps = 0;
  double final_factor = 0;  ///< share of the learning rate that is left at the end

  /// Of LAWN.
  lawn::LAWNOptions lawn_options() const {
    return lawn::LAWNOptions().free_steps(free_steps).radius_scale(radius_scale);
  }

  /// Without LAWN.
  lawn::WarmupDecayOptions schedule() const {
    return lawn::WarmupDecayOptions()
        .warmup_steps(warmup_steps)
        .total_steps(total_steps)
        .decay(lawn::Decay::kCosine)
        .final_factor(final_factor);
  }
};

/// The options of one of kAdaptiveOptimizers, with a learning rate, weight decay and two betas.
template <class Options>
Options adaptive_options(const StepperOptions& options) {
  Options chosen(options.learning_rate);
  chosen.weight_decay(options.weight_decay);
  if (options.betas) chosen.betas(*options.betas);
  return chosen;
}

/// The optimizer of a run and its schedule: warm-up and cosine decay without LAWN; with it,
/// or with its two-part schedule, warm-up and hold up to the switch, then the same once more.
/// @throws c10::Error for an unknown name, betas of an optimizer without, and what the optimizer,
///         LAWN and the schedule refuse
std::unique_ptr<Stepper> make_stepper(const std::vector<at::Tensor>& parameters,
                                      const lawn::Subnetwork& constrained,
                                      const StepperOptions& options);

}  // namespace examples
