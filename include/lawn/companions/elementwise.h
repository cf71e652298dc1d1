// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

namespace lawn::detail {

/// Whether the optimizer of these options is known to move each element by its own gradient alone.
/// Not so LARS and LAMB (norms of a layer), L-BFGS (inner products over everything) and, for all
/// that is known, an optimizer of the user's own.
inline bool elementwise(const torch::optim::OptimizerOptions& options) {
  namespace optim = torch::optim;
  return dynamic_cast<const optim::SGDOptions*>(&options) != nullptr ||
         dynamic_cast<const optim::AdamOptions*>(&options) != nullptr ||
         dynamic_cast<const optim::AdamWOptions*>(&options) != nullptr ||
         dynamic_cast<const optim::RMSpropOptions*>(&options) != nullptr ||
         dynamic_cast<const optim::AdagradOptions*>(&options) != nullptr;
}

}  // namespace lawn::detail
