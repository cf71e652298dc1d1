// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <cuda_runtime.h>

#include <lawn/folded/cuda/layer_list.h>
#include <lawn/sphere/cuda/tuning.h>
#include <lawn/sphere/cuda/packs.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// The optimizers' updates of an element. A step is made for one run of elements; it has
///   Weight, A                   type of an element, of the arithmetic
///   kWidth, kInFlight              elements of a pack; packs that a thread has in flight
///   Numbers                     what to do: a kernel's parameter, or in memory
///   kMixesDtypes                false: all arrays are of one dtype
///   extent(numel), load(w, i)   its arrays, together
///   update(i, packs, c, sum)    the change of elements from i on, whose gradient is g - c w; adds
///                               the squares of the new weights to `sum`. A template on whether
///                               the numbers are in memory
namespace lawn::detail::folded::cuda {
namespace {

using sphere::cuda::Accumulator;
using sphere::cuda::Extent;
using sphere::cuda::Pack;
using sphere::cuda::Sums;
using sphere::cuda::Width;

template <class W>
constexpr int kStepWidth = sphere::cuda::kStepPackBytes / static_cast<int>(sizeof(W));
template <class W>
constexpr int kStepInFlight = std::is_same_v<W, double> ? 1 : sphere::cuda::kStepPacksInFlight;

/// The arrays of a layer's entry in the list, from element `first` on.
template <class W>
struct Arrays {
  W* weight;
  const W* gradient;
  W* first_moment;
  W* second_moment;

  template <int kCapacity>
  __device__ Arrays(const LayerList<kCapacity>& list, int layer, std::int64_t first)
      : weight(static_cast<W*>(list.weight[layer]) + first),
        gradient(static_cast<const W*>(list.gradient[layer]) + first),
        first_moment(from(list.first_moment[layer], first)),
        second_moment(from(list.second_moment[layer], first)) {}

  __device__ static W* from(void* array, std::int64_t first) {
    return array == nullptr ? nullptr : static_cast<W*>(array) + first;
  }
};

/// The step's numbers in the type A.
template <class A, template <class> class Numbers>
__device__ inline const Numbers<A>& in_type(const InBothTypes<Numbers>& numbers) {
  if constexpr (std::is_same_v<A, double>) {
    return numbers.in_float64;
  } else {
    return numbers.in_float32;
  }
}

/// Numbers in shared memory are read each time that they are needed, since keeping them would take
/// more registers than there are. Numbers in a kernel's parameters need no registers: they are
/// operands of instructions.
template <bool kRereads, class Numbers>
using ReadAs = std::conditional_t<kRereads, volatile Numbers, Numbers>;

/// Puts a new weight into place k, and adds its square, rounded as it will be read again, to `sum`.
template <class W, int kN, class A>
__device__ inline void put_weight(Pack<W, kN>& pack, int k, A weight, Sums<A, 1>& sum) {
  pack.set(k, weight);
  const A rounded = pack.get(k);
  sum.value[0] += rounded * rounded;
}

/// `folded::Adam`
template <class W, class>
struct AdamStep {
  using Weight = W;
  using A = Accumulator<W>;
  using Numbers = InBothTypes<AdamNumbers>;
  static constexpr int kWidth = kStepWidth<W>;
  static constexpr int kInFlight = kStepInFlight<W>;
  static constexpr bool kMixesDtypes = false;

  template <int kN>
  struct Packs {
    Pack<W, kN> weight;
    Pack<W, kN> gradient;
    Pack<W, kN> first_moment;
    Pack<W, kN> second_moment;
  };

  Arrays<W> arrays;
  const AdamNumbers<A>& numbers;

  __device__ AdamStep(const Arrays<W>& all, const Numbers& in_both)
      : arrays(all), numbers(in_type<A>(in_both)) {}

  __device__ Extent extent(int numel) const {
    return sphere::cuda::extent_of<kWidth>(numel, arrays.weight, arrays.gradient,
                                           arrays.first_moment, arrays.second_moment);
  }

