// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <lawn/optim/folded/step.h>
#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/elements.h>
#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/cpu/stages.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#endif

/// The folded steps of the CPU: a sphere that a core's cache holds is read from memory once.
namespace lawn::folded::cpu {

/// What a step does to an element, in the type of its arithmetic. `c` is what of the weight is
/// taken off the gradient.
template <class T>
struct AdamFactors {
  T c, eps, step_size, decay;
  T new_first;               ///< 1 - beta1, subtracted in double
  T old_second, new_second;  ///< beta2 and 1 - beta2
  T of_root;                 ///< 1 / bias_correction2_sqrt
};

template <class T>
struct SGDFactors {
  T c, of_old, of_new;         ///< momentum <- of_old momentum + of_new g'
  T of_gradient, of_momentum;  ///< w <- w - of_gradient g' - of_momentum momentum
};

/// x <- sqrt(x), `numel` a multiple of 4. A loop over std::sqrt is a call for each element, since
/// that may set errno; as wide as SSE, which a wider instruction set does not outrun here.
template <class T>
LAWN_LOOP void square_roots(T* x, std::int64_t numel) {
#if defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) {
    for (std::int64_t i = 0; i < numel; i += 4) {
      _mm_storeu_ps(x + i, _mm_sqrt_ps(_mm_loadu_ps(x + i)));
    }
  } else {
    for (std::int64_t i = 0; i < numel; i += 2) {
      _mm_storeu_pd(x + i, _mm_sqrt_pd(_mm_loadu_pd(x + i)));
    }
  }
#else
  for (std::int64_t i = 0; i < numel; ++i) x[i] = std::sqrt(x[i]);
#endif
}

/// Adam's update; returns ||w||^2 after it.
struct UpdateByAdam {
  template <class T>
  LAWN_LOOP static double run(T* w, const T* g, T* m, T* v, std::int64_t numel, AdamFactors<T> f) {
    constexpr std::int64_t kBlock = 1024;
    T roots[kBlock];
    double sum = 0;
    for (std::int64_t i = 0; i < numel; i += kBlock) {
      const std::int64_t block = std::min(kBlock, numel - i);
#pragma omp simd
      for (std::int64_t j = 0; j < block; ++j) {
        const T gradient = g[i + j] - f.c * w[i + j];
        const T second = f.old_second * v[i + j] + f.new_second * gradient * gradient;
        m[i + j] += f.new_first * (gradient - m[i + j]);
        v[i + j] = second;
        roots[j] = second;
      }
      const std::int64_t rounded_up = (block + 3) / 4 * 4;
      for (std::int64_t j = block; j < rounded_up; ++j) roots[j] = 0;
      square_roots(roots, rounded_up);
      T ww = 0;
#pragma omp simd reduction(+ : ww)
      for (std::int64_t j = 0; j < block; ++j) {
        const T denominator = f.of_root * roots[j] + f.eps;
        const T weight = f.decay * w[i + j] - f.step_size * m[i + j] / denominator;
        w[i + j] = weight;
        ww += weight * weight;
      }
      sum += static_cast<double>(ww);
    }
    return sum;
  }
};

/// SGD's update with momentum; returns ||w||^2 after it.
struct UpdateByMomentum {
  template <class T>
  LAWN_LOOP static double run(T* w, const T* g, T* m, std::int64_t numel, SGDFactors<T> f) {
    double sum = 0;
    for (std::int64_t i = 0; i < numel; i += sphere::cpu::kStream) {
      const std::int64_t end = std::min(i + sphere::cpu::kStream, numel);
      T ww = 0;
#pragma omp simd reduction(+ : ww)
      for (std::int64_t j = i; j < end; ++j) {
        const T gradient = g[j] - f.c * w[j];
        const T momentum = f.of_old * m[j] + f.of_new * gradient;
        const T weight = w[j] - (f.of_gradient * gradient + f.of_momentum * momentum);
        m[j] = momentum;
        w[j] = weight;
        ww += weight * weight;
      }
      sum += static_cast<double>(ww);
    }
    return sum;
  }
};

