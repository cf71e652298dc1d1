// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>

#include <lawn/finite_math.h>
#include <lawn/parameters/held_once.h>

/// Options of parameter groups and states of parameters, for lawn's own optimizers.
namespace lawn::detail::optim {

/// The options of `group`, as options of the optimizer `who`.
/// @throws c10::Error if they are another optimizer's
template <class Options>
const Options& group_options(const char* who, const torch::optim::OptimizerParamGroup& group) {
  const auto* options = dynamic_cast<const Options*>(&group.options());
  TORCH_CHECK(options != nullptr, who, ": expected each parameter group to have the options of ",
              who, ", got those of another optimizer");
  return *options;
}

/// Checks the options that `given` brings, if any.
template <class Options>
void check_group_options(const char* who, const torch::optim::OptimizerParamGroup& given) {
  if (given.has_options()) group_options<Options>(who, given).validate();
}

/// Gives `taken`, a group that LibTorch made out of `given`, the options that `given` brings.
/// LibTorch 2.15 can merge only options of its own optimizers' types, and replaces any others by
/// the optimizer's defaults.
inline void keep_group_options(const torch::optim::OptimizerParamGroup& given,
                               torch::optim::OptimizerParamGroup& taken) {
  if (given.has_options()) taken.set_options(given.options().clone());
}

/// Refuses a gradient that is not dense.
/// @param groups  "in a group with ...", if only gradients there have to be; begins with a space
inline void refuse_sparse_gradient(const char* who, const at::Tensor& parameter,
                                   const parameters::Position& place, const char* groups = "") {
  const at::Tensor& gradient = parameter.grad();
  TORCH_CHECK(!gradient.defined() || gradient.layout() == at::kStrided, who,
              ": expected dense gradients", groups, ", got a ", gradient.layout(),
              " one for parameter ", place.index, " of group ", place.group, ", of shape ",
              parameter.sizes(), "; give it to another optimizer, or make it dense");
}

/// Refuses a parameter whose shape differs from that of its state: the shape was changed after the
/// first step.
/// @param moment  a tensor of the state, in the shape that the parameter had; may be undefined
inline void refuse_other_shape(const char* who, const at::Tensor& moment,
                               const at::Tensor& parameter, const parameters::Position& place) {
  TORCH_CHECK(!moment.defined() || moment.sizes() == parameter.sizes(), who,
              ": expected parameter ", place.index, " of group ", place.group,
              " to keep the shape ", moment.sizes(), " of its state, got ", parameter.sizes(),
              ": make an optimizer of the new parameters; nothing was changed");
}

/// Whether `a` and `b` are both undefined, or equal in every element.
inline bool same_values(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() && b.defined() ? at::equal(a, b) : a.defined() == b.defined();
}

}  // namespace lawn::detail::optim
