// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/ArrayRef.h>

#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/stages.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/table.h>

/// The table of the CPU, for flat layers of any dtype. A layer is read once from memory if a cache
/// holds it, and the bits are the same for any number of threads. The work is parallel if the
/// program is compiled with OpenMP, which the CMake target brings. `sphere/aten.h` has the
/// mathematics.
namespace lawn::sphere::cpu {

namespace detail {

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
