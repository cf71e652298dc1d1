// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_runtime.h>

#include <lawn/folded/cuda/layer_list.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/tuning.h>
#include <lawn/folded/cuda/steps.cuh>
#include <lawn/sphere/cuda/kernels.cuh>
#include <lawn/sphere/cuda/operations.cuh>
#include <lawn/sphere/cuda/packs.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// The three kernels of a folded step. Its numbers come with the launch (`ByValue`), or through
/// shared memory from device memory that a kernel of one thread has written (`Prepared`). The first
/// kernel finishes each sphere that one warp or one block can hold, in three passes, and writes the
/// inner products of each chunk of the other spheres into a slot. The second kernel adds these
/// products, updates, and writes the new squares into another slot. The third kernel is the second
/// pass of `sphere::cuda::Rescaling`.
namespace lawn::detail::folded::cuda {
namespace {

using sphere::cuda::kMinBlocks;
using sphere::cuda::kThreads;
using sphere::cuda::Rescaling;
using sphere::cuda::TangentProjection;
using sphere::cuda::Team;
using sphere::cuda::TileSettings;
using sphere::cuda::View;
using sphere::cuda::Worker;

/// Updates a span; returns this thread's part of the sum of the new squares.
/// @tparam kRereads  see `ReadAs`
/// @tparam kInFlight    number of packs that a thread has in flight
template <bool kRereads, int kInFlight, class Step>
__device__ inline Sums<typename Step::A, 1> update(const Step& step, int numel, Team team,
                                                   typename Step::A c) {
  Sums<typename Step::A, 1> sum;
  sphere::cuda::for_each_pack<Step::kWidth, kInFlight>(
      step.extent(numel), team, [&](auto width, int i) { return step.load(width, i); },
      [&](auto, int, int i, auto& packs) { step.template update<kRereads>(i, packs, c, sum); });
  return sum;
}

/// Hides x from the compiler, so that values derived from it are recomputed, not kept in registers:
/// a pass has no registers to spare for the next one.
template <class T>
__device__ inline T forget(T x) {
  asm volatile("" : "+r"(x));
  return x;
}

/// The numbers of a step, in the memory from which a thread reads them. All threads of the block
/// must call it.
template <class Numbers>
__device__ inline const Numbers& numbers_of(const ByValue<Numbers>& source) {
  return source.numbers;
}
/// Copies prepared numbers into shared memory, from which a thread can read them again and again.
/// Reads of device memory that are not kept in registers would bypass the nearest cache.
template <class Numbers>
__device__ inline const Numbers& numbers_of(const Prepared<Numbers>* source) {
  static_assert(sizeof(Numbers) % sizeof(std::uint32_t) == 0, "numbers are copied as words");
  constexpr int kWords = sizeof(Numbers) / sizeof(std::uint32_t);
  __shared__ double near[(sizeof(Numbers) + sizeof(double) - 1) / sizeof(double)];
  const auto* from = reinterpret_cast<const std::uint32_t*>(&source->numbers);
  auto* to = reinterpret_cast<std::uint32_t*>(near);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kWords) to[thread] = from[thread];
  static_assert(kWords <= kThreads, "one word a thread");
  __syncthreads();
  return *reinterpret_cast<const Numbers*>(near);
}

template <class Source>
constexpr bool kRereads = std::is_pointer_v<Source>;

/// Number of packs in flight in the first kernel, which has the fewest registers to spare. It
/// updates only small spheres.
template <class Step, class Source>
constexpr int kFirstPassInFlight = kRereads<Source> ? 1 : Step::kInFlight;

/// Whether this step takes the radii.
template <class Numbers>
__device__ inline bool takes_radii(const ByValue<Numbers>&) {
  return false;
}
template <class Numbers>
__device__ inline bool takes_radii(const Prepared<Numbers>* source) {
  return source->takes_radii;
}

/// Factor from norms to radii.
template <class Numbers>
__device__ inline double radius_scale(const ByValue<Numbers>&) {
  return 1;
}
template <class Numbers>
__device__ inline double radius_scale(const Prepared<Numbers>* source) {
  return source->radius_scale;
}

/// `sphere::usable_radii` for one sphere: 0 (a free sphere) if the scaled norm cannot be a radius.
template <class W>
__device__ inline auto taken_radius(const sphere::cuda::Totals<TangentProjection<W, W>>& sums,
                                    double scale, std::int64_t sphere_numel) {
  using A = sphere::cuda::Accumulator<W>;
  using std::sqrt;
  const auto norm = static_cast<A>(sqrt(sums.value[0]));
  if (scale == 1) return sphere::cuda::is_finite(norm) ? norm : A(0);
  const auto radius = static_cast<A>(scale * static_cast<double>(norm));
  Pack<W, 1> pack;  // rounds an element to the weight's type
  pack.set(0,
           static_cast<A>(static_cast<double>(radius) / sqrt(static_cast<double>(sphere_numel))));
  const A element = pack.get(0);
  const bool usable = sphere::cuda::is_finite(radius) && sphere::cuda::is_finite(element);
  return usable && element > 0 ? radius : A(0);
}

/// A thread's work on a layer, and its team.
struct Task {
  View view;
  sphere::cuda::Span span;
};

template <int kCapacity>
__device__ inline Task task_of(const LayerList<kCapacity>& list, int layer, std::uint32_t block) {
  const View view = sphere::cuda::view_of(list, layer);
  return {view, sphere::cuda::span_of(view, block - view.first_block)};
}

/// The multiple of the weight that is subtracted from the gradient of a free sphere: minus the base
/// optimizer's decay.
template <class A>
__device__ inline A free_coefficient(const View& view) {
  return -static_cast<A>(view.setting.weight_decay);
}

}  // namespace

