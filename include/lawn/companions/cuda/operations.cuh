// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/companions/cuda/lists.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/tuning.h>
#include <lawn/sphere/cuda/operations.cuh>
#include <lawn/sphere/cuda/packs.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// The companions' operations on elements. `Centring` is an operation in the sense of
/// `sphere/cuda/operations.cuh`. The others are elementwise. Such an operation is made for a run of
/// elements of a list's entry, and has
///   kWidth, kInFlight              elements of a pack; packs that a thread has in flight
///   kMixesDtypes                false: the dtype of the tensor that is changed says all
///   extent(numel), load(w, i)   its arrays, together
///   apply(i, packs)             the change of elements from i on
namespace lawn::detail::companions::cuda {
namespace {

using sphere::cuda::Accumulator;
using sphere::cuda::Extent;
using sphere::cuda::Pack;
using sphere::cuda::Sums;
using sphere::cuda::Width;

/// w <- w - mean(w), where that is finite
template <class W, class>
struct Centring : sphere::cuda::OfWeight<W> {
  using typename sphere::cuda::OfWeight<W>::A;
  static constexpr sphere::cuda::Needs kNeeds{};
  static constexpr bool kPerElement = true;
  static constexpr bool kProducts = false;

  using sphere::cuda::OfWeight<W>::OfWeight;

  __device__ static bool concerns(const A*) { return true; }

  template <int kN>
  __device__ static void add(const Pack<W, kN>& pack, Sums<A, 1>& sums) {
#pragma unroll
    for (int k = 0; k < kN; ++k) sums.value[0] += pack.get(k);
  }

  /// The mean.
  __device__ static A factor(const Sums<double, 1>& sums, const A*,
                             const sphere::cuda::TileSettings&, std::int64_t numel) {
    const auto mean = static_cast<A>(sums.value[0] / static_cast<double>(numel));
    return sphere::cuda::is_finite(mean) ? mean : A(0);
  }

  template <int kN>
  __device__ void apply(int i, Pack<W, kN>& pack, A mean) const {
#pragma unroll
    for (int k = 0; k < kN; ++k) pack.set(k, pack.get(k) - mean);
    sphere::cuda::store<kN>(this->weight + i, pack);
  }
};

/// w <- 0 where pruned; every other element keeps its bits
template <class W, class>
struct Zeroing {
  static constexpr int kWidth = sphere::cuda::kPackWidth<W>;
  static constexpr int kInFlight = sphere::cuda::kPacksInFlight<kWidth>;
  static constexpr bool kMixesDtypes = false;

  template <int kN>
  struct Packs {
    Pack<W, kN> elements;
    Pack<std::uint8_t, kN> pruned;
  };

  W* elements;
  const std::uint8_t* pruned;

  template <int kCapacity>
  __device__ Zeroing(const PrunedList<kCapacity>& list, int at, std::int64_t first)
      : elements(static_cast<W*>(list.elements[at]) + first), pruned(list.pruned[at] + first) {}

  __device__ Extent extent(int numel) const {
    return sphere::cuda::extent_of<kWidth>(numel, elements, pruned);
  }

  template <int kN>
  __device__ Packs<kN> load(Width<kN>, int i) const {
    return {sphere::cuda::load<kN>(elements + i), sphere::cuda::load<kN>(pruned + i)};
  }

  template <int kN>
  __device__ void apply(int i, Packs<kN>& packs) const {
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      if (packs.pruned.element[k] != 0) packs.elements.set(k, 0);
    }
    sphere::cuda::store<kN>(elements + i, packs.elements);
  }
};

/// g <- g + rho (w - z + u), rounded once
template <class W, class>
struct Penalty {
  using A = Accumulator<W>;
  static constexpr int kWidth = sphere::cuda::kPackWidth<A>;
  static constexpr int kInFlight = sphere::cuda::kPenaltyPacksInFlight;
  static constexpr bool kMixesDtypes = false;

  template <int kN>
  struct Packs {
    Pack<W, kN> weight;
    Pack<W, kN> gradient;
    Pack<A, kN> target;
    Pack<A, kN> dual;
  };

  const W* weight;
  W* gradient;
  const A* target;
  const A* dual;
  A rho;

  template <int kCapacity>
  __device__ Penalty(const PenaltyList<kCapacity>& list, int at, std::int64_t first)
      : weight(static_cast<const W*>(list.weight[at]) + first),
        gradient(static_cast<W*>(list.gradient[at]) + first),
        target(static_cast<const A*>(list.target[at]) + first),
        dual(static_cast<const A*>(list.dual[at]) + first),
        rho(static_cast<A>(list.rho)) {}

  __device__ Extent extent(int numel) const {
    return sphere::cuda::extent_of<kWidth>(numel, weight, gradient, target, dual);
  }

  template <int kN>
  __device__ Packs<kN> load(Width<kN>, int i) const {
    return {sphere::cuda::load<kN>(weight + i), sphere::cuda::load<kN>(gradient + i),
            sphere::cuda::load<kN>(target + i), sphere::cuda::load<kN>(dual + i)};
  }

  template <int kN>
  __device__ void apply(int i, Packs<kN>& packs) const {
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      const A penalty = packs.weight.get(k) - packs.target.get(k) + packs.dual.get(k);
      packs.gradient.set(k, packs.gradient.get(k) + rho * penalty);
    }
    sphere::cuda::store<kN>(gradient + i, packs.gradient);
  }
};

}  // namespace
}  // namespace lawn::detail::companions::cuda
