// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include <lawn/folded/step.h>
#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/elements.h>
#include <lawn/sphere/cpu/flush_subnormals.h>
#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/cpu/stages.h>

/// The folded steps of the CPU. A sphere that a core's cache holds is read from memory once.
namespace lawn::detail::folded::cpu {

/// The factors of a step, in the type of its arithmetic. `c` is the multiple of the weight that is
/// subtracted from the gradient.
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

/// Adam's update; returns ||w||^2 after it.
struct UpdateByAdam {
  template <class T>
  LAWN_LOOP static double run(T* w, const T* g, T* m, T* v, std::int64_t numel, AdamFactors<T> f) {
    double sum = 0;
    for (std::int64_t i = 0; i < numel; ++i) {
      const T gradient = g[i] - f.c * w[i];
      m[i] += f.new_first * (gradient - m[i]);
      v[i] = f.old_second * v[i] + f.new_second * gradient * gradient;
      const T denominator = f.of_root * std::sqrt(v[i]) + f.eps;
      w[i] = f.decay * w[i] - f.step_size * m[i] / denominator;
      sum += static_cast<double>(w[i]) * static_cast<double>(w[i]);
    }
    return sum;
  }
};

#if defined(__x86_64__) && defined(__GNUC__)
inline bool has_avx2_and_fma() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
}

/// `UpdateByAdam`, vectorised by hand. A compiler may not vectorise std::sqrt, which may set errno.
/// If the weights fit a cache, the unit that divides and takes roots limits the speed. Therefore
/// the root comes from the estimate of 1 / sqrt(x) and one Newton step, with an error of up to 2
/// units in the last place.
__attribute__((target("avx2,fma"))) inline double update_by_adam_avx2(float* w, const float* g,
                                                                      float* m, float* v,
                                                                      std::int64_t numel,
                                                                      AdamFactors<float> f) {
  constexpr std::int64_t kLanes = 8;
  const __m256 c = _mm256_set1_ps(f.c);
  const __m256 new_first = _mm256_set1_ps(f.new_first);
  const __m256 old_second = _mm256_set1_ps(f.old_second);
  const __m256 new_second = _mm256_set1_ps(f.new_second);
  const __m256 half_of_root = _mm256_set1_ps(f.of_root / 2);
  const __m256 eps = _mm256_set1_ps(f.eps);
  const __m256 step_size = _mm256_set1_ps(f.step_size);
  const __m256 decay = _mm256_set1_ps(f.decay);
  const __m256 three = _mm256_set1_ps(3);
  const __m256 least = _mm256_set1_ps(std::numeric_limits<float>::min());  // 1 / sqrt(0) is no help
  const __m256 infinity = _mm256_set1_ps(std::numeric_limits<float>::infinity());
  double sum = 0;
  std::int64_t i = 0;
  while (i + kLanes <= numel) {
    const std::int64_t end = std::min(numel - kLanes, i + sphere::cpu::kStream - kLanes);
    __m256 squares = _mm256_setzero_ps();
    for (; i <= end; i += kLanes) {
      const __m256 weight = _mm256_loadu_ps(w + i);
      const __m256 gradient = _mm256_fnmadd_ps(c, weight, _mm256_loadu_ps(g + i));
      __m256 first = _mm256_loadu_ps(m + i);
      first = _mm256_fmadd_ps(new_first, _mm256_sub_ps(gradient, first), first);
      const __m256 second = _mm256_fmadd_ps(_mm256_mul_ps(new_second, gradient), gradient,
                                            _mm256_mul_ps(old_second, _mm256_loadu_ps(v + i)));
      // sqrt(x) = x r (3 - x r^2) / 2 for an estimate r of 1 / sqrt(x), except for an infinite x
      const __m256 positive = _mm256_max_ps(least, second);  // NaN stays NaN
      const __m256 estimate = _mm256_rsqrt_ps(positive);
      const __m256 root = _mm256_mul_ps(positive, estimate);
      const __m256 twice_root = _mm256_mul_ps(root, _mm256_fnmadd_ps(root, estimate, three));
      __m256 denominator = _mm256_fmadd_ps(half_of_root, twice_root, eps);
      denominator =
          _mm256_blendv_ps(denominator, second, _mm256_cmp_ps(second, infinity, _CMP_EQ_OQ));
      const __m256 move = _mm256_div_ps(_mm256_mul_ps(step_size, first), denominator);
      const __m256 moved = _mm256_fmsub_ps(decay, weight, move);
      _mm256_storeu_ps(m + i, first);
      _mm256_storeu_ps(v + i, second);
      _mm256_storeu_ps(w + i, moved);
      squares = _mm256_fmadd_ps(moved, moved, squares);
    }
    float lanes[kLanes];
    _mm256_storeu_ps(lanes, squares);
    for (const float lane : lanes) sum += static_cast<double>(lane);
  }
  return sum + UpdateByAdam::run(w + i, g + i, m + i, v + i, numel - i, f);
}
#endif

