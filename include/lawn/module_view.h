// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/nn/module.h>

namespace lawn {

namespace detail {

/// A tensor, and its name in messages.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

/// `tensors` with each tensor once, under its first name.
inline std::vector<NamedTensor> each_once(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> once;
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const NamedTensor& item : tensors) {
    if (seen.insert(item.tensor.unsafeGetTensorImpl()).second) once.push_back(item);
  }
  return once;
}

}  // namespace detail

/// What lawn asks of a network: its parameters and buffers by name. A `torch::nn::Module` and a
/// `torch::jit::Module` (TorchScript) convert to it, so that a function with such an argument takes
/// both:
///
///   auto sub = lawn::select_all_weights(*model);                        // torch::nn
///   sub = lawn::select_all_weights(torch::jit::load("model.pt"));       // TorchScript
///
/// It refers to the module, as an argument does, and is not to be kept.
class ModuleView {
 public:
  /// @param module  of any kind; must outlive the view
  ModuleView(const torch::nn::Module& module) noexcept  // NOLINT(google-explicit-constructor)
      : nn_(&module) {}
  /// @param module  loaded, or made by `define`; must outlive the view
  ModuleView(const torch::jit::Module& module) noexcept  // NOLINT(google-explicit-constructor)
      : script_(&module) {}

  /// The module, if it is one of torch::nn; otherwise null.
  const torch::nn::Module* nn() const noexcept { return nn_; }
  /// The module, if it is TorchScript; otherwise null.
  const torch::jit::Module* script() const noexcept { return script_; }

  /// The parameters in module order, each under every dotted name that it has (aliases, not
  /// copies); undefined ones are left out.
  std::vector<detail::NamedTensor> parameters() const {
    return nn_ != nullptr ? of_nn(nn_->named_parameters()) : of_script(script_->named_parameters());
  }

  /// The buffers, likewise.
  std::vector<detail::NamedTensor> buffers() const {
    return nn_ != nullptr ? of_nn(nn_->named_buffers()) : of_script(script_->named_buffers());
  }

  /// The parameters, and then the buffers.
  std::vector<detail::NamedTensor> tensors() const {
    std::vector<detail::NamedTensor> all = parameters();
    const std::vector<detail::NamedTensor> last = buffers();
    all.insert(all.end(), last.begin(), last.end());
    return all;
  }

 private:
  template <class Tensors>
  static std::vector<detail::NamedTensor> of_nn(const Tensors& tensors) {
    std::vector<detail::NamedTensor> named;
    for (const auto& item : tensors) {
      if (item.value().defined()) named.push_back({item.key(), item.value()});
    }
    return named;
  }

  template <class Tensors>
  static std::vector<detail::NamedTensor> of_script(const Tensors& tensors) {
    std::vector<detail::NamedTensor> named;
    for (const auto& item : tensors) {
      if (item.value.defined()) named.push_back({item.name, item.value});
    }
    return named;
  }

  const torch::nn::Module* nn_ = nullptr;
  const torch::jit::Module* script_ = nullptr;
};

}  // namespace lawn
