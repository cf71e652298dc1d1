// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/sphere/flat.h>

/// What the companions' multi-tensor functions work on, as plain memory: for the loops of the CPU
/// and for the CUDA kernels. Free of torch, so that device code can include it.
namespace lawn::detail {

/// A tensor and which of its elements are pruned.
struct PrunedRun : sphere::FlatTensor {
  void* elements = nullptr;
  const std::uint8_t* pruned = nullptr;  ///< 0 or 1
};

/// A weight in ADMM's penalty; its gradient is of its dtype, target and dual of that in which sums
/// over it are taken.
struct PenaltyRun : sphere::FlatTensor {
  const void* weight = nullptr;
  void* gradient = nullptr;
  const void* target = nullptr;
  const void* dual = nullptr;
};

}  // namespace lawn::detail
