// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>
#include <lawn/schedule/warmup_decay.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/optimizers.h"

namespace examples {

/// What the companions' decorators are shown around.
inline const std::vector<std::string> kDecoratedOptimizers = {"sgd", "adam", "adamw"};

/// The optimizer of a run with one of lawn's decorators around it, under warm-up and cosine decay.
/// @tparam Decorator  such as lawn::Centered
/// @param arguments   what the decorator is constructed of, behind the optimizer
/// @throws c10::Error for an unknown name, betas of sgd, and what the decorator and the schedule
///         refuse
template <template <class> class Decorator, class... Arguments>
std::unique_ptr<Stepper> make_decorated_stepper(const std::vector<at::Tensor>& parameters,
                                                const StepperOptions& options,
                                                const Arguments&... arguments) {
  const auto around = [&](auto base) -> std::unique_ptr<Stepper> {
    using Decorated = Decorator<decltype(base)>;
    return std::make_unique<TypedStepper<Decorated, lawn::WarmupDecay>>(
        options.schedule(), std::move(base), arguments...);
  };
  check_betas(options.betas, options.optimizer);
  if (options.optimizer == "sgd") {
    return around(torch::optim::SGD(parameters, torch::optim::SGDOptions(options.learning_rate)
                                                    .momentum(0.9)
                                                    .weight_decay(options.weight_decay)));
  }
  if (options.optimizer == "adam") {
    return around(
        torch::optim::Adam(parameters, adaptive_options<torch::optim::AdamOptions>(options)));
  }
  TORCH_CHECK(options.optimizer == "adamw", "unknown optimizer '", options.optimizer,
              "'; expected one of ", kDecoratedOptimizers);
  return around(
      torch::optim::AdamW(parameters, adaptive_options<torch::optim::AdamWOptions>(options)));
}

}  // namespace examples
