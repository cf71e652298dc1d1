// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <lawn/sphere/flat.h>

namespace lawn::sphere::cpu {

/// Number of elements that are converted at once. Two buffers of doubles take 16 KiB of stack.
constexpr std::int64_t kBuffer = 1024;

/// A tensor of any dtype, read and written as `T`, the type in which its layer is computed: float
/// or double. If the dtype is `T`, access is in place, else through a buffer.
template <class T>
class Elements {
 public:
  Elements(void* memory, Dtype dtype) : memory_(memory), dtype_(dtype) {}

  bool in_place() const {
    return dtype_ == (std::is_same_v<T, double> ? Dtype::kFloat64 : Dtype::kFloat32);
  }

  /// Reads elements `begin` to `begin + numel`, at most `kBuffer` unless `in_place`.
  T* read(std::int64_t begin, std::int64_t numel) {
    if (in_place()) return static_cast<T*>(memory_) + begin;
    with_pointer([&](const auto* from) {
      for (std::int64_t i = 0; i < numel; ++i) buffer_[i] = static_cast<T>(from[begin + i]);
    });
    return buffer_;
  }

  /// Writes back the elements that `read` gave and the caller changed, rounded to the dtype.
  void write(std::int64_t begin, std::int64_t numel) {
    if (in_place()) return;
    with_pointer([&](auto* to) {
      using To = std::remove_pointer_t<decltype(to)>;
      using Via = std::conditional_t<std::is_same_v<To, double>, double, float>;
      for (std::int64_t i = 0; i < numel; ++i) {
        to[begin + i] = static_cast<To>(static_cast<Via>(buffer_[i]));
      }
    });
  }

 private:
  template <class Use>
  void with_pointer(const Use& use) {
    switch (dtype_) {
      case Dtype::kFloat64:
        return use(static_cast<double*>(memory_));
      case Dtype::kFloat32:
        return use(static_cast<float*>(memory_));
      case Dtype::kBFloat16:
        return use(static_cast<c10::BFloat16*>(memory_));
      case Dtype::kFloat16:
        return use(static_cast<c10::Half*>(memory_));
    }
  }

  void* memory_;
  Dtype dtype_;
  T buffer_[kBuffer];
};

/// Calls `visit(begin, numel)` for the blocks of a run; the whole run is one block if `in_place`.
template <class Visit>
void for_each_block(std::int64_t begin, std::int64_t end, bool in_place, const Visit& visit) {
  const std::int64_t block = in_place ? std::max<std::int64_t>(end - begin, 1) : kBuffer;
  for (std::int64_t i = begin; i < end; i += block) visit(i, std::min(block, end - i));
}

}  // namespace lawn::sphere::cpu
