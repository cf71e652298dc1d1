// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>

#include <lawn/optim/group_options.h>
#include <lawn/parameters/tensor_lists.h>

/// The lists that LAMB and LARS step: the parameters of each group, in lists of one device and one
/// dtype.
namespace lawn::detail::optim {

/// The parameters of one group that have a gradient, of one device and dtype.
template <class Options>
struct ParameterList {
  const Options* options = nullptr;
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> gradients;
};

/// @throws c10::Error for a sparse gradient, for a parameter that is not of floating point, and for
///         a group with another optimizer's options
template <class Options>
void check_gradients(const char* who,
                     const std::vector<torch::optim::OptimizerParamGroup>& groups) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    group_options<Options>(who, groups[g]);
    for (std::size_t p = 0; p < groups[g].params().size(); ++p) {
      const at::Tensor& weight = groups[g].params()[p];
      const at::Tensor& gradient = weight.grad();
      if (!gradient.defined()) continue;
      TORCH_CHECK(weight.is_floating_point(), who, ": expected parameters of floating point, got ",
                  weight.scalar_type(), " for parameter ", p, " of group ", g);
      refuse_sparse_gradient(who, weight, {g, p});
    }
  }
}

/// Puts all parameters that have a gradient into lists.
/// @param groups  groups that `check_gradients` accepts
template <class Options>
std::vector<ParameterList<Options>> parameter_lists(
    const char* who, std::vector<torch::optim::OptimizerParamGroup>& groups) {
  std::vector<ParameterList<Options>> all;
  for (const auto& group : groups) {
    std::vector<at::Tensor> weights;
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& weight : group.params()) {
      const at::Tensor& gradient = weight.grad();
      if (!gradient.defined()) continue;
      weights.push_back(weight);
      gradients.push_back(gradient);
    }
    const auto& options = group_options<Options>(who, group);
    for (const auto& list : parameters::by_device_and_dtype(weights)) {
      all.push_back({&options, parameters::pick(weights, list), parameters::pick(gradients, list)});
    }
  }
  return all;
}

}  // namespace lawn::detail::optim
