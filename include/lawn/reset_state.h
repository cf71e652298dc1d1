// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/optimizer.h>

#include <lawn/capture/state_in_place.h>
#include <lawn/decorator/base_optimizer.h>

namespace lawn {

/// Makes `optimizer` forget the moments and step counts of `parameters`, so that its next step on
/// them is the first step of a new optimizer, bit for bit: at the beginning of another task, say.
///   m <- 0,  v <- 0,  t <- 0;  Adagrad: s <- initial_accumulator_value
/// Weights, gradients, groups and options stay as they are.
///
/// What a decorator keeps is not the optimizer's state, and stays too: LAWN's phase, radii and
/// count of steps, masks, the variables of ADMM. Call this function between steps, not in a
/// closure, and on every rank.
///
/// After `make_capturable()` the state is reset in place, so that a graph which was captured before
/// goes on from it. The call then writes on the current stream of each device, which must be the
/// stream of the replay. Parameters of one group that were always stepped together share a step
/// count there, and must be reset together.
///
/// L-BFGS has one state for all its parameters. For your own optimizer, the entries of `state()`
/// under these parameters are erased.
///
/// @param optimizer   decorated or not; its base optimizer's state of the parameters is forgotten
/// @param parameters  each held by `optimizer`; a parameter that was not stepped yet has no state
///                    to forget
/// @throws c10::Error  for a parameter that the optimizer does not hold, with its place in the
///                     list; for some of L-BFGS's parameters without the others; after
///                     `make_capturable()` for parameters without others that share their step
///                     count, for `SGDOptions::dampening`, from which only the first step is
///                     exempt, and within a capture. Nothing is changed then
/// @note   does not wait for the device
inline void reset_state(torch::optim::Optimizer& optimizer, c10::ArrayRef<at::Tensor> parameters) {
  constexpr const char* kWho = "lawn::reset_state";
  if (parameters.empty()) return;
  detail::capture::Chosen chosen;
  for (const at::Tensor& parameter : parameters) chosen.insert(parameter.unsafeGetTensorImpl());
  detail::capture::Chosen held;
  bool one_state = false;
  for (const auto& group : optimizer.param_groups()) {
    for (const at::Tensor& parameter : group.params()) held.insert(parameter.unsafeGetTensorImpl());
    one_state =
        one_state || (group.has_options() &&
                      dynamic_cast<const torch::optim::LBFGSOptions*>(&group.options()) != nullptr);
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& parameter = parameters[i];
    TORCH_CHECK(parameter.defined(), kWho,
                ": expected parameters that the optimizer holds, got an ",
                "undefined tensor in place ", i, " of the list; nothing was changed");
    TORCH_CHECK(held.count(parameter.unsafeGetTensorImpl()) != 0, kWho,
                ": expected parameters that the optimizer holds, got a tensor of shape ",
                parameter.sizes(), " in place ", i,
                " of the list that it does not hold; leave it out. Nothing was changed");
  }
  TORCH_CHECK(!one_state || chosen.size() == held.size(), kWho, ": expected all ", held.size(),
              " parameters of L-BFGS, which keeps one state for all ", "of them, got ",
              chosen.size(), "; nothing was changed");
  auto* const in_place = dynamic_cast<detail::capture::StateInPlace*>(&optimizer);
  if (in_place != nullptr && in_place->resets_in_place()) return in_place->reset_in_place(chosen);
  detail::decorator::reset_state(optimizer, parameters);
}

/// The same for all parameters of `optimizer`.
inline void reset_state(torch::optim::Optimizer& optimizer) {
  std::vector<at::Tensor> all;
  for (const auto& group : optimizer.param_groups()) {
    all.insert(all.end(), group.params().begin(), group.params().end());
  }
  reset_state(optimizer, all);
}

}  // namespace lawn