template <template <class, class> class Step, int kCapacity, class Source>
static __global__ void __launch_bounds__(kThreads, kMinBlocks)
    first_pass(const LayerList<kCapacity> __grid_constant__ list,
               const Source __grid_constant__ source, void* workspace) {
  const std::uint32_t first_chunk = list.first_block[list.first_chunked];
  // This kernel takes the chunks backwards, the second forwards and the third backwards: each
  // begins with the data that the one before has read last.
  const std::uint32_t block = blockIdx.x < first_chunk
                                  ? blockIdx.x
                                  : list.first_block[list.layers] - 1 - (blockIdx.x - first_chunk);
  const auto& numbers = numbers_of(source);
  const int layer = sphere::cuda::layer_of(list, 0, block);
  const TileSettings& setting = list.settings[list.setting[layer]];
  const Worker worker = setting.worker;
  if (const auto [view, span] = task_of(list, layer, block);
      worker == Worker::kWarp && span.sphere >= view.total) {
    return;
  }

  sphere::cuda::with_types<Step>(setting, [&](auto type) {
    using S = typename decltype(type)::type;
    using W = typename S::Weight;
    using A = typename S::A;
    auto c = -static_cast<A>(setting.weight_decay);  // for a free sphere
    if (const auto [view, span] = task_of(list, layer, block);
        takes_radii(source) ||
        TangentProjection<W, W>::concerns(sphere::cuda::radius_of<A>(view, span.sphere))) {
      const TangentProjection<W, W> dots(view.weight, view.gradient, span.first);
      const auto extent = dots.extent(span.numel);
      const auto sums = sphere::cuda::team_totals(dots, extent, span.team, worker,
                                                  sphere::cuda::sums_over(dots, extent, span.team));
      if (worker == Worker::kChunk && span.team.leads()) {
        sphere::cuda::slot_at<TangentProjection<W, W>>(workspace, block - first_chunk) = sums;
      }
      c = TangentProjection<W, W>::coefficient(sums);
      if (takes_radii(source) && worker != Worker::kChunk) {
        const A radius = taken_radius<W>(sums, radius_scale(source), view.sphere_numel());
        if (!(radius > 0)) c = free_coefficient<A>(view);
        if (span.team.leads()) *sphere::cuda::radius_of<A>(view, span.sphere) = radius;
        // The team is going to read it.
        if (worker == Worker::kWarp) {
          __syncwarp();
        } else {
          __syncthreads();
        }
      }
    }
    if (worker == Worker::kChunk) return;
    Sums<A, 1> sum;
    {
      const int same_layer = forget(layer);
      const auto [view, span] = task_of(list, same_layer, forget(block));
      const S step(Arrays<W>(list, same_layer, span.first), numbers);
      sum = update<kRereads<Source>, kFirstPassInFlight<S, Source>>(step, span.numel, span.team, c);
    }
    const auto [view, span] = task_of(list, forget(layer), forget(block));
    auto* radius = sphere::cuda::radius_of<A>(view, span.sphere);
    if (!Rescaling<W, W>::concerns(radius)) return;
    const Rescaling<W, W> rescaling(view.weight, nullptr, span.first);
    const auto extent = rescaling.extent(span.numel);
    sphere::cuda::finish(
        rescaling, extent, span.team, view, radius,
        sphere::cuda::team_totals(rescaling, extent, span.team, view.setting.worker, sum, 1));
  });
}

