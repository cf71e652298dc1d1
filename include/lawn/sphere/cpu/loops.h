// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/sphere/cpu/instruction_set.h>

// A compiler without OpenMP's SIMD pragmas may say so; the loops are right without them.
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#endif

/// The loops over elements, each to be called by `run<Loop>`. Sums are taken in the elements' own
/// type over blocks of `kSumBlock`, and from block to block in double: 10^8 elements lose nothing
/// visible. Within a block several sums run side by side, since one would wait for its own
/// addition.
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

constexpr std::int64_t kSumBlock = 2048;

/// <g, w> and <w, w>
struct InnerProducts {
  template <class T>
  LAWN_LOOP static Sums run(const T* g, const T* w, std::int64_t numel) {
    constexpr std::int64_t kHalf = kSumBlock / 2;
    Sums sums;
    std::int64_t i = 0;
    for (; i + kSumBlock <= numel; i += kSumBlock) {
      T gw0 = 0, gw1 = 0, ww0 = 0, ww1 = 0;
#pragma omp simd reduction(+ : gw0, gw1, ww0, ww1)
      for (std::int64_t j = i; j < i + kHalf; ++j) {
        gw0 += g[j] * w[j];
        ww0 += w[j] * w[j];
        gw1 += g[j + kHalf] * w[j + kHalf];
        ww1 += w[j + kHalf] * w[j + kHalf];
      }
      sums += {static_cast<double>(gw0 + gw1), static_cast<double>(ww0 + ww1)};
    }
    T gw = 0, ww = 0;
#pragma omp simd reduction(+ : gw, ww)
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
    constexpr std::int64_t kQuarter = kSumBlock / 4;
    double sum = 0;
    std::int64_t i = 0;
    for (; i + kSumBlock <= numel; i += kSumBlock) {
      T s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
      for (std::int64_t j = i; j < i + kQuarter; ++j) {
        s0 += w[j] * w[j];
        s1 += w[j + kQuarter] * w[j + kQuarter];
        s2 += w[j + 2 * kQuarter] * w[j + 2 * kQuarter];
        s3 += w[j + 3 * kQuarter] * w[j + 3 * kQuarter];
      }
      sum += static_cast<double>((s0 + s1) + (s2 + s3));
    }
    T rest = 0;
#pragma omp simd reduction(+ : rest)
    for (std::int64_t j = i; j < numel; ++j) rest += w[j] * w[j];
    return sum + static_cast<double>(rest);
  }
};

/// g <- g - c w
struct Subtract {
  template <class T>
  LAWN_LOOP static void run(T* g, const T* w, std::int64_t numel, T c) {
#pragma omp simd
    for (std::int64_t j = 0; j < numel; ++j) g[j] -= c * w[j];
  }
};

/// w <- s w
struct Scale {
  template <class T>
  LAWN_LOOP static void run(T* w, std::int64_t numel, T s) {
#pragma omp simd
    for (std::int64_t j = 0; j < numel; ++j) w[j] *= s;
  }
};

}  // namespace lawn::sphere::cpu

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
