// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/sphere/flat.h>

/// Arguments of the companions' multi-tensor functions as plain memory, for the CPU's loops and the
/// CUDA kernels. Free of torch, so that device code can include it.
namespace lawn::detail::companions {

/// A tensor and which of its elements are pruned.
struct FlatPruned : sphere::FlatTensor {
  void* elements = nullptr;
  const std::uint8_t* pruned = nullptr;  ///< 0 or 1
};

/// A weight in ADMM's penalty. The gradient has the weight's dtype; target and dual have the dtype
/// in which sums over the weight are taken.
struct FlatPenalty : sphere::FlatTensor {
  const void* weight = nullptr;
  void* gradient = nullptr;
  const void* target = nullptr;
  const void* dual = nullptr;
};

/// A weight as a contiguous matrix in which the elements of a block share one absolute value.
/// Blocks at the lower and right edges are smaller if the matrix's size is no multiple of the
/// block's.
struct FlatUnified {
  void* weight = nullptr;
  const std::int8_t* signs = nullptr;  ///< -1 or 1 in a frozen block, 0 in any other
  sphere::Dtype dtype = sphere::Dtype::kFloat32;
  std::int32_t rows = 0;  ///< rows of the matrix, which has fewer than 2^31 elements
  std::int32_t columns = 0;
  std::int32_t block_rows = 1;
  std::int32_t block_columns = 1;
};

}  // namespace lawn::detail::companions
