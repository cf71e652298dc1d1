// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <torch/nn/module.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/checkpoint/archive_file.h>
#include <lawn/checkpoint/entry.h>
#include <lawn/checkpoint/object_entry.h>
#include <lawn/checkpoint/tensor_copies.h>
#include <lawn/module_view.h>

namespace lawn::detail::checkpoint {

/// Whether a class is a holder of, or a pointer to, a module.
template <class T, class = void>
constexpr bool kHoldsModule = false;
template <class T>
constexpr bool kHoldsModule<
    T, std::enable_if_t<std::is_base_of_v<
           torch::nn::Module, std::remove_reference_t<decltype(*std::declval<T&>())>>>> = true;

/// A network. Its tensors are overwritten in place, so that everything that holds them goes on
/// holding them. A module in it that has a `save` and a `load` of its own is loaded by those.
class ModuleEntry : public Entry {
 public:
  /// @param module  gives the network, which a holder may have replaced since
  ModuleEntry(std::string name, std::function<torch::nn::Module&()> module)
      : Entry(std::move(name)), module_(std::move(module)) {}

  std::string kind() const override { return "module"; }

  std::optional<at::Device> device() const override {
    return common_device(ModuleView(module_()).tensors());
  }

  void save(torch::serialize::OutputArchive& archive) const override { module_().save(archive); }

  void read(torch::serialize::InputArchive& archive, Differences& differences) override {
    read(module_(), name(), std::move(archive), differences);
  }

  void load() override { load_all(own_); }

  void undo() override {
    for (const auto& own : own_) own->undo();
  }

  void take() override { copies_.make(); }

  void forget() override {
    copies_.clear();
    own_.clear();
  }

 private:
  /// What torch::nn::Module::save writes of a module.
  static Keys usual_keys(const torch::nn::Module& module) {
    Keys keys = module.named_parameters(/*recurse=*/false).keys();
    for (const auto& key : module.named_buffers(false).keys()) keys.push_back(key);
    for (const auto& child : module.named_children()) {
      if (child.value()->is_serializable()) keys.push_back(child.key());
    }
    return sorted(std::move(keys));
  }

  /// What the module itself writes now. Slow: only for a module whose archive is not the usual one.
  static Keys own_keys(const torch::nn::Module& module) {
    const std::string bytes = saved_bytes(module);
    torch::serialize::InputArchive archive;
    read_bytes(bytes, std::nullopt, archive);
    return sorted(archive.keys());
  }

  void read(torch::nn::Module& module, const std::string& path,
            torch::serialize::InputArchive archive, Differences& differences) {
    const Keys saved = sorted(archive.keys());
    const Keys usual = usual_keys(module);
    if (saved != usual) {
      const Keys own = own_keys(module);
      if (own != usual) {
        own_.push_back(std::make_unique<ObjectEntry<torch::nn::Module>>(path, module));
        own_.back()->read(archive, differences);
      } else {
        compare_keys(path, saved, own, differences);
      }
      return;
    }
    for (const auto& parameter : module.named_parameters(false)) {
      copies_.read(parameter.value(), path + "." + parameter.key(), parameter.key(), archive,
                   differences);
    }
    for (const auto& buffer : module.named_buffers(false)) {
      copies_.read(buffer.value(), path + "." + buffer.key(), buffer.key(), archive, differences);
    }
    for (const auto& child : module.named_children()) {
      if (!child.value()->is_serializable()) continue;
      torch::serialize::InputArchive part;
      if (!archive.try_read(child.key(), part)) {
        differences.push_back(path + "." + child.key() + " is a tensor there and a module here");
        continue;
      }
      read(*child.value(), path + "." + child.key(), std::move(part), differences);
    }
  }

  std::function<torch::nn::Module&()> module_;
  TensorCopies copies_;
  std::vector<std::unique_ptr<Entry>> own_;  ///< modules that load themselves
};

}  // namespace lawn::detail::checkpoint
