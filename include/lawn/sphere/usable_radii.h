// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <c10/core/ScalarType.h>

#include <lawn/sphere/layer.h>

/// Computes radii from norms, without waiting for the device.
namespace lawn::sphere {

/// R = scale n, in the dtype of the norms n, rounded once. With a scale of 1 the result is the
/// norms themselves.
inline at::Tensor scaled_radii(const at::Tensor& norms, double scale) {
  if (scale == 1) return norms;
  return norms.to(product_dtype(norms)).mul(scale).to(norms.scalar_type());
}

/// R = scale n if that can be a radius, else 0 (a free sphere). It can be a radius if it is finite
/// and, with a scale other than 1, the size of an element, R / sqrt(elements), is > 0 and finite in
/// the dtype of the weight.
/// @param norms         `[]` or `[units]`
/// @param scale         > 0
/// @param dtype         dtype of the weight
/// @param sphere_numel  number of elements of each sphere
inline at::Tensor usable_radii(const at::Tensor& norms, double scale, at::ScalarType dtype,
                               double sphere_numel) {
  const auto radii = scaled_radii(norms, scale);
  auto usable = at::isfinite(radii);
  if (scale != 1) {
    const auto wide = radii.to(product_dtype(radii)) / std::sqrt(std::max(sphere_numel, 1.0));
    const auto element = wide.to(dtype);
    usable = usable.logical_and(at::isfinite(element)).logical_and(element > 0);
  }
  return at::where(usable, radii, 0.0);
}

}  // namespace lawn::sphere
