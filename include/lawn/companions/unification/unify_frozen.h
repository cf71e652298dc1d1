// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>
#include <c10/core/Device.h>

#include <lawn/companions/block_grid.h>
#include <lawn/companions/cuda/entries.h>
#include <lawn/companions/flat.h>
#include <lawn/companions/unification/projections.h>
#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/cuda/by_device.h>
#include <lawn/sphere/cuda/call.h>
#include <lawn/sphere/flatten.h>

/// The projection of unification with frozen blocks and signs.
namespace lawn::detail::unification {

/// A weight with its frozen signs and blocks.
struct FrozenSigns {
  at::Tensor weight;  ///< floating point, any stride; changed in place
  at::Tensor signs;   ///< int8, in the weight's shape: -1 or 1 in a frozen block, 0 in any other
  BlockShape block;
};

namespace aten {

/// w <- s a, a = max(0, mean of s w over the block), where s is not 0. Any dtype, device, stride.
/// @param pruned  elements that take no part and stay as they are, or undefined
inline void unify_frozen_(const at::Tensor& weight, const at::Tensor& signs, BlockShape block,
                          const at::Tensor& pruned = {}) {
  const companions::BlockGrid grid("lawn::Admm", "the weight", weight, block);
  const auto sign = signs.to(at::kDouble);
  const auto value = weight.to(at::kDouble);
  const auto means = block_means(grid, sign * value, pruned).clamp_min(0);
  auto stays = sign == 0;
  if (pruned.defined()) stays.logical_or_(pruned);
  weight.copy_(at::where(stays, value, sign * grid.spread(means)));
}

}  // namespace aten

namespace cpu {

/// Unifies one row of blocks of a contiguous float32 matrix.
struct UnifyBand {
  /// @param sums, values  scratch, as long as a row
  LAWN_LOOP static void run(float* weight, const std::int8_t* signs, std::int64_t rows,
                            std::int64_t columns, std::int64_t block_columns, double* sums,
                            float* values) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* w = weight + row * columns;
      const std::int8_t* s = signs + row * columns;
      if (row == 0) {
        LAWN_SIMD()
        for (std::int64_t k = 0; k < columns; ++k) sums[k] = static_cast<double>(s[k]) * w[k];
        continue;
      }
      LAWN_SIMD()
      for (std::int64_t k = 0; k < columns; ++k) sums[k] += static_cast<double>(s[k]) * w[k];
    }
    for (std::int64_t first = 0; first < columns; first += block_columns) {
      const std::int64_t last = std::min(first + block_columns, columns);
      double sum = 0;
      for (std::int64_t k = first; k < last; ++k) sum += sums[k];
      // In float64 the sum of equal float32 numbers is exact, and so is its mean.
      const double mean = sum / static_cast<double>(rows * (last - first));
      const float value = static_cast<float>(mean < 0 ? 0 : mean);  // NaN stays visible
      for (std::int64_t k = first; k < last; ++k) values[k] = value;
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      float* w = weight + row * columns;
      const std::int8_t* s = signs + row * columns;
      LAWN_SIMD()
      for (std::int64_t k = 0; k < columns; ++k) {
        const float old = w[k];  // unconditional: a conditional load is not vectorized
        const auto sign = static_cast<float>(s[k]);
        const float unified = sign * values[k];
        w[k] = sign == 0 ? old : unified;
      }
    }
  }
};

/// Does what `aten::unify_frozen_` does; the bits are the same for any number of threads.
inline void unify_frozen_(const at::Tensor& weight, const at::Tensor& signs, BlockShape block) {
  constexpr std::int64_t kGrain = std::int64_t{16} * 1024;  // elements that justify a thread
  const std::int64_t rows = weight.dim() > 0 ? weight.size(0) : 1;
  const std::int64_t columns = weight.numel() / rows;
  const std::int64_t bands = (rows + block.rows - 1) / block.rows;
  auto* const weights = weight.data_ptr<float>();
  const auto* const all_signs = signs.const_data_ptr<std::int8_t>();
  const std::int64_t grain = std::max<std::int64_t>(kGrain / (block.rows * columns), 1);
  at::parallel_for(0, bands, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> sums(static_cast<std::size_t>(columns));
    std::vector<float> values(static_cast<std::size_t>(columns));
    for (std::int64_t band = begin; band < end; ++band) {
      const std::int64_t row = band * block.rows;
      sphere::cpu::run_loop<UnifyBand>(weights + row * columns, all_signs + row * columns,
                                       std::min(block.rows, rows - row), columns, block.columns,
                                       sums.data(), values.data());
    }
  });
  sphere::bump_version(weight);
}

}  // namespace cpu

namespace cuda {

/// @param frozen  contiguous, with a block that fits
inline companions::FlatUnified flat_unified(const FrozenSigns& frozen) {
  const auto narrow = [](std::int64_t size) { return static_cast<std::int32_t>(size); };
  const at::Tensor& weight = frozen.weight;
  const std::int64_t rows = weight.dim() > 0 ? weight.size(0) : 1;
  companions::FlatUnified flat;
  flat.weight = weight.data_ptr();
  flat.signs = frozen.signs.const_data_ptr<std::int8_t>();
  flat.dtype = *sphere::flat_dtype(weight.scalar_type());
  flat.rows = narrow(rows);
  flat.columns = narrow(rows > 0 ? weight.numel() / rows : 0);
  flat.block_rows = narrow(frozen.block.rows);
  flat.block_columns = narrow(frozen.block.columns);
  return flat;
}

/// @param list  all on `device`
inline void unify_frozen_(at::Device device, const std::vector<companions::FlatUnified>& list) {
  sphere::cuda::call(device, 0, [&](void* /*workspace*/, void* stream) {
    return companions::cuda::entries->unify_frozen(list.data(),
                                                   static_cast<std::int64_t>(list.size()), stream);
  });
}

}  // namespace cuda

/// Whether both lie in raw memory as one matrix, and loops or kernels can do the work.
inline bool takes(const FrozenSigns& frozen) {
  const auto& [weight, signs, block] = frozen;
  return (weight.is_cpu() ? weight.scalar_type() == at::kFloat
                          : sphere::cuda::has_kernels(weight.device()) &&
                                weight.numel() <= std::numeric_limits<std::int32_t>::max()) &&
         sphere::detail::plain(weight) && weight.is_contiguous() && signs.is_contiguous() &&
         signs.device() == weight.device();
}

/// Makes the absolute values of each frozen block equal again, and gives its elements their signs.
///   w <- s a, a = max(0, mean of s w over the block)
/// This is the Euclidean projection onto {s a : a >= 0}. A block whose a is 0 keeps its signs, and
/// may become nonzero again. Loops on the CPU process contiguous float32 weights, and a CUDA kernel
/// processes all contiguous weights of a list at once; ATen does the rest, weight by weight.
/// @param all  each weight once, with blocks that fit it
/// @note  does not wait for the device; if the absolute values of a block are equal already, no bit
///        of float32 or half precision changes
inline void unify_frozen_(const std::vector<FrozenSigns>& all) {
  sphere::cuda::ByDevice<companions::FlatUnified> list;
  for (const FrozenSigns& frozen : all) {
    const auto& [weight, signs, block] = frozen;
    if (!takes(frozen)) {
      aten::unify_frozen_(weight, signs, block);
    } else if (weight.is_cpu()) {
      cpu::unify_frozen_(weight, signs, block);
    } else {
      list.add(weight.device(), cuda::flat_unified(frozen));
      sphere::bump_version(weight);
    }
  }
  list.for_each(cuda::unify_frozen_);
}

}  // namespace lawn::detail::unification
