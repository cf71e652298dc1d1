// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/companions/cuda/lists.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/tuning.h>
#include <lawn/sphere/cuda/kernels.cuh>
#include <lawn/sphere/cuda/packs.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// The kernel that makes the absolute values of frozen blocks equal. One thread or one warp does
/// all the work of a block.
namespace lawn::detail::companions::cuda {
namespace {

/// w <- s a, a = max(0, mean of s w over the block), where s is not 0
template <class W, class>
struct Unifying {
  using A = sphere::cuda::Accumulator<W>;
  static constexpr bool kMixesDtypes = false;

  /// In float64 the sum of equal numbers of 32 bits is exact, and so is its mean.
  using Sum = sphere::cuda::Sums<double, 1>;

  /// One block of the matrix.
  W* weight;
  const std::int8_t* signs;
  std::uint32_t columns;  ///< columns of the matrix
  std::uint32_t width;    ///< columns of the block
  std::uint32_t numel;

  /// @param block  index of the block, counted row by row
  template <int kCapacity>
  __device__ Unifying(const UnifiedList<kCapacity>& list, int at, std::uint32_t block)
      : columns(static_cast<std::uint32_t>(list.columns[at])) {
    const auto rows = static_cast<std::uint32_t>(list.rows[at]);
    const auto block_rows = static_cast<std::uint32_t>(list.block_rows[at]);
    const auto block_columns = static_cast<std::uint32_t>(list.block_columns[at]);
    const std::uint32_t across = (columns - 1) / block_columns + 1;
    const std::uint32_t row = block / across * block_rows;
    const std::uint32_t column = block % across * block_columns;
    const std::uint32_t height = rows - row < block_rows ? rows - row : block_rows;
    width = columns - column < block_columns ? columns - column : block_columns;
    numel = height * width;
    const std::int64_t first = std::int64_t{row} * columns + column;
    weight = static_cast<W*>(list.weight[at]) + first;
    signs = list.signs[at] + first;
  }

  /// Offset of the block's element i from its first element.
  __device__ std::uint32_t place(std::uint32_t i) const { return i / width * columns + i % width; }

  /// The part of the sum that lane `lane` of `lanes` computes.
  __device__ Sum sum(std::uint32_t lane, std::uint32_t lanes) const {
    Sum sum;
    for (std::uint32_t i = lane; i < numel; i += lanes) {
      const std::uint32_t at = place(i);
      sum.value[0] +=
          static_cast<double>(static_cast<A>(signs[at]) * sphere::cuda::widen(weight[at]));
    }
    return sum;
  }

  __device__ void apply(std::uint32_t lane, std::uint32_t lanes, const Sum& sum) const {
    const double mean = sum.value[0] / numel;
    const auto value = static_cast<A>(mean < 0 ? 0 : mean);  // NaN stays visible
    for (std::uint32_t i = lane; i < numel; i += lanes) {
      const std::uint32_t at = place(i);
      const auto sign = static_cast<A>(signs[at]);
      if (sign != 0) sphere::cuda::narrow(sign * value, weight[at]);
    }
  }
};

}  // namespace

template <int kCapacity>
static __global__ void __launch_bounds__(sphere::cuda::kThreads, sphere::cuda::kMinBlocks)
    unify_blocks(const UnifiedList<kCapacity> __grid_constant__ list) {
  const int at = sphere::cuda::layer_of(list, 0, blockIdx.x);
  const sphere::cuda::Blocks blocks = sphere::cuda::blocks_of(list, at);
  const sphere::cuda::TileSettings& setting = blocks.setting;
  const bool by_warp = setting.worker == sphere::cuda::Worker::kWarp;
  const std::uint32_t lanes = by_warp ? sphere::cuda::kLanes : 1;
  const std::int64_t block =
      std::int64_t{blockIdx.x - blocks.first_block} * setting.per_block + threadIdx.x / lanes;
  if (block >= blocks.total) return;

  sphere::cuda::with_types<Unifying>(setting, [&](auto type) {
    const typename decltype(type)::type op(list, at, static_cast<std::uint32_t>(block));
    const std::uint32_t lane = threadIdx.x % lanes;
    auto sum = op.sum(lane, lanes);
    if (by_warp) sum = sphere::cuda::warp_sum(sum);
    op.apply(lane, lanes, sum);
  });
}

}  // namespace lawn::detail::companions::cuda
