// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/layer_list.h>

/// Sums over the threads of a warp and of a block, in a fixed order: the bits are the same in every
/// run.
namespace lawn::sphere::cuda {
namespace {

constexpr unsigned kFullMask = 0xffffffffU;

/// Several sums that are taken side by side.
template <class A, int kCount>
struct Sums {
  A value[kCount] = {};

  __device__ Sums& operator+=(const Sums& other) {
    for (int i = 0; i < kCount; ++i) value[i] += other.value[i];
    return *this;
  }
};

/// Sum over the warp; every lane gets it, with the same bits. All lanes must call it.
template <class A, int kCount>
__device__ inline Sums<A, kCount> warp_sum(Sums<A, kCount> sums) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      sums.value[i] += __shfl_xor_sync(kFullMask, sums.value[i], distance);
    }
  }
  return sums;
}

/// Memory for `block_sum`, of the same size for every type of sum.
constexpr int kMaxSumBytes = 16;
struct alignas(kMaxSumBytes) BlockScratch {
  unsigned char bytes[kWarps * kMaxSumBytes];
};

/// Sum over the block of the warps' sums; every thread gets it, with the same bits. All threads
/// must call it.
/// @param of_warp  the result of `warp_sum`
/// @param scratch  in shared memory; two calls with the same scratch need a barrier in between
template <class A, int kCount>
__device__ inline Sums<A, kCount> block_sum(const Sums<A, kCount>& of_warp, BlockScratch& scratch) {
  static_assert(sizeof(of_warp) <= kMaxSumBytes, "BlockScratch has no room for so many sums");
  static_assert(kWarps <= kLanes, "a warp adds the sums of all warps at once");
  auto* of_warps = reinterpret_cast<Sums<A, kCount>*>(scratch.bytes);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kLanes;
  if (lane == 0) of_warps[thread / kLanes] = of_warp;
  __syncthreads();
  // Every warp adds them for itself, which saves a second barrier.
  Sums<A, kCount> mine;
  if (lane < kWarps) mine = of_warps[lane];
  return warp_sum(mine);
}

}  // namespace
}  // namespace lawn::sphere::cuda
