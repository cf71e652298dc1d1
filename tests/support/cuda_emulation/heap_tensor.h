// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

namespace lawn::testing {

/// A copy of `values` in a heap block of its own that ends with the last element, so that
/// AddressSanitizer sees what reads or writes beyond it. In front lie `skipped` elements of NaN,
/// which misalign the copy; `spoiled_in_front` says whether they still are.
inline at::Tensor heap_tensor(const at::Tensor& values, int64_t skipped = 0) {
  const at::Tensor dense = values.contiguous();
  const auto element = static_cast<std::size_t>(dense.element_size());
  const auto front = static_cast<std::size_t>(skipped) * element;
  const auto bytes = static_cast<std::size_t>(dense.numel()) * element;
  auto* block = new char[front + bytes];
  std::memset(block, 0xff, front);
  if (bytes > 0) std::memcpy(block + front, dense.data_ptr(), bytes);
  return at::from_blob(
      block + front, dense.sizes(), [block](void*) { delete[] block; }, dense.options());
}

inline bool spoiled_in_front(const at::Tensor& copy, int64_t skipped) {
  const auto* end = static_cast<const unsigned char*>(copy.data_ptr());
  for (int64_t i = 1; i <= skipped * copy.element_size(); ++i) {
    if (end[-i] != 0xff) return false;
  }
  return true;
}

}  // namespace lawn::testing
