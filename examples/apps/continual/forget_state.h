// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/decorator/base_optimizer.h>
#include <torch/optim/optimizer.h>

/// Has an optimizer begin anew on all its parameters, between two steps: moments and their step
/// counts are gone. LAWN's phase and radii stay.
inline void forget_state(torch::optim::Optimizer& optimizer) {
  for (const auto& group : optimizer.param_groups()) {
    lawn::detail::decorator::reset_state(optimizer, group.params());
  }
}
