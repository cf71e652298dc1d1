// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include <lawn/finite_math.h>

/// What decorators ask of optimizers of lawn's own, without their headers.
namespace lawn::detail::optim {

/// Of the options of a group.
struct OptionsForDecorators {
  virtual ~OptionsForDecorators() = default;
  /// The lambda of `g + lambda w` that is computed before the moments; 0 where decay is decoupled.
  virtual double coupled_weight_decay() const = 0;
};

/// Of a parameter's state.
struct StateForDecorators {
  virtual ~StateForDecorators() = default;
  /// The tensors that are running sums or means of gradients.
  virtual std::vector<at::Tensor> first_moments() const = 0;
};

}  // namespace lawn::detail::optim