  template <int kN>
  __device__ Packs<kN> load(Width<kN>, int i) const {
    return {sphere::cuda::load<kN>(arrays.weight + i), sphere::cuda::load<kN>(arrays.gradient + i),
            sphere::cuda::load<kN>(arrays.first_moment + i),
            sphere::cuda::load<kN>(arrays.second_moment + i)};
  }

  template <bool kRereads, int kN>
  __device__ void update(int i, Packs<kN>& packs, A c, Sums<A, 1>& sum) const {
    using std::sqrt;
    const ReadAs<kRereads, AdamNumbers<A>>& by = numbers;
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      const A w = packs.weight.get(k);
      const A g = packs.gradient.get(k) - c * w;
      const A m = by.beta1 * packs.first_moment.get(k) + by.one_minus_beta1 * g;
      const A v = by.beta2 * packs.second_moment.get(k) + by.one_minus_beta2 * g * g;
      packs.first_moment.set(k, m);
      packs.second_moment.set(k, v);
      // Uses m and v before they are rounded, as LibTorch's fused step does.
      const A change = by.step_size * m / (sqrt(v) * by.of_root + by.eps);
      put_weight(packs.weight, k, by.decay * w - change, sum);
    }
    sphere::cuda::store<kN>(arrays.first_moment + i, packs.first_moment);
    sphere::cuda::store<kN>(arrays.second_moment + i, packs.second_moment);
    sphere::cuda::store<kN>(arrays.weight + i, packs.weight);
  }
};

/// `folded::SGD`, with and without momentum.
template <class W, class>
struct SGDStep {
  using Weight = W;
  using A = Accumulator<W>;
  using Numbers = InBothTypes<SGDNumbers>;
  static constexpr int kWidth = kStepWidth<W>;
  static constexpr int kInFlight = kStepInFlight<W>;
  static constexpr bool kMixesDtypes = false;

  template <int kN>
  struct Packs {
    Pack<W, kN> weight;
    Pack<W, kN> gradient;
    Pack<W, kN> momentum;
  };

  Arrays<W> arrays;
  const SGDNumbers<A>& numbers;

  __device__ SGDStep(const Arrays<W>& all, const Numbers& in_both)
      : arrays(all), numbers(in_type<A>(in_both)) {}

  __device__ bool has_momentum() const { return arrays.first_moment != nullptr; }
  /// Whether the momentum is read: not in the first step, in which it may hold anything.
  __device__ bool reads_momentum() const { return has_momentum() && !numbers.first; }

  __device__ Extent extent(int numel) const {
    return sphere::cuda::extent_of<kWidth>(numel, arrays.weight, arrays.gradient,
                                           has_momentum() ? arrays.first_moment : arrays.weight);
  }

  template <int kN>
  __device__ Packs<kN> load(Width<kN>, int i) const {
    Packs<kN> packs{
        sphere::cuda::load<kN>(arrays.weight + i), sphere::cuda::load<kN>(arrays.gradient + i), {}};
    if (reads_momentum()) packs.momentum = sphere::cuda::load<kN>(arrays.first_moment + i);
    return packs;
  }

  template <bool kRereads, int kN>
  __device__ void update(int i, Packs<kN>& packs, A c, Sums<A, 1>& sum) const {
    const ReadAs<kRereads, SGDNumbers<A>>& by = numbers;
    const bool looks_ahead = by.nesterov && has_momentum();
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      const A w = packs.weight.get(k);
      const A g = packs.gradient.get(k) - c * w;
      const A m = reads_momentum() ? by.momentum * packs.momentum.get(k) + by.of_gradient * g : g;
      packs.momentum.set(k, m);
      put_weight(packs.weight, k, w - by.lr * (looks_ahead ? g + by.momentum * m : m), sum);
    }
    if (has_momentum()) sphere::cuda::store<kN>(arrays.first_moment + i, packs.momentum);
    sphere::cuda::store<kN>(arrays.weight + i, packs.weight);
  }
};

}  // namespace
}  // namespace lawn::detail::folded::cuda
