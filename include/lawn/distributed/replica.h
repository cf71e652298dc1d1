// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/Exception.h>

#include <lawn/distributed/collective.h>
#include <lawn/module_view.h>

namespace lawn::detail::distributed {

/// Describes, in one line for each tensor, what must be the same on every rank.
inline std::string describe(const char* kind, const std::vector<NamedTensor>& tensors) {
  std::ostringstream text;
  for (const auto& [name, tensor] : tensors) {
    text << kind << ' ' << name << ' ' << tensor.scalar_type() << ' ' << tensor.sizes()
         << (tensor.requires_grad() ? "" : " fixed") << '\n';
  }
  return text.str();
}

/// Gives every rank the values of rank `root`, by one broadcast for each tensor.
inline void broadcast_(Collective& ranks, const std::vector<NamedTensor>& tensors, int root) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : tensors) ranks.broadcast_(tensor, root);
}

/// A number that is the same on two ranks if their tensors have the same bits, and almost never
/// otherwise. It is the sum of the bit patterns, taken as integers, with a different factor for
/// each tensor.
/// @return 0-dim, int64, on `device`
/// @note does not wait for the device
inline at::Tensor fingerprint(const std::vector<NamedTensor>& tensors, at::Device device) {
  constexpr int64_t kPrime = 1099511628211;
  const at::NoGradGuard no_grad;
  auto sum = at::zeros({}, at::TensorOptions(device).dtype(at::kLong));
  for (const auto& [name, tensor] : tensors) {
    if (tensor.numel() == 0) continue;
    const auto flat = tensor.detach().contiguous().view({-1});
    const auto size = flat.element_size();
    // Words of 8 bytes if possible: narrower ones are widened one by one, which takes longer.
    const bool words = flat.numel() * size % 8 == 0 && flat.storage_offset() * size % 8 == 0;
    const auto bits = flat.view(words       ? at::kLong
                                : size == 4 ? at::kInt
                                : size == 2 ? at::kShort
                                            : at::kByte);
    sum.mul_(kPrime).add_(bits.sum(at::kLong).to(device));  // wraps
  }
  return sum;
}

}  // namespace lawn::detail::distributed