/// Adam's update, with the widest instruction set of this machine.
template <class T>
double update_by_adam(T* w, const T* g, T* m, T* v, std::int64_t numel, const AdamFactors<T>& f) {
#if defined(__x86_64__) && defined(__GNUC__)
  if constexpr (std::is_same_v<T, float>) {
    static const bool wide = has_avx2_and_fma();
    if (wide) return update_by_adam_avx2(w, g, m, v, numel, f);
  }
#endif
  return UpdateByAdam::run(w, g, m, v, numel, f);
}

/// SGD's update with momentum; returns ||w||^2 after it.
struct UpdateByMomentum {
  template <class T>
  LAWN_LOOP static double run(T* w, const T* g, T* m, std::int64_t numel, SGDFactors<T> f) {
    double sum = 0;
    for (std::int64_t i = 0; i < numel; i += sphere::cpu::kStream) {
      const std::int64_t end = std::min(i + sphere::cpu::kStream, numel);
      T ww = 0;
      LAWN_SIMD(reduction(+ : ww))
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
      LAWN_SIMD(reduction(+ : ww))
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
using sphere::cpu::FlushSubnormals;
using sphere::cpu::for_each_block;
using sphere::cpu::in_accumulation_type;
using sphere::cpu::run_loop;
using sphere::cpu::Sums;

/// The multiple of the weight that is subtracted from the gradient: the radial part; on a free
/// sphere the negative of the weight decay, which is thereby added.
template <class T>
T coefficient(const FlatLayer& layer, std::int64_t sphere, const Sums& sums) {
  if (!(sphere::cpu::radius<T>(layer, sphere) > 0)) return static_cast<T>(-layer.weight_decay);
  const auto quotient = static_cast<T>(sums.gw / sums.ww);
  return std::isfinite(quotient) ? quotient : T(0);
}

inline Sums update(const FlatLayer& layer, std::int64_t sphere, std::int64_t begin,
                   std::int64_t end, const Sums& sums, const Adam& step) {
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
    const FlushSubnormals flush(sphere::cpu::radius<T>(layer, sphere));
    Elements<T> w(layer.weight, layer.weight_dtype);
    Elements<T> g(layer.gradient, layer.weight_dtype);
    Elements<T> m(layer.first_moment, layer.weight_dtype);
    Elements<T> v(layer.second_moment, layer.weight_dtype);
    Sums after;
    for_each_block(begin, end, w.in_place(), [&](std::int64_t i, std::int64_t n) {
      T* const weights = w.read(i, n);
      const double sum =
          update_by_adam(weights, g.read(i, n), m.read(i, n), v.read(i, n), n, factors);
      after.ww += sphere::cpu::right_sum_of_squares(sum, weights, n);
      w.write(i, n);
      m.write(i, n);
      v.write(i, n);
    });
    return after;
  });
}

inline Sums update(const FlatLayer& layer, std::int64_t sphere, std::int64_t begin,
                   std::int64_t end, const Sums& sums, const SGD& step) {
  return in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    const bool plain = step.momentum == 0 || step.nesterov;  // moves by the gradient itself
    const double of_momentum = step.nesterov ? step.lr * step.momentum : step.lr;
    const SGDFactors<T> factors{coefficient<T>(layer, sphere, sums),
                                static_cast<T>(step.first ? 0 : step.momentum),
                                static_cast<T>(step.first ? 1 : 1 - step.dampening),
                                static_cast<T>(plain ? step.lr : 0), static_cast<T>(of_momentum)};
    const FlushSubnormals flush(sphere::cpu::radius<T>(layer, sphere));
    Elements<T> w(layer.weight, layer.weight_dtype);
    Elements<T> g(layer.gradient, layer.weight_dtype);
    Elements<T> m(layer.first_moment, layer.weight_dtype);
    Sums after;
    for_each_block(begin, end, w.in_place(), [&](std::int64_t i, std::int64_t n) {
      T* const weights = w.read(i, n);
      double sum = 0;
      if (layer.first_moment == nullptr) {
        sum = run_loop<UpdateByGradient>(weights, g.read(i, n), n, factors);
      } else {
        sum = run_loop<UpdateByMomentum>(weights, g.read(i, n), m.read(i, n), n, factors);
        m.write(i, n);
      }
      after.ww += sphere::cpu::right_sum_of_squares(sum, weights, n);
      w.write(i, n);
    });
    return after;
  });
}

}  // namespace detail

/// Steps all `layers` once.
/// @tparam Step  Adam or SGD
template <class Step>
void step(const std::vector<FlatLayer>& layers, const Step& step) {
  sphere::cpu::for_each_sphere(
      layers, sphere::cpu::inner_products,
      [&](const FlatLayer& layer, std::int64_t sphere, std::int64_t begin, std::int64_t end,
          const detail::Sums& sums) {
        return detail::update(layer, sphere, begin, end, sums, step);
      },
      sphere::cpu::scale_to_radius);
}

}  // namespace lawn::detail::folded::cpu
