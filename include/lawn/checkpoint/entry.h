// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/module_view.h>

namespace lawn::detail::checkpoint {

/// Where a checkpoint differs from the program, each in words.
using Differences = std::vector<std::string>;

/// Something of the program that a checkpoint holds. It is loaded in three turns, each for all
/// entries before the next begins: `read` compares, `load` changes what can still be refused, and
/// `take` changes the rest.
class Entry {
 public:
  explicit Entry(std::string name) : name_(std::move(name)) {}
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;
  virtual ~Entry() = default;

  const std::string& name() const { return name_; }
  /// What it is, in words that another program, or another compiler's, finds equal.
  virtual std::string kind() const = 0;
  /// Where `read` expects the tensors of its archive; nothing: where they were saved.
  virtual std::optional<at::Device> device() const { return at::Device(at::kCPU); }

  virtual void save(torch::serialize::OutputArchive& archive) const = 0;
  /// Reads the archive, adds to `differences` what cannot be taken, and changes nothing.
  virtual void read(torch::serialize::InputArchive& archive, Differences& differences) = 0;
  /// Changes what may throw. If it throws, nothing of this entry is changed.
  virtual void load() {}
  /// Takes back what `load` has changed.
  virtual void undo() {}
  /// Changes what cannot throw.
  virtual void take() {}
  /// Forgets what was read.
  virtual void forget() {}

 private:
  std::string name_;
};

/// Has all entries load, or none.
inline void load_all(const std::vector<std::unique_ptr<Entry>>& entries) {
  auto next = entries.begin();
  try {
    for (; next != entries.end(); ++next) (*next)->load();
  } catch (...) {
    while (next != entries.begin()) (*--next)->undo();
    throw;
  }
}

/// The device that all of `tensors` share, the CPU if there are none; nothing if there are several.
inline std::optional<at::Device> common_device(const std::vector<NamedTensor>& tensors) {
  if (tensors.empty()) return at::Device(at::kCPU);
  const at::Device device = tensors.front().tensor.device();
  for (const auto& [name, tensor] : tensors) {
    if (tensor.device() != device) return std::nullopt;
  }
  return device;
}

}  // namespace lawn::detail::checkpoint
