// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/elements.h>
#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/cpu/loops.h>
#include <lawn/sphere/cpu/stages.h>
#include <lawn/sphere/flat.h>

/// Centring of rows that are plain memory, on the CPU. A row is read from memory once and found in
/// the cache the second time. The bits are the same for any number of threads.
/// `companions/mimicnorm/center_rows.h` has the mathematics.
namespace lawn::detail::mimicnorm::cpu {

/// Number of elements that are summed in their own type; the sums of these blocks are added in
/// double.
constexpr std::int64_t kSumBlock = 512;

struct SumOfElements {
  template <class T>
  LAWN_LOOP static double run(const T* w, std::int64_t numel) {
    double total = 0;
    std::int64_t i = 0;
    for (; i + kSumBlock <= numel; i += kSumBlock) {
      T sum = 0;
      LAWN_SIMD(reduction(+ : sum))
      for (std::int64_t j = i; j < i + kSumBlock; ++j) sum += w[j];
      total += static_cast<double>(sum);
    }
    T rest = 0;
    LAWN_SIMD(reduction(+ : rest))
    for (std::int64_t j = i; j < numel; ++j) rest += w[j];
    return total + static_cast<double>(rest);
  }
};

struct SubtractMean {
  template <class T>
  LAWN_LOOP static void run(T* w, std::int64_t numel, T mean) {
    LAWN_SIMD()
    for (std::int64_t j = 0; j < numel; ++j) w[j] -= mean;
  }
};

/// The sum is passed from stage to stage in the field of <w, w>.
inline sphere::cpu::Sums sum_of_row(const sphere::Flat& rows, std::int64_t /*row*/,
                                    std::int64_t begin, std::int64_t end,
                                    const sphere::cpu::Sums& /*before*/) {
  return sphere::cpu::in_accumulation_type(rows, [&](auto zero) {
    sphere::cpu::Elements<decltype(zero)> weight(rows.weight, rows.weight_dtype);
    sphere::cpu::Sums sums;
    sphere::cpu::for_each_block(
        begin, end, weight.in_place(), [&](std::int64_t first, std::int64_t numel) {
          sums.ww += sphere::cpu::run_loop<SumOfElements>(weight.read(first, numel), numel);
        });
    return sums;
  });
}

inline sphere::cpu::Sums subtract_mean_of_row(const sphere::Flat& rows, std::int64_t /*row*/,
                                              std::int64_t begin, std::int64_t end,
                                              const sphere::cpu::Sums& sums) {
  return sphere::cpu::in_accumulation_type(rows, [&](auto zero) {
    using T = decltype(zero);
    const auto mean = static_cast<T>(sums.ww / static_cast<double>(rows.sphere_numel));
    if (!std::isfinite(mean)) return sphere::cpu::Sums();
    sphere::cpu::Elements<T> weight(rows.weight, rows.weight_dtype);
    sphere::cpu::for_each_block(
        begin, end, weight.in_place(), [&](std::int64_t first, std::int64_t numel) {
          sphere::cpu::run_loop<SubtractMean>(weight.read(first, numel), numel, mean);
          weight.write(first, numel);
        });
    return sphere::cpu::Sums();
  });
}

/// @param rows  each sphere is a row
inline void center_rows_(const std::vector<sphere::Flat>& rows) {
  sphere::cpu::for_each_sphere(rows, sum_of_row, subtract_mean_of_row);
}

}  // namespace lawn::detail::mimicnorm::cpu
