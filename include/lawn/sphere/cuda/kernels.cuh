// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/cuda/operations.cuh>
#include <lawn/sphere/cuda/packs.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// The two kernels, for every operation. The first finishes each sphere that one warp or one block
/// can hold, and writes the sums of each chunk of the other spheres into a slot of the workspace.
/// The second finishes these: each block adds the slots of its sphere, all in the same order.
namespace lawn::sphere::cuda {
namespace {

template <class T>
struct Type {
  using type = T;
};

/// Calls `f(Type<Operation<W, G>>)` with the setting's dtypes. `takes` says which dtypes there are;
/// G is W if the operation does not mix dtypes.
template <template <class, class> class Operation, class F>
__device__ inline void with_types(const TileSettings& setting, const F& f) {
  [[maybe_unused]] const bool float_gradient = setting.gradient_dtype == Dtype::kFloat32;
  constexpr bool kMixed = Operation<float, float>::kMixesDtypes;
  switch (setting.weight_dtype) {
    case Dtype::kFloat64:
      return f(Type<Operation<double, double>>{});
    case Dtype::kFloat32:
      return f(Type<Operation<float, float>>{});
    case Dtype::kBFloat16:
      if constexpr (kMixed) {
        if (float_gradient) return f(Type<Operation<__nv_bfloat16, float>>{});
      }
      return f(Type<Operation<__nv_bfloat16, __nv_bfloat16>>{});
    case Dtype::kFloat16:
      if constexpr (kMixed) {
        if (float_gradient) return f(Type<Operation<__half, float>>{});
      }
      return f(Type<Operation<__half, __half>>{});
  }
}

/// Index of the layer on which `block` works, at or after `low`.
template <int kCapacity>
__device__ inline int layer_of(const BlockList<kCapacity>& list, int low, std::uint32_t block) {
  int high = list.layers;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (list.first_block[middle] <= block) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

/// The blocks that work on one layer, as each of them sees them.
struct Blocks {
  const TileSettings& setting;
  std::uint32_t first_block;
  std::uint32_t blocks;
  std::int64_t total;  ///< spheres of a layer for `Worker::kWarp`, else elements of a sphere

  /// Number of elements of a sphere.
  __device__ std::int64_t sphere_numel() const {
    return setting.worker == Worker::kWarp ? setting.sphere_numel : total;
  }
};

template <int kCapacity>
__device__ inline Blocks blocks_of(const BlockList<kCapacity>& list, int layer) {
  const TileSettings& setting = list.settings[list.setting[layer]];
  const std::uint32_t first_block = list.first_block[layer];
  const std::uint32_t blocks = list.first_block[layer + 1] - first_block;
  const std::int64_t total =
      static_cast<std::int64_t>(blocks) * setting.per_block - list.unused_in_last_block[layer];
  const bool sized = setting.worker != Worker::kWarp && setting.sphere_numel > 0;
  return {setting, first_block, blocks, sized ? setting.sphere_numel : total};
}

/// One layer as a block sees it.
struct View : Blocks {
  void* weight;
  void* gradient;
  void* radius;
};

template <int kCapacity>
__device__ inline View view_of(const LayerList<kCapacity>& list, int layer) {
  return {blocks_of(list, layer), list.weight[layer], list.gradient[layer], list.radius[layer]};
}

/// The radius of `sphere`; null if the layer has no radii.
template <class A>
__device__ inline A* radius_of(const View& view, std::int64_t sphere) {
  return view.radius == nullptr ? nullptr : static_cast<A*>(view.radius) + sphere;
}

/// The type of a thread's sums, and of the sums over a sphere or a chunk of it.
template <class Op>
using SumsOf = Sums<typename Op::A, Op::kSums>;
template <class Op>
using Totals = Sums<double, Op::kSums>;

/// This thread's part of the team's sums over a run.
template <class Op>
__device__ inline SumsOf<Op> sums_over(const Op& op, const Extent& extent, Team team) {
  SumsOf<Op> sums[kAccumulators];
  for_each_pack<Op::kWidth>(
      extent, team, [&](auto width, int i) { return op.load(width, i); },
      [&](auto, int u, int, auto& packs) { Op::add(packs, sums[u % kAccumulators]); });
#pragma unroll
  for (int u = 1; u < kAccumulators; ++u) sums[0] += sums[u];
  return sums[0];
}

/// Applies to a run of a sphere what follows from the sphere's sums.
template <class Op>
__device__ inline void finish(const Op& op, const Extent& extent, Team team, const View& view,
                              typename Op::A* radius, const Totals<Op>& sums) {
  if constexpr (Op::kPerElement) {
    const auto factor = Op::factor(sums, radius, view.setting, view.sphere_numel());
    if (factor == 0) return;
    for_each_pack<Op::kWidth>(
        extent, team, [&](auto width, int i) { return op.load(width, i); },
        [&](auto, int, int i, auto& packs) { op.apply(i, packs, factor); });
  } else {
    if (team.leads()) *radius = static_cast<typename Op::A>(Op::norm(sums));
  }
}

/// Number of elements of chunk `chunk`.
__device__ inline int chunk_numel(const Blocks& blocks, std::int64_t chunk) {
  const std::int64_t left = blocks.total - chunk * blocks.setting.per_block;
  return static_cast<int>(left < blocks.setting.per_block ? left : blocks.setting.per_block);
}

/// The run of elements that a thread's team works on in the first pass.
struct Span {
  std::int64_t sphere;
  std::int64_t first;
  int numel;
  Team team;
};

__device__ inline Team whole_block() {
  const int thread = static_cast<int>(threadIdx.x);
  return {thread % kLanes, thread / kLanes, kWarps};
}

/// @param place  index of the block among the layer's blocks
__device__ inline Span span_of(const View& view, std::int64_t place) {
  const Team block = whole_block();
  const std::int64_t numel = view.setting.sphere_numel;
  switch (view.setting.worker) {
    case Worker::kWarp: {
      const std::int64_t sphere = place * kWarps + block.warp;
      return {sphere, sphere * numel, static_cast<int>(numel), {block.lane, 0, 1}};
    }
    case Worker::kBlock:
      return {place, place * view.total, static_cast<int>(view.total), block};
    default:
      return {0, place * view.setting.per_block, chunk_numel(view, place), block};
  }
}

/// The sums of chunk `slot`; slots have the same size for every type of sum.
template <class Op>
__device__ inline Totals<Op>& slot_at(void* workspace, std::int64_t slot) {
  return *reinterpret_cast<Totals<Op>*>(static_cast<char*>(workspace) + slot * kMaxSumBytes);
}

/// Memory for the first and for the second sum that a block takes; since they are separate, no
/// barrier is needed in between. It is a function, so that a kernel for every operation has it only
/// once.
__device__ inline BlockScratch& block_scratch(int which = 0) {
  __shared__ BlockScratch scratch[2];
  return scratch[which];
}

/// Sum over the team; no thread goes on before all have come here.
template <class S>
__device__ inline S team_sum(const S& of_thread, Worker worker, int which = 0) {
  const S sums = warp_sum(of_thread);
  if (worker != Worker::kWarp) return block_sum(sums, block_scratch(which));
  __syncwarp();
  return sums;
}

/// Whether a sum over `numel` products may have left the range of its type; see `kLeastFloatSum`.
__device__ inline bool out_of_range(float sum, int numel) {
  const float size = sum < 0 ? -sum : sum;
  return !(size >= kLeastFloatSum * static_cast<float>(numel) && size <= kMostFloatSum);  // or NaN
}
__device__ inline bool out_of_range(double, int) { return false; }

/// Adds the threads' parts to the sums over the team. If sums in floats have left the range of
/// floats, they are taken again in double. All threads of the team must call it, and get the same
/// bits; no thread goes on before all have come here.
/// @param op, extent  the run over which the sums are taken
template <class Op>
__device__ inline Totals<Op> team_totals(const Op& op, const Extent& extent, Team team,
                                         Worker worker, const SumsOf<Op>& of_thread,
                                         int which = 0) {
  const SumsOf<Op> sums = team_sum(of_thread, worker, which);
  Totals<Op> totals;
  bool again = false;
  for (int i = 0; i < Op::kSums; ++i) {
    totals.value[i] = sums.value[i];
    if (Op::kProducts) again = again || out_of_range(sums.value[i], extent.numel);
  }
  if (again) {
    if (worker != Worker::kWarp) __syncthreads();  // until all have read the scratch
    Totals<Op> mine;
#pragma unroll 1
    for (int i = team.warp * kLanes + team.lane; i < extent.numel; i += team.warps * kLanes) {
      if constexpr (Op::kProducts) Op::add(op.load(Width<1>{}, i), mine);
    }
    totals = team_sum(mine, worker, which);
  }
  return totals;
}

/// Sum over the slots of a layer's chunks, from `first_slot` on; every thread of the block gets it.
template <class Op>
__device__ inline Totals<Op> slots_sum(void* workspace, std::int64_t first_slot,
                                       std::uint32_t slots) {
  Totals<Op> sums;
#pragma unroll 1
  for (std::uint32_t i = threadIdx.x; i < slots; i += kThreads) {
    sums += slot_at<Op>(workspace, first_slot + i);
  }
  return team_sum(sums, Worker::kChunk);
}

}  // namespace

template <template <class, class> class Operation, int kCapacity>
static __global__ void __launch_bounds__(kThreads, kMinBlocks)
    first_pass(const LayerList<kCapacity> __grid_constant__ list, void* workspace) {
  const std::uint32_t block = blockIdx.x;
  const View view = view_of(list, layer_of(list, 0, block));
  const Worker worker = view.setting.worker;
  const Span span = span_of(view, block - view.first_block);
  if (worker == Worker::kWarp && span.sphere >= view.total) return;

  with_types<Operation>(view.setting, [&](auto type) {
    using Op = typename decltype(type)::type;
    auto* radius = radius_of<typename Op::A>(view, span.sphere);
    if (!Op::concerns(radius)) return;
    const Op op(view.weight, view.gradient, span.first);
    const Extent extent = op.extent(span.numel);
    const auto sums = team_totals(op, extent, span.team, worker, sums_over(op, extent, span.team));
    if (worker != Worker::kChunk) {
      finish(op, extent, span.team, view, radius, sums);
    } else if (span.team.leads()) {
      slot_at<Op>(workspace, block - list.first_block[list.first_chunked]) = sums;
    }
  });
}

/// Runs with one block for each chunk, or for each chunked layer if elements do not change.
template <template <class, class> class Operation, int kCapacity>
static __global__ void __launch_bounds__(kThreads, kMinBlocks)
    second_pass(const LayerList<kCapacity> __grid_constant__ list, void* workspace) {
  constexpr bool kPerElement = Operation<float, float>::kPerElement;
  // Backwards: what the first kernel read last is still in the cache.
  const std::uint32_t block =
      kPerElement ? list.first_block[list.layers] - 1 - blockIdx.x
                  : list.first_block[list.first_chunked + static_cast<int>(blockIdx.x)];
  const View view = view_of(list, layer_of(list, list.first_chunked, block));
  const std::int64_t first_slot =
      static_cast<std::int64_t>(view.first_block) - list.first_block[list.first_chunked];
  const std::int64_t place = block - view.first_block;

  with_types<Operation>(view.setting, [&](auto type) {
    using Op = typename decltype(type)::type;
    auto* radius = radius_of<typename Op::A>(view, 0);
    if (!Op::concerns(radius)) return;
    const auto sums = slots_sum<Op>(workspace, first_slot, view.blocks);
    const Op op(view.weight, view.gradient, place * view.setting.per_block);
    finish(op, op.extent(chunk_numel(view, place)), whole_block(), view, radius, sums);
  });
}

}  // namespace lawn::sphere::cuda
