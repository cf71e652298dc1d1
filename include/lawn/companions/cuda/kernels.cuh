// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/tuning.h>
#include <lawn/companions/cuda/operations.cuh>
#include <lawn/sphere/cuda/kernels.cuh>
#include <lawn/sphere/cuda/packs.cuh>

/// The kernel of elementwise operations. (Centring runs in the two kernels of
/// `sphere/cuda/kernels.cuh`.)
namespace lawn::detail::companions::cuda {

/// Runs with one block for each chunk.
template <template <class, class> class Operation, class List>
static __global__ void __launch_bounds__(sphere::cuda::kThreads, sphere::cuda::kMinBlocks)
    each_element(const List __grid_constant__ list) {
  const int at = sphere::cuda::layer_of(list, 0, blockIdx.x);
  const sphere::cuda::Blocks blocks = sphere::cuda::blocks_of(list, at);
  const std::int64_t place = blockIdx.x - blocks.first_block;

  sphere::cuda::with_types<Operation>(blocks.setting, [&](auto type) {
    using Op = typename decltype(type)::type;
    const Op op(list, at, place * blocks.setting.per_block);
    sphere::cuda::for_each_pack<Op::kWidth, Op::kInFlight>(
        op.extent(sphere::cuda::chunk_numel(blocks, place)), sphere::cuda::whole_block(),
        [&](auto width, int i) { return op.load(width, i); },
        [&](auto, int, int i, auto& packs) { op.apply(i, packs); });
  });
}

}  // namespace lawn::detail::companions::cuda