/// Runs with one block for each chunk.
/// @param workspace  a slot for each chunk's inner products, then one for each chunk's new squares
template <template <class, class> class Step, int kCapacity, class Source>
static __global__ void __launch_bounds__(kThreads, kMinBlocks)
    second_pass(const LayerList<kCapacity> __grid_constant__ list,
                const Source __grid_constant__ source, void* workspace) {
  const std::uint32_t first_chunk = list.first_block[list.first_chunked];
  const std::uint32_t block = first_chunk + blockIdx.x;
  const auto& numbers = numbers_of(source);
  const int layer = sphere::cuda::layer_of(list, list.first_chunked, block);
  const View view = sphere::cuda::view_of(list, layer);
  const std::int64_t place = block - view.first_block;

  sphere::cuda::with_types<Step>(view.setting, [&](auto type) {
    using S = typename decltype(type)::type;
    using W = typename S::Weight;
    using A = typename S::A;
    auto* radius = sphere::cuda::radius_of<A>(view, 0);
    auto c = free_coefficient<A>(view);
    // Another block may be writing a radius that this step takes, so it must not be read here.
    bool rescales = !takes_radii(source) && Rescaling<W, W>::concerns(radius);
    if (takes_radii(source) || TangentProjection<W, W>::concerns(radius)) {
      const auto sums = sphere::cuda::slots_sum<TangentProjection<W, W>>(
          workspace, view.first_block - first_chunk, view.blocks);
      c = TangentProjection<W, W>::coefficient(sums);
      if (takes_radii(source)) {  // each block computes it; one writes it for later kernels
        const A captured = taken_radius<W>(sums, radius_scale(source), view.sphere_numel());
        rescales = captured > 0;
        if (!rescales) c = free_coefficient<A>(view);
        if (place == 0 && threadIdx.x == 0) *radius = captured;
      }
    }
    const S step(Arrays<W>(list, layer, place * view.setting.per_block), numbers);
    const int numel = sphere::cuda::chunk_numel(view, place);
    const auto sum =
        update<kRereads<Source>, S::kInFlight>(step, numel, sphere::cuda::whole_block(), c);
    if (!rescales) return;
    const Rescaling<W, W> rescaling(view.weight, nullptr, place * view.setting.per_block);
    const auto of_chunk = sphere::cuda::team_totals(
        rescaling, rescaling.extent(numel), sphere::cuda::whole_block(), Worker::kChunk, sum, 1);
    if (threadIdx.x == 0) {
      sphere::cuda::slot_at<Rescaling<W, W>>(workspace, gridDim.x + blockIdx.x) = of_chunk;
    }
  });
}

}  // namespace lawn::detail::folded::cuda
