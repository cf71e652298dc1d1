// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <lawn/module_view.h>
#include <lawn/subnetwork/module_parameters.h>
#include <lawn/subnetwork/print.h>
#include <lawn/subnetwork/subnetwork.h>

// Selection by hand. It reads no graph, so the homogeneity is unknown, and it also selects a
// parameter that is frozen now.

namespace lawn {

/// Selects the parameters for which a predicate holds.
/// @param module     of torch::nn or TorchScript; the predicate gets its parameters in module
///                   order, each once, under its first name
/// @param predicate  (dotted name, parameter) -> whether to select it
/// @return every parameter of the module; those selected are inside, with the role of a weight
/// @throws c10::Error if no parameter is selected, or one that is not of a real floating-point type
/// @note   does not wait for the device
inline Subnetwork select_if(
    const ModuleView& module,
    const std::function<bool(const std::string&, const at::Tensor&)>& predicate) {
  std::vector<SubnetworkParameter> parameters = detail::subnetwork::module_parameters(module);
  TORCH_CHECK(!parameters.empty(),
              "lawn::select_if: expected a module with parameters, got one without any; register "
              "the parameters or sub-modules first");
  for (SubnetworkParameter& parameter : parameters) {
    parameter.inside = predicate(parameter.name, parameter.tensor);
    parameter.reason = parameter.inside ? "" : "not selected";
    // A bias that is selected by hand is constrained like a weight.
    if (parameter.inside && parameter.role == Role::kBias) parameter.role = Role::kWeight;
    parameter.added = parameter.role == Role::kBias;
  }
  return Subnetwork(std::move(parameters));
}

/// Selects every parameter of two or more dimensions: the matrices, kernels and embeddings, but
/// neither the biases nor the scales of normalisations.
/// @param module  the network; parameters that are not of a real floating-point type stay outside
/// @throws c10::Error if there is none
/// @note   does not wait for the device
inline Subnetwork select_all_weights(const ModuleView& module) {
  return select_if(module, [](const std::string&, const at::Tensor& tensor) {
    return tensor.dim() >= 2 && at::isFloatingType(tensor.scalar_type());
  });
}

/// Selects tensors, without names.
/// @param tensors  parameters of a real floating-point type, each once; called "parameter 0", ...
/// @throws c10::Error if the list is empty, or a tensor is undefined, repeated or of another type
/// @note   does not wait for the device; the result aliases the tensors
inline Subnetwork select(const std::vector<at::Tensor>& tensors) {
  TORCH_CHECK(!tensors.empty(),
              "lawn::select: expected at least one tensor, got an empty list; select a weight");
  std::vector<SubnetworkParameter> parameters;
  for (size_t i = 0; i < tensors.size(); ++i) {
    SubnetworkParameter parameter;
    parameter.name = "parameter " + std::to_string(i);
    parameter.tensor = tensors[i];
    parameter.inside = true;
    parameters.push_back(std::move(parameter));
  }
  return Subnetwork(std::move(parameters));
}

/// Selects tensors that are parameters of a module, under their names there.
/// @param module   the network
/// @param tensors  some of its parameters, each once, in any order
/// @return every parameter of the module, in module order
/// @throws c10::Error if a tensor is not a parameter of the module, comes twice, is not of a real
///         floating-point type, or if the list is empty
/// @note   does not wait for the device
inline Subnetwork select(const ModuleView& module, const std::vector<at::Tensor>& tensors) {
  std::unordered_set<const c10::TensorImpl*> known;
  for (const SubnetworkParameter& parameter : detail::subnetwork::module_parameters(module)) {
    known.insert(parameter.tensor.unsafeGetTensorImpl());
  }
  std::unordered_set<const c10::TensorImpl*> wanted;
  for (size_t i = 0; i < tensors.size(); ++i) {
    TORCH_CHECK(known.count(tensors[i].unsafeGetTensorImpl()) == 1,
                "lawn::select: expected parameters of the module, got tensor ", i,
                ", which is none of them; pass module.parameters() themselves, not copies");
    TORCH_CHECK(wanted.insert(tensors[i].unsafeGetTensorImpl()).second,
                "lawn::select: expected every tensor once, got tensor ", i,
                " a second time; select it once");
  }
  return select_if(module, [&wanted](const std::string&, const at::Tensor& tensor) {
    return wanted.count(tensor.unsafeGetTensorImpl()) == 1;
  });
}

}  // namespace lawn
