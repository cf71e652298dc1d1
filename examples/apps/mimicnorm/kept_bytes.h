// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>
#include <unordered_map>

/// Counts the bytes that LibTorch's allocators have handed out and not taken back, from their
/// reports to a profiler. It counts neither memory allocated before, nor memory that a library
/// below LibTorch allocates itself.
class LiveBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* pointer, int64_t size, size_t /*total_allocated*/,
                         size_t /*total_reserved*/, c10::Device /*device*/) override {
    if (size > 0) {
      sizes_[pointer] = size;
    } else {
      sizes_.erase(pointer);
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t count() const {
    int64_t sum = 0;
    for (const auto& [pointer, size] : sizes_) sum += size;
    return sum;
  }

 private:
  std::unordered_map<void*, int64_t> sizes_;  ///< of what is in use
};

/// Bytes that stay in use between a forward pass and its backward pass: the tensors that autograd
/// saved, and the result.
/// @param forward  returns the loss with its graph; its allocations in other threads are not
///                 counted
/// @note  a CPU's allocator and the CUDA caching allocator report; the latter in rounded sizes
template <class Forward>
int64_t bytes_kept_for_backward(const Forward& forward) {
  const auto live = std::make_shared<LiveBytes>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
  const auto loss = forward();
  return live->count();  // the loss still holds its graph
}
