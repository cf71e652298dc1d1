// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include <lawn/sphere/cpu/elements.h>
#include <lawn/sphere/cpu/flush_subnormals.h>
#include <lawn/sphere/cpu/loops.h>
#include <lawn/sphere/flat.h>

/// The stages that `for_each_sphere` runs on a sphere or a part of one: sums over it, and changes
/// of its elements that depend on the sums. `sphere/aten.h` has the mathematics.
namespace lawn::sphere::cpu {

/// Calls `work` with a zero of the type in which `layer` is computed.
template <class Work>
auto in_accumulation_type(const Flat& layer, const Work& work) {
  if (layer.weight_dtype == Dtype::kFloat64) return work(double());
  return work(float());
}

/// The radius of a sphere. A layer without radii is constrained, so any number > 0 will do.
template <class T>
T radius(const Flat& layer, std::int64_t sphere) {
  return layer.radius == nullptr ? T(1) : static_cast<const T*>(layer.radius)[sphere];
}

inline Sums inner_products(const Flat& layer, std::int64_t /*sphere*/, std::int64_t begin,
                           std::int64_t end, const Sums& /*before*/) {
  if (layer.gradient == nullptr) return {};
  return in_accumulation_type(layer, [&](auto zero) {
    Elements<decltype(zero)> weight(layer.weight, layer.weight_dtype);
    Elements<decltype(zero)> gradient(layer.gradient, layer.gradient_dtype);
    Sums sums;
    for_each_block(begin, end, weight.in_place() && gradient.in_place(),
                   [&](std::int64_t first, std::int64_t numel) {
                     sums += inner_products_of(gradient.read(first, numel),
                                               weight.read(first, numel), numel);
                   });
    return sums;
  });
}

inline Sums sum_of_squares(const Flat& layer, std::int64_t /*sphere*/, std::int64_t begin,
                           std::int64_t end, const Sums& /*before*/) {
  return in_accumulation_type(layer, [&](auto zero) {
    Elements<decltype(zero)> weight(layer.weight, layer.weight_dtype);
    Sums sums;
    for_each_block(begin, end, weight.in_place(), [&](std::int64_t first, std::int64_t numel) {
      sums.ww += sum_of_squares_of(weight.read(first, numel), numel);
    });
    return sums;
  });
}

inline Sums subtract_multiple(const Flat& layer, std::int64_t sphere, std::int64_t begin,
                              std::int64_t end, const Sums& sums) {
  return in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    if (layer.gradient == nullptr || !(radius<T>(layer, sphere) > 0)) return Sums();
    auto coefficient = static_cast<T>(sums.gw / sums.ww);
    if (!std::isfinite(coefficient)) coefficient = 0;
    coefficient += static_cast<T>(layer.weight_decay);
    Elements<T> weight(layer.weight, layer.weight_dtype);
    Elements<T> gradient(layer.gradient, layer.gradient_dtype);
    for_each_block(begin, end, weight.in_place() && gradient.in_place(),
                   [&](std::int64_t first, std::int64_t numel) {
                     run_loop<Subtract>(gradient.read(first, numel), weight.read(first, numel),
                                        numel, coefficient);
                     gradient.write(first, numel);
                   });
    return Sums();
  });
}

inline Sums scale_to_radius(const Flat& layer, std::int64_t sphere, std::int64_t begin,
                            std::int64_t end, const Sums& sums) {
  return in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    const auto scale = static_cast<T>(radius<T>(layer, sphere) / std::sqrt(sums.ww));
    if (!std::isfinite(scale) || !(scale > 0)) return Sums();
    const FlushSubnormals flush(radius<T>(layer, sphere));
    Elements<T> weight(layer.weight, layer.weight_dtype);
    for_each_block(begin, end, weight.in_place(), [&](std::int64_t first, std::int64_t numel) {
      run_loop<Scale>(weight.read(first, numel), numel, scale);
      weight.write(first, numel);
    });
    return Sums();
  });
}

inline Sums write_norm(const Flat& layer, std::int64_t sphere, std::int64_t begin,
                       std::int64_t /*end*/, const Sums& sums) {
  if (begin != sphere * layer.sphere_numel) return {};  // another part of the sphere writes it
  return in_accumulation_type(layer, [&](auto zero) {
    using T = decltype(zero);
    static_cast<T*>(layer.radius)[sphere] = static_cast<T>(std::sqrt(sums.ww));
    return Sums();
  });
}

}  // namespace lawn::sphere::cpu
