// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

#include <lawn/finite_math.h>

namespace lawn::sphere {

/// `Layer::unit_dim` of a tensor that lies on one sphere as a whole.
constexpr int64_t kWholeTensor = -1;

/// One constrained tensor in one step. The functions of this folder work on lists of these.
///
/// With `unit_dim == kWholeTensor` the tensor lies on one sphere. Otherwise it is cut along
/// `unit_dim` into output units, and each unit lies on a sphere of its own.
struct Layer {
  /// Any shape and stride; float64, float32, bfloat16 or half.
  at::Tensor weight;
  /// Shape and device of `weight`, any floating-point dtype; undefined if a step has none.
  at::Tensor gradient;
  /// `[]`, or `[units]`; device of `weight`, dtype `accumulation_dtype(weight)`. A sphere of radius
  /// 0 is free: neither projected nor rescaled. If undefined, every sphere counts as constrained.
  at::Tensor radius;
  /// The dimension of the output units, each of which lies on a sphere of its own.
  int64_t unit_dim = kWholeTensor;
  /// The multiple of `weight` that the base optimizer will add to `gradient`.
  double weight_decay = 0;
};

/// The whole of `tensor` as one sphere, without a gradient.
inline Layer whole(const at::Tensor& tensor, const at::Tensor& radius = {}) {
  return {tensor, {}, radius, kWholeTensor, 0};
}

/// The dtype in which sums over `tensor` are taken and radii are kept: float64 for float64 and
/// complex numbers of it, else float32.
inline at::ScalarType accumulation_dtype(const at::Tensor& tensor) {
  return c10::toRealValueType(tensor.scalar_type()) == at::kDouble ? at::kDouble : at::kFloat;
}

/// `tensor` on the device of `weight` and in the dtype in which sums over `weight` are taken: a
/// copy if the model was moved or converted, else the tensor itself. An undefined tensor stays
/// undefined.
inline at::Tensor beside_sums(const at::Tensor& weight, const at::Tensor& tensor) {
  const auto dtype = accumulation_dtype(weight);
  if (!tensor.defined()) return tensor;
  if (tensor.scalar_type() == dtype && tensor.device() == weight.device()) return tensor;
  return tensor.to(weight.device(), dtype);
}

/// The dtype in which ATen takes sums of products of numbers in `accumulation_dtype`: float64,
/// whose range holds every product of float32 numbers, or float32 on devices without float64.
inline at::ScalarType product_dtype(const at::Tensor& tensor) {
  return tensor.device().type() == c10::DeviceType::MPS ? at::kFloat : at::kDouble;
}

/// The shape of a layer's norms and radii: `[]`, or `[units]`.
inline std::vector<int64_t> radius_shape(const Layer& layer) {
  if (layer.unit_dim == kWholeTensor) return {};
  return {layer.weight.size(layer.unit_dim)};
}

}  // namespace lawn::sphere
