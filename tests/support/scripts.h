// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <c10/util/tempfile.h>
#include <torch/script.h>
#include <torch/torch.h>

/// TorchScript without Python: modules with the parameters of a torch::nn module, and a `forward`
/// from its source.
namespace lawn::testing {

/// The name that the class of a module of torch::nn has in TorchScript.
inline std::string script_class(const torch::nn::Module& module) {
  const auto is = [&module](const auto* type) {
    return dynamic_cast<decltype(type)>(&module) != nullptr;
  };
  using namespace torch::nn;
  const std::string package = "__torch__.torch.nn.modules.";
  if (is(static_cast<const EmbeddingImpl*>(nullptr))) return package + "sparse.Embedding";
  if (is(static_cast<const ConvTranspose2dImpl*>(nullptr))) return package + "conv.ConvTranspose2d";
  return "__torch__.Part";
}

/// `module` with its parameters and buffers (copies) and sub-modules under the same names.
inline torch::jit::Module script_parts(const torch::nn::Module& module) {
  torch::jit::Module script(script_class(module));
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    const auto copy = item.value().detach().clone();
    script.register_parameter(item.key(), copy.set_requires_grad(item.value().requires_grad()),
                              /*is_buffer=*/false);
  }
  for (const auto& item : module.named_buffers(/*recurse=*/false)) {
    script.register_buffer(item.key(), item.value().clone());
  }
  for (const auto& child : module.named_children()) {
    script.register_module(child.key(), script_parts(*child.value()));
  }
  return script;
}

/// `module` through a file, as a program gets TorchScript.
inline torch::jit::Module reloaded(const torch::jit::Module& module) {
  const auto file = c10::make_tempfile("lawn-script-");
  module.save(file.name);
  return torch::jit::load(file.name);
}

/// A loaded TorchScript module with the tensors of `module`.
/// @param body  what follows "def forward(self, x):", in lines of two leading spaces
inline torch::jit::Module script(const torch::nn::Module& module, const std::string& body) {
  auto parts = script_parts(module);
  parts.define("def forward(self, x):\n" + body);
  return reloaded(parts);
}

}  // namespace lawn::testing
