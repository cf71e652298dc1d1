// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <torch/nn/module.h>

#include <lawn/subnetwork/subnetwork.h>

namespace lawn::detail {

/// Lists the parameters of a module in module order. LibTorch lists a tensor that is registered
/// twice under both names; here it comes once, under the first.
inline std::vector<SubnetworkParameter> module_parameters(const torch::nn::Module& module) {
  std::vector<SubnetworkParameter> parameters;
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const auto& item : module.named_parameters()) {
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) continue;
    SubnetworkParameter parameter;
    parameter.name = item.key();
    parameter.tensor = item.value();
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

}  // namespace lawn::detail
