// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>

#include <lawn/subnetwork/subnetwork.h>
#include <lawn/unique_parameters.h>

namespace lawn::detail::subnetwork {

inline bool is_transposed_convolution(const torch::nn::Module& module) {
  return dynamic_cast<const torch::nn::ConvTranspose1dImpl*>(&module) != nullptr ||
         dynamic_cast<const torch::nn::ConvTranspose2dImpl*>(&module) != nullptr ||
         dynamic_cast<const torch::nn::ConvTranspose3dImpl*>(&module) != nullptr;
}

inline bool is_embedding(const torch::nn::Module& module) {
  return dynamic_cast<const torch::nn::EmbeddingImpl*>(&module) != nullptr ||
         dynamic_cast<const torch::nn::EmbeddingBagImpl*>(&module) != nullptr;
}

/// Whether a dotted name ends in a component such as "bias" or "bias_ih_l0".
inline bool is_named_bias(const std::string& name) {
  return name.compare(name.rfind('.') + 1, 4, "bias") == 0;
}

/// Lists the parameters of a module in module order, with the role and the unit dimension that
/// their owner and their name suggest; reading the graph may correct them. LibTorch lists a tensor
/// that is registered twice under both names; here it comes once, under the first.
inline std::vector<SubnetworkParameter> module_parameters(const torch::nn::Module& module) {
  std::vector<SubnetworkParameter> parameters;
  std::unordered_map<const c10::TensorImpl*, size_t> index;
  for (auto& [name, tensor] : each_once(module.named_parameters())) {
    index.emplace(tensor.unsafeGetTensorImpl(), parameters.size());
    SubnetworkParameter parameter;
    if (is_named_bias(name)) parameter.role = Role::kBias;
    parameter.name = name;
    parameter.tensor = tensor;
    parameters.push_back(std::move(parameter));
  }
  module.apply([&](const torch::nn::Module& owner) {
    const bool transposed = is_transposed_convolution(owner);
    if (!transposed && !is_embedding(owner)) return;
    for (const auto& item : owner.named_parameters(/*recurse=*/false)) {
      SubnetworkParameter& parameter = parameters[index.at(item.value().unsafeGetTensorImpl())];
      if (!transposed) parameter.role = Role::kEmbedding;
      if (transposed && item.value().dim() > 1) parameter.unit_dim = 1;
    }
  });
  return parameters;
}

}  // namespace lawn::detail::subnetwork
