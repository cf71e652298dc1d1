// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include <lawn/module_view.h>

namespace lawn {

/// The parameters of a module in its order, each tensor once: the list for an optimizer of a
/// network with tied weights, or of a TorchScript module.
///
///   lawn::FusedAdam optimizer(lawn::unique_parameters(*model), 1e-3);
///
/// `model->parameters()` of LibTorch's C++ side lists a tensor that is registered under two names
/// twice (Python's does not), and an optimizer would step it twice.
/// @param module  a `torch::nn::Module` or a `torch::jit::Module`; undefined ones are left out
/// @return aliases of the parameters, not copies
inline std::vector<at::Tensor> unique_parameters(const ModuleView& module) {
  std::vector<at::Tensor> parameters;
  for (const auto& [name, tensor] : detail::each_once(module.parameters())) {
    parameters.push_back(tensor);
  }
  return parameters;
}

}  // namespace lawn
