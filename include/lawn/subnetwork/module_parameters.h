// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>

#include <lawn/module_view.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn::detail::subnetwork {

/// Kinds of modules whose parameters differ from others in role or unit dimension.
enum class Owner { kOther, kEmbedding, kTransposedConvolution };

inline Owner owner_kind(const torch::nn::Module& module) {
  if (dynamic_cast<const torch::nn::EmbeddingImpl*>(&module) != nullptr ||
      dynamic_cast<const torch::nn::EmbeddingBagImpl*>(&module) != nullptr) {
    return Owner::kEmbedding;
  }
  if (dynamic_cast<const torch::nn::ConvTranspose1dImpl*>(&module) != nullptr ||
      dynamic_cast<const torch::nn::ConvTranspose2dImpl*>(&module) != nullptr ||
      dynamic_cast<const torch::nn::ConvTranspose3dImpl*>(&module) != nullptr) {
    return Owner::kTransposedConvolution;
  }
  return Owner::kOther;
}

/// TorchScript keeps the name of the class in Python, for example
/// "__torch__.torch.nn.modules.conv.___torch_mangle_2.ConvTranspose2d".
inline Owner owner_kind(const torch::jit::Module& module) {
  const auto& name = module.type()->name();
  if (!name || name->prefix().rfind("__torch__.torch.nn.modules.", 0) != 0) return Owner::kOther;
  if (name->name() == "Embedding" || name->name() == "EmbeddingBag") return Owner::kEmbedding;
  return name->name().rfind("ConvTranspose", 0) == 0 ? Owner::kTransposedConvolution
                                                     : Owner::kOther;
}

/// Whether "bias" is one of the words of a name's last component: "bias", "bias_ih_l0",
/// "in_proj_bias", but not "unbiased".
inline bool is_named_bias(const std::string& name) {
  std::string_view rest = std::string_view(name).substr(name.rfind('.') + 1);
  while (true) {
    const size_t end = rest.find('_');
    if (rest.substr(0, end) == "bias") return true;
    if (end == std::string_view::npos) return false;
    rest.remove_prefix(end + 1);
  }
}

/// Lists the parameters of a module in module order, with the role and the unit dimension that
/// their owner and their name suggest; reading the graph may correct them. LibTorch lists a tensor
/// that is registered twice under both names; here it comes once, under the first.
inline std::vector<SubnetworkParameter> module_parameters(const ModuleView& module) {
  std::vector<SubnetworkParameter> parameters;
  std::unordered_map<const c10::TensorImpl*, size_t> index;
  for (auto& [name, tensor] : each_once(module.parameters())) {
    index.emplace(tensor.unsafeGetTensorImpl(), parameters.size());
    SubnetworkParameter parameter;
    if (is_named_bias(name)) parameter.role = Role::kBias;
    parameter.name = name;
    parameter.tensor = tensor;
    parameters.push_back(std::move(parameter));
  }
  const auto mark = [&](Owner owner, const at::Tensor& tensor) {
    if (owner == Owner::kOther) return;
    SubnetworkParameter& parameter = parameters[index.at(tensor.unsafeGetTensorImpl())];
    if (owner == Owner::kEmbedding) parameter.role = Role::kEmbedding;
    if (owner == Owner::kTransposedConvolution && tensor.dim() > 1) parameter.unit_dim = 1;
  };
  const auto mark_all = [&mark](const auto& owner) {
    const Owner kind = owner_kind(owner);
    for (const at::Tensor& tensor : owner.parameters(/*recurse=*/false)) mark(kind, tensor);
  };
  if (module.nn() != nullptr) {
    module.nn()->apply([&](const torch::nn::Module& owner) { mark_all(owner); });
  } else {
    for (const torch::jit::Module& owner : module.script()->modules()) mark_all(owner);
  }
  return parameters;
}

}  // namespace lawn::detail::subnetwork
