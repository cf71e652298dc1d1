// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>
#include <lawn/lawn.h>
#include <lawn/optim/fused_adam.h>
#include <lawn/optim/fused_adamw.h>
#include <lawn/optim/fused_sgd.h>
#include <lawn/schedule/warmup_decay.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "examples/apps/continual/l2_init.h"
#include "examples/apps/support/optimizers.h"

/// The methods: what is to keep a network learning, or nothing.
///   adam, adamw, sgd      the optimizer alone; sgd has momentum 0.9
///   l2-init               adam, pulled towards the initial weights
///   shrink-and-perturb    adam; each task begins with weights moved part of the way to new ones
///   fresh                 adam; each task begins with new weights and no state, as a
///                         network without a past does
///   lawn, lawn+l2-init    adam with LAWN around it; the second is also pulled as l2-init is
inline const std::vector<std::string> kMethods = {
    "adam", "adamw", "sgd", "l2-init", "shrink-and-perturb", "fresh", "lawn", "lawn+l2-init"};

/// What the optimizer of a method is made of.
struct MethodSettings {
  double learning_rate = 1e-3;
  std::tuple<double, double> betas = {0.9, 0.999};
  double weight_decay = 0;
  double strength = 1e-3;  ///< of l2-init
  lawn::LAWNOptions lawn;
  int64_t total_steps = 1;
};

/// The optimizer of a method, at a constant rate.
/// @param constrained  what LAWN constrains
/// @throws c10::Error for an unknown name, and for what the optimizer and LAWN refuse
inline std::unique_ptr<examples::Stepper> make_method(const std::string& name,
                                                      const std::vector<at::Tensor>& parameters,
                                                      const lawn::Subnetwork& constrained,
                                                      const MethodSettings& settings) {
  const auto constant =
      lawn::WarmupDecayOptions().total_steps(settings.total_steps).decay(lawn::Decay::kNone);
  const auto step_with = [&](auto&& optimizer) -> std::unique_ptr<examples::Stepper> {
    using Optimizer = std::decay_t<decltype(optimizer)>;
    return std::make_unique<examples::TypedStepper<Optimizer, lawn::WarmupDecay>>(
        constant, std::forward<decltype(optimizer)>(optimizer));
  };
  const double rate = settings.learning_rate;
  if (name == "sgd") {
    return step_with(lawn::FusedSGD(
        parameters,
        torch::optim::SGDOptions(rate).momentum(0.9).weight_decay(settings.weight_decay)));
  }
  if (name == "adamw") {
    return step_with(lawn::FusedAdamW(parameters, torch::optim::AdamWOptions(rate)
                                                      .betas(settings.betas)
                                                      .weight_decay(settings.weight_decay)));
  }
  lawn::FusedAdam adam(
      parameters,
      torch::optim::AdamOptions(rate).betas(settings.betas).weight_decay(settings.weight_decay));
  if (name == "adam" || name == "shrink-and-perturb" || name == "fresh") {
    return step_with(std::move(adam));
  }
  if (name == "l2-init") return step_with(L2Init(std::move(adam), parameters, settings.strength));
  lawn::LAWN lawn_adam(std::move(adam), constrained, settings.lawn);
  if (name == "lawn") return step_with(std::move(lawn_adam));
  TORCH_CHECK(name == "lawn+l2-init", "unknown method '", name, "'; expected one of ", kMethods);
  return step_with(L2Init(std::move(lawn_adam), parameters, settings.strength));
}
