// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
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
/// holding them. A module in it that has a `save` and a `load` of its own is loaded by those. Such
/// a module is known by what its `save` writes: other keys, or other dtypes or shapes under the
/// usual keys. A `load` of its own beside the usual `save`, or beside one that writes other values
/// alone, cannot be seen, and is not called: a `save` that writes a key of its own makes it known.
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

  /// What the module itself writes now. Slow: only for a module that an archive does not fit.
  static torch::serialize::InputArchive own_archive(const torch::nn::Module& module) {
    torch::serialize::InputArchive archive;
    read_bytes(saved_bytes(module), std::nullopt, archive);
    return archive;
  }

  /// Whether two archives have the same keys, and under each the same kind of value; under that of
  /// a tensor also the same dtype and shape.
  static bool alike(torch::serialize::InputArchive& one, torch::serialize::InputArchive& other) {
    const Keys keys = sorted(one.keys());
    if (keys != sorted(other.keys())) return false;
    for (const std::string& key : keys) {
      c10::IValue first;
      c10::IValue second;
      one.read(key, first);
      other.read(key, second);
      if (first.isModule() && second.isModule()) {
        torch::serialize::InputArchive part;
        torch::serialize::InputArchive other_part;
        one.read(key, part);
        other.read(key, other_part);
        if (!alike(part, other_part)) return false;
      } else if (first.isTensor() && second.isTensor()) {
        const at::Tensor& tensor = first.toTensor();
        const at::Tensor& other_tensor = second.toTensor();
        if (tensor.defined() != other_tensor.defined()) return false;
        if (tensor.defined() && (tensor.sizes() != other_tensor.sizes() ||
                                 tensor.scalar_type() != other_tensor.scalar_type())) {
          return false;
        }
      } else if (first.tagKind() != second.tagKind()) {
        return false;
      }
    }
    return true;
  }

  /// Whether the module itself writes an archive like this one; one that cannot be saved does not.
  static bool writes_like(const torch::nn::Module& module,
                          torch::serialize::InputArchive& archive) {
    try {
      torch::serialize::InputArchive own = own_archive(module);
      return alike(own, archive);
    } catch (const c10::Error&) {
      return false;
    }
  }

  void load_by_itself(torch::nn::Module& module, const std::string& path,
                      torch::serialize::InputArchive& archive, Differences& differences) {
    own_.push_back(std::make_unique<ObjectEntry<torch::nn::Module>>(path, module));
    own_.back()->read(archive, differences);
  }

  /// Reads a module tensor by tensor. If something in it does not fit, and the module itself writes
  /// what the archive holds, it packs its tensors, or those of its children, and loads itself.
  void read(torch::nn::Module& module, const std::string& path,
            torch::serialize::InputArchive archive, Differences& differences) {
    const Keys saved = sorted(archive.keys());
    const Keys usual = usual_keys(module);
    if (saved != usual) {
      const Keys own = sorted(own_archive(module).keys());
      if (own != usual) {
        load_by_itself(module, path, archive, differences);
      } else {
        compare_keys(path, saved, own, differences);
      }
      return;
    }
    const std::size_t differed = differences.size();
    const std::size_t copied = copies_.size();
    const std::size_t loaded = own_.size();
    read_parts(module, path, archive, differences);
    if (differences.size() == differed || !writes_like(module, archive)) return;
    differences.resize(differed);
    copies_.drop_from(copied);
    own_.resize(loaded);
    load_by_itself(module, path, archive, differences);
  }

  void read_parts(torch::nn::Module& module, const std::string& path,
                  torch::serialize::InputArchive& archive, Differences& differences) {
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
