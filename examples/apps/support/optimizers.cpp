// SPDX-License-Identifier: Apache-2.0
//
// Compiled once for all programs: it takes every optimizer, plain, in LAWN and in what is left of LAWN, with each schedule.
#include "examples/apps/support/optimizers.h"

#include <lawn/lawn.h>
#include <lawn/optim/lamb.h>
#include <lawn/optim/lars.h>
#include <lawn/schedule/lawn_schedule.h>
#include <lawn/schedule/warmup_decay.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/ablation.h"

namespace examples {

namespace {

/// The parameters as groups of an optimizer: one, or two if biases and scales do not decay.
template <class Options>
std::vector<torch::optim::OptimizerParamGroup> parameter_groups(
    const std::vector<at::Tensor>& parameters, const Options& options, bool decay_vectors) {
  if (decay_vectors) return {torch::optim::OptimizerParamGroup(parameters)};
  std::vector<at::Tensor> vectors;
  std::vector<at::Tensor> others;
  for (const at::Tensor& parameter : parameters) {
    (parameter.dim() < 2 ? vectors : others).push_back(parameter);
  }
  Options spared = options;
  spared.weight_decay(0);
  return {torch::optim::OptimizerParamGroup(others),
          torch::optim::OptimizerParamGroup(vectors, std::make_unique<Options>(spared))};
}

template <class Base>
std::unique_ptr<Stepper> make_typed_stepper(Base&& base, const lawn::Subnetwork& constrained,
                                            const StepperOptions& options) {
  if (!options.lawn && !options.two_part_schedule) {
    return std::make_unique<TypedStepper<Base, lawn::WarmupDecay>>(options.schedule(),
                                                                   std::move(base));
  }
  const auto two_part = lawn::LAWNScheduleOptions()
                            .free_steps(options.free_steps)
                            .total_steps(options.total_steps)
                            .warmup_steps(std::min(options.warmup_steps, options.free_steps))
                            .second_warmup_steps(options.warmup_steps)
                            .decay(lawn::Decay::kCosine)
                            .final_factor(options.final_factor);
  if (!options.lawn) {
    return std::make_unique<TypedStepper<Base, lawn::LAWNSchedule>>(two_part, std::move(base));
  }
  if (options.ablate != "none") {
    TORCH_CHECK(options.ablate == "projection" || options.ablate == "rescaling",
                "unknown part of LAWN '", options.ablate, "'; expected one of ", kAblations);
    TORCH_CHECK(options.weight_decay == 0, "LAWN without its ", options.ablate,
                ": expected no weight decay, got ", options.weight_decay,
                ": its effect could not be told from that of the missing part");
    const Ablation parts = {options.ablate != "projection", options.ablate != "rescaling"};
    return std::make_unique<TypedStepper<AblatedLAWN<Base>, lawn::LAWNSchedule>>(
        two_part, std::move(base), constrained, options.free_steps, parts);
  }
  return std::make_unique<TypedStepper<lawn::LAWN<Base>, lawn::LAWNSchedule>>(
      two_part, std::move(base), constrained, options.lawn_options());
}

}  // namespace

std::unique_ptr<Stepper> make_stepper(const std::vector<at::Tensor>& parameters,
                                      const lawn::Subnetwork& constrained,
                                      const StepperOptions& options) {
  const std::string& name = options.optimizer;
  check_betas(options.betas, name);
  const auto make = [&](auto&& base) {
    return make_typed_stepper(std::forward<decltype(base)>(base), constrained, options);
  };
  const auto groups = [&](const auto& chosen) {
    return parameter_groups(parameters, chosen, options.decay_vectors);
  };
  const auto sgd = torch::optim::SGDOptions(options.learning_rate)
                       .momentum(0.9)
                       .weight_decay(options.weight_decay);
  const auto adam = adaptive_options<torch::optim::AdamOptions>(options);
  const auto adamw = adaptive_options<torch::optim::AdamWOptions>(options);
  const auto lamb = adaptive_options<lawn::LAMBOptions>(options);
  const auto lars =
      lawn::LARSOptions(options.learning_rate).momentum(0.9).weight_decay(options.weight_decay);
  if (name == "sgd") return make(torch::optim::SGD(groups(sgd), sgd));
  if (name == "adam") return make(torch::optim::Adam(groups(adam), adam));
  if (name == "adamw") return make(torch::optim::AdamW(groups(adamw), adamw));
  if (name == "fused-sgd") return make(lawn::FusedSGD(groups(sgd), sgd));
  if (name == "fused-adam") return make(lawn::FusedAdam(groups(adam), adam));
  if (name == "fused-adamw") return make(lawn::FusedAdamW(groups(adamw), adamw));
  if (name == "lamb") return make(lawn::LAMB(groups(lamb), lamb));
  if (name == "lars") return make(lawn::LARS(groups(lars), lars));
  TORCH_CHECK(false, "unknown optimizer '", name, "'; expected one of ", kOptimizers);
  return nullptr;  // not reached; gcc does not see that without optimisation
}

}  // namespace examples
