// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include <c10/util/ArrayRef.h>

#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/elements.h>
#include <lawn/sphere/cpu/loops.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/table.h>

/// The table of the CPU: flat layers of any dtype, each read once from memory where a cache holds
/// it, the same bits for any number of threads. Parallel where the program is compiled with OpenMP,
/// which the CMake target brings. `sphere/aten.h` has the mathematics.
namespace lawn::sphere::cpu {

namespace detail {

/// Calls `work` with a zero of the type in which `layer` is computed.
template <class Work>
auto in_accumulation_type(const Flat& layer, const Work& work) {
  return layer.weight_dtype == Dtype::kFloat64 ? work(double()) : work(float());
}

/// The radius of a sphere; a layer without radii is constrained, which any number > 0 says.
template <class T>
T radius(const Flat& layer, std::int64_t sphere) {
  return layer.radius == nullptr ? T(1) : static_cast<const T*>(layer.radius)[sphere];
}

inline Sums inner_products(const Flat& layer, std::int64_t begin, std::int64_t end) {
  if (layer.gradient == nullptr) return {};
  return in_accumulation_type(layer, [&](auto zero) {
    Elements<decltype(zero)> weight(layer.weight, layer.weight_dtype);
    Elements<decltype(zero)> gradient(layer.gradient, layer.gradient_dtype);
    Sums sums;
    for_each_block(begin, end, weight.in_place() && gradient.in_place(),
                   [&](std::int64_t first, std::int64_t numel) {
                     sums += run<InnerProducts>(gradient.read(first, numel),
                                                weight.read(first, numel), numel);
                   });
    return sums;
  });
}

inline Sums sum_of_squares(const Flat& layer, std::int64_t begin, std::int64_t end) {
  return in_accumulation_type(layer, [&](auto zero) {
    Elements<decltype(zero)> weight(layer.weight, layer.weight_dtype);
    Sums sums;
    for_each_block(begin, end, weight.in_place(), [&](std::int64_t first, std::int64_t numel) {
      sums.ww += run<SumOfSquares>(weight.read(first, numel), numel);
    });
    return sums;
  });
}

inline void subtract_multiple(const Flat& layer, std::int64_t sphere, std::int64_t begin,
                              std::int64_t end, const Sums& sums) {
  in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    if (layer.gradient == nullptr || !(radius<T>(layer, sphere) > 0)) return;
    auto coefficient = static_cast<T>(sums.gw / sums.ww);
    if (!std::isfinite(coefficient)) coefficient = 0;
    coefficient += static_cast<T>(layer.weight_decay);
    Elements<T> weight(layer.weight, layer.weight_dtype);
    Elements<T> gradient(layer.gradient, layer.gradient_dtype);
    for_each_block(begin, end, weight.in_place() && gradient.in_place(),
                   [&](std::int64_t first, std::int64_t numel) {
                     run<Subtract>(gradient.read(first, numel), weight.read(first, numel), numel,
                                   coefficient);
                     gradient.write(first, numel);
                   });
  });
}

inline void scale_to_radius(const Flat& layer, std::int64_t sphere, std::int64_t begin,
                            std::int64_t end, const Sums& sums) {
  in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    const auto scale = static_cast<T>(radius<T>(layer, sphere) / std::sqrt(sums.ww));
    if (!std::isfinite(scale) || !(scale > 0)) return;
    Elements<T> weight(layer.weight, layer.weight_dtype);
    for_each_block(begin, end, weight.in_place(), [&](std::int64_t first, std::int64_t numel) {
      run<Scale>(weight.read(first, numel), numel, scale);
      weight.write(first, numel);
    });
  });
}

inline void write_norm(const Flat& layer, std::int64_t sphere, std::int64_t begin,
                       std::int64_t /*end*/, const Sums& sums) {
  if (begin != sphere * layer.sphere_numel) return;  // another part of the sphere writes it
  in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    static_cast<T*>(layer.radius)[sphere] = static_cast<T>(std::sqrt(sums.ww));
  });
}

inline void norms(c10::ArrayRef<Layer> layers) {
  for_each_sphere(flatten(layers), sum_of_squares, write_norm);
}

inline void project_to_tangent_(c10::ArrayRef<Layer> layers) {
  for_each_sphere(flatten(layers), inner_products, subtract_multiple);
  for (const Layer& layer : layers) bump_version(layer.gradient);
}

inline void rescale_(c10::ArrayRef<Layer> layers) {
  for_each_sphere(flatten(layers), sum_of_squares, scale_to_radius);
  for (const Layer& layer : layers) bump_version(layer.weight);
}

}  // namespace detail

inline constexpr Table kTable{is_flat, detail::norms, detail::project_to_tangent_,
                              detail::rescale_};

}  // namespace lawn::sphere::cpu
