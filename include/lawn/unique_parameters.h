// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>
#include <torch/nn/module.h>

namespace lawn {

namespace detail {

/// A tensor, and its name in messages.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

/// The parameters or buffers of a module, each once: a tensor that is registered under several
/// names comes under the first. Undefined ones are left out.
template <class Tensors>
std::vector<NamedTensor> each_once(const Tensors& tensors) {
  std::vector<NamedTensor> once;
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const auto& item : tensors) {
    if (!item.value().defined()) continue;
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) continue;
    once.push_back({item.key(), item.value()});
  }
  return once;
}

}  // namespace detail

/// The parameters of a module in its order, each tensor once: the list for an optimizer of a
/// network with tied weights.
///
///   lawn::FusedAdam optimizer(lawn::unique_parameters(*model), 1e-3);
///
/// `model->parameters()` of LibTorch's C++ side lists a tensor that is registered under two names
/// twice (Python's does not), and an optimizer would step it twice.
/// @param module  of any kind; undefined parameters are left out
/// @return aliases of the parameters, not copies
inline std::vector<at::Tensor> unique_parameters(const torch::nn::Module& module) {
  std::vector<at::Tensor> parameters;
  for (const auto& [name, tensor] : detail::each_once(module.named_parameters())) {
    parameters.push_back(tensor);
  }
  return parameters;
}

}  // namespace lawn
