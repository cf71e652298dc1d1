// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/copy_values.h>
#include <lawn/decorator/held_weights.h>
#include <lawn/module_view.h>
#include <lawn/parameters/gradient_values.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

/// A copy of the parameters and buffers of a module, to which it can go back: lottery tickets are
/// initial weights under masks made from the final ones.
/// @source Frankle, Carbin 2019, arXiv 1803.03635; Liu et al. 2021, arXiv 2102.11068
class Snapshot {
 public:
  /// Copies every parameter and buffer, each on its device. Does not wait for the device.
  /// @param module  a `torch::nn::Module` or a `torch::jit::Module`
  explicit Snapshot(const ModuleView& module) {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : module.tensors()) {
      entries_.push_back({name, tensor.detach().clone()});
    }
  }

  /// Writes the tensors back in place, to the bit. Optimizers keep their state: to start training
  /// again, make a new optimizer, or reset its state.
  /// @param module  the one that was copied, or one with the same names, shapes and dtypes, on
  ///                any device
  /// @throws c10::Error that names what differs; nothing is changed then
  /// @note   waits only for copies to the host
  void rewind(const ModuleView& module) const {
    const auto tensors = module.tensors();
    TORCH_CHECK(tensors.size() == entries_.size(), kWho, ": expected a module with ",
                entries_.size(), " parameters and buffers, got one with ", tensors.size(),
                "; nothing was changed");
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto& expected = entries_[i];
      const auto& [name, tensor] = tensors[i];
      TORCH_CHECK(name == expected.name, kWho, ": expected ", expected.name, " in place ", i,
                  " of the module, got ", name, "; nothing was changed");
      TORCH_CHECK(tensor.sizes() == expected.tensor.sizes() &&
                      tensor.scalar_type() == expected.tensor.scalar_type(),
                  kWho, ": expected ", name, " to be ", expected.tensor.scalar_type(), " of shape ",
                  expected.tensor.sizes(), ", got ", tensor.scalar_type(), " of shape ",
                  tensor.sizes(), "; nothing was changed");
    }
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const at::Tensor& into = tensors[i].tensor;
      detail::archive::copy_values(into, entries_[i].tensor,
                                   detail::parameters::may_return_early(into.device()));
    }
  }

  /// The copy of one parameter or buffer (an alias of that copy, not another one).
  /// @throws c10::Error if no parameter or buffer has this dotted name
  at::Tensor at(const std::string& name) const {
    for (const auto& entry : entries_) {
      if (entry.name == name) return entry.tensor;
    }
    TORCH_CHECK(false, kWho, ": expected the dotted name of a parameter or buffer, got '", name,
                "', which is none of ", entries_.size());
  }

  /// The copies of the weights of a selection, in its order.
  /// @throws c10::Error if one is not in the module
  std::vector<at::Tensor> of(const Subnetwork& selection) const {
    std::vector<at::Tensor> tensors;
    for (const auto& name : selection.names()) tensors.push_back(at(name));
    return tensors;
  }

  /// `torch::save` and `torch::load` take a Snapshot; load into one of the same module.
  friend torch::serialize::OutputArchive& operator<<(torch::serialize::OutputArchive& archive,
                                                     const Snapshot& snapshot) {
    archive.write("names", c10::IValue(detail::decorator::names_of(snapshot.entries_)));
    for (std::size_t i = 0; i < snapshot.entries_.size(); ++i) {
      archive.write(std::to_string(i), snapshot.entries_[i].tensor, /*is_buffer=*/true);
    }
    return archive;
  }

  friend torch::serialize::InputArchive& operator>>(torch::serialize::InputArchive& archive,
                                                    Snapshot& snapshot) {
    TORCH_CHECK(detail::archive::read_texts(kWho, archive, "names") ==
                    detail::decorator::names_of(snapshot.entries_),
                kWho,
                ": expected a snapshot of a module with the same parameters and buffers, got "
                "another file; nothing was changed");
    std::vector<detail::NamedTensor> loaded;
    for (std::size_t i = 0; i < snapshot.entries_.size(); ++i) {
      const auto& mine = snapshot.entries_[i];
      loaded.push_back({mine.name, detail::decorator::read_beside(kWho, archive, std::to_string(i),
                                                                  mine, mine.tensor.sizes(),
                                                                  mine.tensor.scalar_type())});
    }
    snapshot.entries_ = std::move(loaded);
    return archive;
  }

 private:
  static constexpr const char* kWho = "lawn::Snapshot";

  std::vector<detail::NamedTensor> entries_;
};

}  // namespace lawn
