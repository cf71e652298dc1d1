// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/flat.h>

/// The loops over elements; call each by `run_loop<Loop>`.
///
/// A long run is read as four streams side by side, 9 KiB of floats apart: a core then
/// requests more from memory at a time than along one stream (measured: a fifth to a third faster).
/// Sums are taken in the elements' own type along a stream, and in double from stream to stream:
/// over 10^8 elements no loss of accuracy is visible.
namespace lawn::sphere::cpu {

/// Inner products over a run of elements.
struct Sums {
  double gw = 0;  ///< <g, w>
  double ww = 0;  ///< <w, w>

  Sums& operator+=(const Sums& other) {
    gw += other.gw;
    ww += other.ww;
    return *this;
  }
};

/// Number of elements of a stream, and of a short one for the rest of a run. A stream is two and a
/// quarter pages of floats: streams at the same offset in their pages would share a set of the
/// cache.
constexpr std::int64_t kStream = 2048 + 256;
constexpr std::int64_t kShortStream = 256;

/// <g, w> and <w, w>
struct InnerProducts {
  template <class T>
  LAWN_LOOP static Sums run(const T* g, const T* w, std::int64_t numel) {
    Sums sums;
    std::int64_t i = 0;
    for (const std::int64_t n : {kStream, kShortStream}) {
      for (; i + 4 * n <= numel; i += 4 * n) {
        T gw0 = 0, gw1 = 0, gw2 = 0, gw3 = 0;
        T ww0 = 0, ww1 = 0, ww2 = 0, ww3 = 0;
        LAWN_SIMD(reduction(+ : gw0, gw1, gw2, gw3, ww0, ww1, ww2, ww3))
        for (std::int64_t j = i; j < i + n; ++j) {
          gw0 += g[j] * w[j];
          ww0 += w[j] * w[j];
          gw1 += g[j + n] * w[j + n];
          ww1 += w[j + n] * w[j + n];
          gw2 += g[j + 2 * n] * w[j + 2 * n];
          ww2 += w[j + 2 * n] * w[j + 2 * n];
          gw3 += g[j + 3 * n] * w[j + 3 * n];
          ww3 += w[j + 3 * n] * w[j + 3 * n];
        }
        sums.gw += (static_cast<double>(gw0) + gw1) + (static_cast<double>(gw2) + gw3);
        sums.ww += (static_cast<double>(ww0) + ww1) + (static_cast<double>(ww2) + ww3);
      }
    }
    T gw = 0, ww = 0;
    LAWN_SIMD(reduction(+ : gw, ww))
    for (std::int64_t j = i; j < numel; ++j) {
      gw += g[j] * w[j];
      ww += w[j] * w[j];
    }
    return sums += {static_cast<double>(gw), static_cast<double>(ww)};
  }
};

/// <w, w>
struct SumOfSquares {
  template <class T>
  LAWN_LOOP static double run(const T* w, std::int64_t numel) {
    double sum = 0;
    std::int64_t i = 0;
    for (const std::int64_t n : {kStream, kShortStream}) {
      for (; i + 4 * n <= numel; i += 4 * n) {
        T s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        LAWN_SIMD(reduction(+ : s0, s1, s2, s3))
        for (std::int64_t j = i; j < i + n; ++j) {
          s0 += w[j] * w[j];
          s1 += w[j + n] * w[j + n];
          s2 += w[j + 2 * n] * w[j + 2 * n];
          s3 += w[j + 3 * n] * w[j + 3 * n];
        }
        sum += (static_cast<double>(s0) + s1) + (static_cast<double>(s2) + s3);
      }
    }
    T rest = 0;
    LAWN_SIMD(reduction(+ : rest))
    for (std::int64_t j = i; j < numel; ++j) rest += w[j] * w[j];
    return sum + static_cast<double>(rest);
  }
};

/// <g, w> and <w, w> with products in double, within whose range every product of floats lies.
struct WideInnerProducts {
  template <class T>
  LAWN_LOOP static Sums run(const T* g, const T* w, std::int64_t numel) {
    double gw = 0, ww = 0;
    LAWN_SIMD(reduction(+ : gw, ww))
    for (std::int64_t j = 0; j < numel; ++j) {
      const auto wide = static_cast<double>(w[j]);
      gw += static_cast<double>(g[j]) * wide;
      ww += wide * wide;
    }
    return {gw, ww};
  }
};

/// Whether a sum over `numel` products of type T may have left the range of T; see
/// `kLeastFloatSum`.
template <class T>
bool out_of_range(double sum, std::int64_t numel) {
  if (!std::is_same_v<T, float>) return false;
  const double size = std::abs(sum);
  return !(size >= double{kLeastFloatSum} * static_cast<double>(numel) &&
           size <= double{kMostFloatSum});  // or NaN
}

/// `InnerProducts`, accurate over the whole range of floats: if products of floats leave that
/// range, the sums are taken again in double. Sums of double elements are not checked.
template <class T>
Sums inner_products_of(const T* g, const T* w, std::int64_t numel) {
  const Sums sums = run_loop<InnerProducts>(g, w, numel);
  const bool again = out_of_range<T>(sums.ww, numel) || out_of_range<T>(sums.gw, numel);
  return again ? run_loop<WideInnerProducts>(g, w, numel) : sums;
}

/// `sum`, which is the sum of squares of `w` in floats; if the squares leave the range of floats,
/// the sum taken again in double.
template <class T>
double right_sum_of_squares(double sum, const T* w, std::int64_t numel) {
  return out_of_range<T>(sum, numel) ? run_loop<WideInnerProducts>(w, w, numel).ww : sum;
}

/// `SumOfSquares`, accurate over the whole range of floats like `inner_products_of`.
template <class T>
double sum_of_squares_of(const T* w, std::int64_t numel) {
  return right_sum_of_squares(run_loop<SumOfSquares>(w, numel), w, numel);
}

/// g <- g - c w
struct Subtract {
  template <class T>
  LAWN_LOOP static void run(T* g, const T* w, std::int64_t numel, T c) {
    const std::int64_t n = kStream;
    std::int64_t i = 0;
    for (; i + 4 * n <= numel; i += 4 * n) {
      LAWN_SIMD()
      for (std::int64_t j = i; j < i + n; ++j) {
        g[j] -= c * w[j];
        g[j + n] -= c * w[j + n];
        g[j + 2 * n] -= c * w[j + 2 * n];
        g[j + 3 * n] -= c * w[j + 3 * n];
      }
    }
    LAWN_SIMD()
    for (std::int64_t j = i; j < numel; ++j) g[j] -= c * w[j];
  }
};

/// w <- s w
struct Scale {
  template <class T>
  LAWN_LOOP static void run(T* w, std::int64_t numel, T s) {
    const std::int64_t n = kStream;
    std::int64_t i = 0;
    for (; i + 4 * n <= numel; i += 4 * n) {
      LAWN_SIMD()
      for (std::int64_t j = i; j < i + n; ++j) {
        w[j] *= s;
        w[j + n] *= s;
        w[j + 2 * n] *= s;
        w[j + 3 * n] *= s;
      }
    }
    LAWN_SIMD()
    for (std::int64_t j = i; j < numel; ++j) w[j] *= s;
  }
};

}  // namespace lawn::sphere::cpu