/// SGD's update without momentum; returns ||w||^2 after it.
struct UpdateByGradient {
  template <class T>
  LAWN_LOOP static double run(T* w, const T* g, std::int64_t numel, SGDFactors<T> f) {
    double sum = 0;
    for (std::int64_t i = 0; i < numel; i += sphere::cpu::kStream) {
      const std::int64_t end = std::min(i + sphere::cpu::kStream, numel);
      T ww = 0;
#pragma omp simd reduction(+ : ww)
      for (std::int64_t j = i; j < end; ++j) {
        const T weight = w[j] - f.of_gradient * (g[j] - f.c * w[j]);
        w[j] = weight;
        ww += weight * weight;
      }
      sum += static_cast<double>(ww);
    }
    return sum;
  }
};

namespace detail {

using sphere::cpu::Elements;
using sphere::cpu::for_each_block;
using sphere::cpu::in_accumulation_type;
using sphere::cpu::run;
using sphere::cpu::Sums;

/// What of the weight is taken off the gradient: its radial part, or on a free sphere nothing but
/// what the base optimizer's weight decay adds.
template <class T>
T coefficient(const Layer& layer, std::int64_t sphere, const Sums& sums) {
  if (!(sphere::cpu::radius<T>(layer, sphere) > 0)) return static_cast<T>(-layer.weight_decay);
  const auto quotient = static_cast<T>(sums.gw / sums.ww);
  return std::isfinite(quotient) ? quotient : T(0);
}

inline Sums update(const Layer& layer, std::int64_t sphere, std::int64_t begin, std::int64_t end,
                   const Sums& sums, const Adam& step) {
  return in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    AdamFactors<T> factors{};
    factors.c = coefficient<T>(layer, sphere, sums);
    factors.eps = static_cast<T>(step.eps);
    factors.step_size = static_cast<T>(step.step_size);
    factors.decay = static_cast<T>(step.decay);
    factors.new_first = static_cast<T>(1 - step.beta1);
    factors.old_second = static_cast<T>(step.beta2);
    factors.new_second = static_cast<T>(1 - step.beta2);
    factors.of_root = static_cast<T>(1 / step.bias_correction2_sqrt);
    Elements<T> w(layer.weight, layer.weight_dtype);
    Elements<T> g(layer.gradient, layer.weight_dtype);
    Elements<T> m(layer.first_moment, layer.weight_dtype);
    Elements<T> v(layer.second_moment, layer.weight_dtype);
    Sums after;
    for_each_block(begin, end, w.in_place(), [&](std::int64_t i, std::int64_t n) {
      after.ww +=
          run<UpdateByAdam>(w.read(i, n), g.read(i, n), m.read(i, n), v.read(i, n), n, factors);
      w.write(i, n);
      m.write(i, n);
      v.write(i, n);
    });
    return after;
  });
}

inline Sums update(const Layer& layer, std::int64_t sphere, std::int64_t begin, std::int64_t end,
                   const Sums& sums, const SGD& step) {
  return in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    const bool plain = step.momentum == 0 || step.nesterov;  // moves by the gradient itself
    const double of_momentum = step.nesterov ? step.lr * step.momentum : step.lr;
    const SGDFactors<T> factors{coefficient<T>(layer, sphere, sums),
                                static_cast<T>(step.first ? 0 : step.momentum),
                                static_cast<T>(step.first ? 1 : 1 - step.dampening),
                                static_cast<T>(plain ? step.lr : 0), static_cast<T>(of_momentum)};
    Elements<T> w(layer.weight, layer.weight_dtype);
    Elements<T> g(layer.gradient, layer.weight_dtype);
    Elements<T> m(layer.first_moment, layer.weight_dtype);
    Sums after;
    for_each_block(begin, end, w.in_place(), [&](std::int64_t i, std::int64_t n) {
      if (layer.first_moment == nullptr) {
        after.ww += run<UpdateByGradient>(w.read(i, n), g.read(i, n), n, factors);
      } else {
        after.ww += run<UpdateByMomentum>(w.read(i, n), g.read(i, n), m.read(i, n), n, factors);
        m.write(i, n);
      }
      w.write(i, n);
    });
    return after;
  });
}

}  // namespace detail

/// One step of all `layers`.
/// @tparam Step  Adam or SGD
template <class Step>
void step(const std::vector<Layer>& layers, const Step& step) {
  sphere::cpu::for_each_sphere(
      layers, sphere::cpu::inner_products,
      [&](const Layer& layer, std::int64_t sphere, std::int64_t begin, std::int64_t end,
          const detail::Sums& sums) {
        return detail::update(layer, sphere, begin, end, sums, step);
      },
      sphere::cpu::scale_to_radius);
}

}  // namespace lawn::folded::cpu

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
