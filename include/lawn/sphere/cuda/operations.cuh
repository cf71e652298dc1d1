// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/cuda/packs.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// The operations on a sphere: which arrays they read, which sums they take over it, and what
/// follows from the sums for each element. The loops and the reductions are elsewhere.
///
/// An operation is made for one run of elements, and knows its arrays. It has
///   kSums, kWidth               sums it takes; elements of a pack
///   kProducts                   whether these are of products, which may leave the range of floats
///   kMixesDtypes                whether gradients may be of another dtype than weights
///   kPerElement                 whether it changes elements
///   concerns(radius)            false: the sphere is left alone, nothing need be read
///   extent(numel), load(w, i)   its arrays, together
///   add(packs, sums)            what packs contribute to the sums, in float or double
///   factor(sums, radius, s, n)  what follows from the sums over n elements, in double; 0: none
///                               changes
///   apply(i, packs, factor)     the change of elements from i on
namespace lawn::sphere::cuda {
namespace {

/// Whether x is neither NaN nor infinite.
template <class A>
__device__ inline bool is_finite(A x) {
  return x - x == A(0);
}

/// g <- g - (<g,w> / <w,w> + weight_decay) w
template <class W, class G>
struct TangentProjection {
  using A = Accumulator<W>;
  static constexpr Needs kNeeds{/*gradient=*/true};
  static constexpr int kSums = 2;
  static constexpr bool kProducts = true;
  static constexpr int kWidth = kPackWidth<W, G>;
  static constexpr bool kMixesDtypes = true;
  static constexpr bool kPerElement = true;

  template <int kN>
  struct Packs {
    Pack<W, kN> weight;
    Pack<G, kN> gradient;
  };

  const W* weight;
  G* gradient;

  __device__ TangentProjection(void* weights, void* gradients, std::int64_t first)
      : weight(static_cast<const W*>(weights) + first),
        gradient(static_cast<G*>(gradients) + first) {}

  __device__ static bool concerns(const A* radius) { return radius == nullptr || *radius > A(0); }

  __device__ Extent extent(int numel) const { return extent_of<kWidth>(numel, weight, gradient); }

  template <int kN>
  __device__ Packs<kN> load(Width<kN>, int i) const {
    return {cuda::load<kN>(weight + i), cuda::load<kN>(gradient + i)};
  }

  template <int kN, class S>
  __device__ static void add(const Packs<kN>& packs, Sums<S, kSums>& sums) {
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      const S w = packs.weight.get(k);
      const S g = packs.gradient.get(k);
      sums.value[0] += w * w;
      sums.value[1] += g * w;
    }
  }

  /// <g,w> / <w,w>, or 0 if that is not finite.
  __device__ static A coefficient(const Sums<double, kSums>& sums) {
    const auto quotient = static_cast<A>(sums.value[1] / sums.value[0]);
    return is_finite(quotient) ? quotient : A(0);
  }

  /// The multiple of the weight that is subtracted.
  __device__ static A factor(const Sums<double, kSums>& sums, const A*, const TileSettings& setting,
                             std::int64_t) {
    return coefficient(sums) + static_cast<A>(setting.weight_decay);
  }

  template <int kN>
  __device__ void apply(int i, Packs<kN>& packs, A factor) const {
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      const A w = packs.weight.get(k);
      const A g = packs.gradient.get(k);
      packs.gradient.set(k, g - factor * w);
    }
    store<kN>(gradient + i, packs.gradient);
  }
};

/// Base of the operations on a weight alone: one array and one sum, which is of squares unless the
/// operation hides `add`.
template <class W>
struct OfWeight {
  using A = Accumulator<W>;
  static constexpr int kSums = 1;
  static constexpr bool kProducts = true;
  static constexpr int kWidth = kPackWidth<W>;
  static constexpr bool kMixesDtypes = false;

  template <int kN>
  using Packs = Pack<W, kN>;

  W* weight;

  __device__ OfWeight(void* weights, void*, std::int64_t first)
      : weight(static_cast<W*>(weights) + first) {}

  __device__ Extent extent(int numel) const { return extent_of<kWidth>(numel, weight); }

  template <int kN>
  __device__ Packs<kN> load(Width<kN>, int i) const {
    return cuda::load<kN>(weight + i);
  }

  template <int kN, class S>
  __device__ static void add(const Pack<W, kN>& pack, Sums<S, kSums>& sums) {
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      const S w = pack.get(k);
      sums.value[0] += w * w;
    }
  }

  __device__ static double norm(const Sums<double, kSums>& sums) {
    using std::sqrt;
    return sqrt(sums.value[0]);
  }
};

/// w <- R w / ||w||
template <class W, class>
struct Rescaling : OfWeight<W> {
  using typename OfWeight<W>::A;
  static constexpr Needs kNeeds{/*gradient=*/false, /*radius=*/true};
  static constexpr bool kPerElement = true;

  using OfWeight<W>::OfWeight;

  __device__ static bool concerns(const A* radius) { return radius != nullptr && *radius > A(0); }

  /// The scale. The division comes first, so that a weight in half precision is rounded once.
  __device__ static A factor(const Sums<double, 1>& sums, const A* radius, const TileSettings&,
                             std::int64_t) {
    const auto scale = static_cast<A>(*radius / OfWeight<W>::norm(sums));
    return is_finite(scale) ? scale : A(0);
  }

  template <int kN>
  __device__ void apply(int i, Pack<W, kN>& pack, A factor) const {
#pragma unroll
    for (int k = 0; k < kN; ++k) pack.set(k, pack.get(k) * factor);
    store<kN>(this->weight + i, pack);
  }
};

/// R <- ||w||
template <class W, class>
struct Norm : OfWeight<W> {
  using typename OfWeight<W>::A;
  static constexpr Needs kNeeds{/*gradient=*/false, /*radius=*/false, /*empty_spheres=*/true};
  static constexpr bool kPerElement = false;

  using OfWeight<W>::OfWeight;

  __device__ static bool concerns(const A*) { return true; }
};

}  // namespace
}  // namespace lawn::sphere::cuda
