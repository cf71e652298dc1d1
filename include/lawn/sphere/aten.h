// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/where.h>
#include <c10/core/ScalarType.h>

#include <lawn/sphere/layer.h>

/// The functions of the table written with ATen calls, for any device, dtype and stride. They stay
/// plain, since faster tables are tested against them.
namespace lawn::sphere::aten {

namespace detail {

/// The dimensions over which one sphere extends: all of them, or all except `unit_dim`.
inline std::vector<int64_t> sphere_dims(const at::Tensor& weight, int64_t unit_dim) {
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < weight.dim(); ++dim) {
    if (dim != unit_dim) dims.push_back(dim);
  }
  return dims;
}

/// Sum of the products over each sphere, in `product_dtype`, shaped to broadcast against `weight`.
inline at::Tensor inner_product(const at::Tensor& a, const at::Tensor& b, int64_t unit_dim) {
  const auto dims = sphere_dims(a, unit_dim);
  const auto dtype = product_dtype(a);
  const auto products = at::mul(a.to(dtype), b.to(dtype));
  // An empty list of dimensions means all of them to ATen; a vector cut into units has none.
  return dims.empty() && a.dim() > 0 ? products : products.sum(dims, /*keepdim=*/true);
}

/// Reshapes one number for each sphere, stored flat, to broadcast against the weight.
inline at::Tensor over_units(const at::Tensor& numbers, const Layer& layer) {
  if (layer.unit_dim == kWholeTensor) return numbers.reshape({});
  std::vector<int64_t> shape(static_cast<size_t>(layer.weight.dim()), 1);
  shape[static_cast<size_t>(layer.unit_dim)] = numbers.numel();
  return numbers.view(shape);
}

}  // namespace detail

/// Norm of each sphere, `[]` or `[units]`, in `accumulation_dtype(weight)`.
inline at::Tensor norm(const Layer& layer) {
  const auto norms = detail::inner_product(layer.weight, layer.weight, layer.unit_dim)
                         .sqrt()
                         .to(accumulation_dtype(layer.weight));
  return layer.unit_dim == kWholeTensor ? norms.reshape({}) : norms.reshape({-1});
}

/// g <- g - (<g,w> / <w,w> + weight_decay) w; on a free sphere g stays as it is. A quotient that is
/// not finite (a zero weight, or an infinity in the gradient) counts as 0.
/// @param gw, ww  <g,w> and <w,w> of each sphere, shaped to broadcast against the weight
inline void project_to_tangent_(const Layer& layer, const at::Tensor& gw, const at::Tensor& ww) {
  if (!layer.gradient.defined()) return;
  const auto dtype = accumulation_dtype(layer.weight);
  const auto weight = layer.weight.to(dtype);
  auto gradient = layer.gradient.to(dtype);  // the gradient itself if the dtype is the same
  auto coefficient = at::nan_to_num((gw / ww).to(dtype), 0.0, 0.0, 0.0);
  if (layer.weight_decay != 0) coefficient += layer.weight_decay;
  if (layer.radius.defined()) coefficient *= detail::over_units(layer.radius, layer) > 0;
  gradient.addcmul_(weight, coefficient, -1);
  if (!gradient.is_same(layer.gradient)) layer.gradient.copy_(gradient);
}
inline void project_to_tangent_(const Layer& layer) {
  if (!layer.gradient.defined()) return;
  project_to_tangent_(layer, detail::inner_product(layer.gradient, layer.weight, layer.unit_dim),
                      detail::inner_product(layer.weight, layer.weight, layer.unit_dim));
}

/// w <- R w / ||w||. A sphere that is free, or whose norm is zero or not finite, stays as it is.
/// @param ww  <w,w> of each sphere, shaped to broadcast against the weight
inline void rescale_(const Layer& layer, const at::Tensor& ww) {
  const auto dtype = accumulation_dtype(layer.weight);
  auto weight = layer.weight.to(dtype);
  const auto radius = detail::over_units(layer.radius, layer);
  const auto scale = at::nan_to_num((radius / ww.sqrt()).to(dtype), 0.0, 0.0, 0.0);
  weight.mul_(at::where(scale > 0, scale, 1.0));
  if (!weight.is_same(layer.weight)) layer.weight.copy_(weight);
}
inline void rescale_(const Layer& layer) {
  rescale_(layer, detail::inner_product(layer.weight, layer.weight, layer.unit_dim));
}

}  // namespace lawn::sphere::aten
