// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <c10/util/StringUtil.h>
#include <torch/serialize/input-archive.h>

#include <lawn/archive/copy_values.h>
#include <lawn/checkpoint/entry.h>

namespace lawn::detail::checkpoint {

using Keys = std::vector<std::string>;

inline Keys sorted(Keys keys) {
  std::sort(keys.begin(), keys.end());
  return keys;
}

/// Adds to `differences` each key of a module that is there or here alone. Both lists are sorted.
/// @param path  of the module, for messages
inline void compare_keys(const std::string& path, const Keys& saved, const Keys& mine,
                         Differences& differences) {
  Keys missing;
  Keys more;
  std::set_difference(mine.begin(), mine.end(), saved.begin(), saved.end(),
                      std::back_inserter(missing));
  std::set_difference(saved.begin(), saved.end(), mine.begin(), mine.end(),
                      std::back_inserter(more));
  for (const auto& key : missing) differences.push_back(c10::str("it lacks ", path, ".", key));
  for (const auto& key : more) {
    differences.push_back(c10::str("it holds ", path, ".", key, ", which the module lacks"));
  }
}

/// Tensors of an archive, and those of the program that are to get their values, in place.
class TensorCopies {
 public:
  /// Reads a tensor, or adds to `differences` why it does not fit.
  /// @param path  what it is called in messages
  void read(const at::Tensor& mine, const std::string& path, const std::string& key,
            torch::serialize::InputArchive& archive, Differences& differences) {
    c10::IValue value;
    if (!archive.try_read(key, value) || !value.isTensor()) {
      differences.push_back(path + " is no tensor there");
      return;
    }
    const at::Tensor saved = value.toTensor();
    if (saved.sizes() != mine.sizes() || saved.scalar_type() != mine.scalar_type()) {
      differences.push_back(c10::str(path, " is ", saved.scalar_type(), " of shape ", saved.sizes(),
                                     " there and ", mine.scalar_type(), " of shape ", mine.sizes(),
                                     " here"));
      return;
    }
    copies_.emplace_back(mine, saved);
  }

  /// Writes all values into the program's tensors.
  void make() {
    const at::NoGradGuard no_grad;
    for (auto& [mine, saved] : copies_) archive::copy_values(mine, saved);
  }

  std::size_t size() const { return copies_.size(); }

  /// Forgets all tensors that were read after the first `count`.
  void drop_from(std::size_t count) {
    copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(count), copies_.end());
  }

  void clear() { copies_.clear(); }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> copies_;
};

}  // namespace lawn::detail::checkpoint
