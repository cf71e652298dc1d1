// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/tuning.h>

/// Loops of threads over an array: wide loads with peeled ends, several in flight.
///
/// Device functions are `static` or in an unnamed namespace throughout: a program and a shared
/// library may both hold the kernels, and each must launch its own.
namespace lawn::sphere::cuda {
namespace {

/// The type in which sums over elements of type T are taken: float64 for float64, else float32.
template <class T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ inline double widen(double x) { return x; }
__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ inline void narrow(double x, double& into) { into = x; }
__device__ inline void narrow(float x, float& into) { into = x; }
__device__ inline void narrow(float x, __half& into) { into = __float2half_rn(x); }
__device__ inline void narrow(float x, __nv_bfloat16& into) { into = __float2bfloat16_rn(x); }

__device__ inline std::uint32_t to_bits(__half x) { return __half_as_ushort(x); }
__device__ inline std::uint32_t to_bits(__nv_bfloat16 x) { return __bfloat16_as_ushort(x); }
__device__ inline void from_bits(std::uint16_t bits, __half& x) { x = __ushort_as_half(bits); }
__device__ inline void from_bits(std::uint16_t bits, __nv_bfloat16& x) {
  x = __ushort_as_bfloat16(bits);
}

/// Neighbouring elements that are loaded and stored together.
template <class T, int kWidth, bool kTwoInAWord = (sizeof(T) == 2 && kWidth > 1)>
struct alignas(kWidth * sizeof(T)) [[gnu::may_alias]] Pack {
  T element[kWidth];

  __device__ Accumulator<T> get(int k) const { return widen(element[k]); }
  __device__ void set(int k, Accumulator<T> x) { narrow(x, element[k]); }
};

/// A pack of 16-bit elements, kept as words: two elements share a register, where otherwise each
/// would take one from load to use.
template <class T, int kWidth>
struct alignas(kWidth * sizeof(T)) [[gnu::may_alias]] Pack<T, kWidth, true> {
  std::uint32_t word[kWidth / 2];

  __device__ float get(int k) const {
    T x;
    from_bits(static_cast<std::uint16_t>(word[k / 2] >> (k % 2 * 16)), x);
    return widen(x);
  }
  __device__ void set(int k, float value) {
    T x;
    narrow(value, x);
    const std::uint32_t other = word[k / 2] & (0xffff0000U >> (k % 2 * 16));
    word[k / 2] = other | to_bits(x) << (k % 2 * 16);
  }
};

/// One wide load; `from` must be aligned for it. (nvcc would turn a memcpy into loads of single
/// bytes.)
template <int kWidth, class T>
__device__ inline Pack<T, kWidth> load(const T* from) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from);
}

/// One wide store; `to` must be aligned for it.
template <int kWidth, class T>
__device__ inline void store(T* to, const Pack<T, kWidth>& pack) {
  *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
}

/// Number of elements of a pack if arrays of these types are read side by side: the widest type
/// fills a load.
template <class... T>
constexpr int kPackWidth = [] {
  std::size_t widest = 1;
  ((widest = sizeof(T) > widest ? sizeof(T) : widest), ...);
  return kPackBytes / static_cast<int>(widest);
}();

/// Number of packs that a thread has in flight.
template <int kWidth>
constexpr int kPacksInFlight =
    kElementsInFlight / kWidth < kMaxPacksInFlight ? kElementsInFlight / kWidth : kMaxPacksInFlight;

/// A compile-time width as an argument.
template <int kWidth>
using Width = std::integral_constant<int, kWidth>;

/// The warps that share a run, seen from one thread.
struct Team {
  int lane;
  int warp;
  int warps;

  __device__ bool leads() const { return lane == 0 && warp == 0; }
};

/// Division of a run of elements: `head` elements one by one, then `packs` packs, then the rest one
/// by one.
struct Extent {
  int numel;
  int head;
  int packs;
};

/// Packs begin where every array is aligned for them. If the arrays are never aligned at the same
/// place, all elements are head.
template <int kWidth, class First, class... Rest>
__device__ inline Extent extent_of(int numel, const First* first, const Rest*... rest) {
  const auto misaligned = [](const auto* array) {
    const auto place = reinterpret_cast<std::uintptr_t>(array) / sizeof(*array);
    return static_cast<int>(place % kWidth);
  };
  const int offset = misaligned(first);
  const int head = offset == 0 ? 0 : kWidth - offset;
  const bool together = (true && ... && (misaligned(rest) == offset));
  if (!together || head > numel) return {numel, numel, 0};
  return {numel, head, (numel - head) / kWidth};
}

/// Calls `use(u, i, get(i))` for this thread's part of 0 <= i < count. As long as `kInFlight` items
/// are left, that many gets precede the first use; u is the index among them. They are a constant
/// distance apart, so that the addresses take one register.
template <int kInFlight, class Get, class Use>
__device__ inline void stride_loop(int count, Team team, const Get& get, const Use& use) {
  constexpr int kOfWarp = kInFlight * kLanes;
  int first = team.warp * kOfWarp + team.lane;
#pragma unroll 1
  for (; first + kOfWarp - kLanes < count; first += team.warps * kOfWarp) {
    decltype(get(0)) items[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) items[u] = get(first + u * kLanes);
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) use(u, first + u * kLanes, items[u]);
  }
#pragma unroll
  for (int u = 0; u < kInFlight - 1; ++u) {
    if (first + u * kLanes >= count) return;
    auto item = get(first + u * kLanes);
    use(u, first + u * kLanes, item);
  }
}

/// Loops over a run: `get(Width, first element)` loads that many elements of each array, and
/// `use(Width, u, first element, loaded)` works on them. Each element belongs to one thread: in a
/// later pass of the same team over the same run with the same `kInFlight`, the thread that wrote
/// an element is the one that reads it.
/// @tparam kInFlight  number of packs in flight
template <int kWidth, int kInFlight = kPacksInFlight<kWidth>, class Get, class Use>
__device__ inline void for_each_pack(const Extent& extent, Team team, const Get& get,
                                     const Use& use) {
  const int inside = extent.packs * kWidth;
  const auto pack = [&](int i) { return extent.head + i * kWidth; };
  const auto single = [&](int i) { return i < extent.head ? i : i + inside; };
  stride_loop<kInFlight>(
      extent.packs, team, [&](int i) { return get(Width<kWidth>{}, pack(i)); },
      [&](int u, int i, auto& item) { use(Width<kWidth>{}, u, pack(i), item); });
  // Either a few elements, or a misaligned run, which is too rare to be worth more code.
  stride_loop<1>(
      extent.numel - inside, team, [&](int i) { return get(Width<1>{}, single(i)); },
      [&](int u, int i, auto& item) { use(Width<1>{}, u, single(i), item); });
}

}  // namespace
}  // namespace lawn::sphere::cuda
