// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/checkpoint/entry.h>
#include <lawn/checkpoint/tensor_copies.h>
#include <lawn/module_view.h>

namespace lawn::detail::checkpoint {

/// A TorchScript module: its parameters and buffers, under their dotted names. The code is that of
/// the file that it was loaded from. Its tensors are overwritten in place.
class ScriptEntry : public Entry {
 public:
  ScriptEntry(std::string name, torch::jit::Module& module)
      : Entry(std::move(name)), module_(module) {}

  std::string kind() const override { return "TorchScript module"; }

  std::optional<at::Device> device() const override { return common_device(tensors()); }

  void save(torch::serialize::OutputArchive& archive) const override {
    for (const auto& [name, tensor] : tensors()) {
      archive.write(name, tensor, /*is_buffer=*/!tensor.requires_grad());
    }
  }

  void read(torch::serialize::InputArchive& archive, Differences& differences) override {
    Keys mine;
    for (const auto& [name, tensor] : tensors()) mine.push_back(name);
    const Keys saved = sorted(archive.keys());
    if (saved != sorted(mine)) return compare_keys(name(), saved, sorted(mine), differences);
    for (const auto& [key, tensor] : tensors()) {
      copies_.read(tensor, name() + "." + key, key, archive, differences);
    }
  }

  void take() override { copies_.make(); }
  void forget() override { copies_.clear(); }

 private:
  std::vector<NamedTensor> tensors() const { return ModuleView(module_).tensors(); }

  torch::jit::Module& module_;
  TensorCopies copies_;
};

}  // namespace lawn::detail::checkpoint
