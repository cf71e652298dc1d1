// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>

#include <lawn/sphere/flat.h>
#include <lawn/sphere/layer.h>

namespace lawn::sphere {

/// The `Dtype` of `type`, if it has one.
inline std::optional<Dtype> flat_dtype(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return Dtype::kFloat64;
    case at::kFloat:
      return Dtype::kFloat32;
    case at::kBFloat16:
      return Dtype::kBFloat16;
    case at::kHalf:
      return Dtype::kFloat16;
    default:
      return std::nullopt;
  }
}

namespace detail {

/// Whether `a` and `b` have one shape and hold their elements in one order. Strides of dimensions
/// of size 1 do not matter.
inline bool same_order(const at::Tensor& a, const at::Tensor& b) {
  const auto sizes = a.sizes();
  const auto a_strides = a.strides();
  const auto b_strides = b.strides();
  if (sizes != b.sizes()) return false;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] > 1 && a_strides[d] != b_strides[d]) return false;
  }
  return true;
}

/// Whether the raw memory of `tensor` holds its values as they are.
inline bool plain(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && flat_dtype(tensor.scalar_type()) && !tensor.is_neg();
}

}  // namespace detail

/// Whether `other` has the dtype `dtype` and holds its elements on the device and in the order of
/// `tensor`, so that one loop can run over the raw memory of both.
inline bool beside(const at::Tensor& tensor, const at::Tensor& other, at::ScalarType dtype) {
  return other.defined() && detail::plain(other) && other.scalar_type() == dtype &&
         other.device() == tensor.device() && detail::same_order(tensor, other);
}
/// The same with the dtype of `tensor`.
inline bool beside(const at::Tensor& tensor, const at::Tensor& other) {
  return beside(tensor, other, tensor.scalar_type());
}

/// Whether `layer` is plain memory, so that `flatten` applies: a dense weight without gaps in any
/// order of its dimensions (contiguous, channels-last, transposed), a gradient in the same order,
/// output units that follow one another in memory, dtypes that `Dtype` names.
/// @param layer     on any device
/// @param gradient  replaces the layer's own; may be undefined
inline bool is_flat(const Layer& layer, const at::Tensor& gradient) {
  const at::Tensor& weight = layer.weight;
  if (!detail::plain(weight) || !weight.is_non_overlapping_and_dense()) return false;
  if (layer.unit_dim != kWholeTensor && weight.numel() > 0) {
    const auto units = weight.size(layer.unit_dim);
    if (units > 1 && weight.stride(layer.unit_dim) * units != weight.numel()) return false;
  }
  if (gradient.defined()) {
    if (!detail::plain(gradient) || gradient.device() != weight.device() ||
        !detail::same_order(weight, gradient)) {
      return false;
    }
  }
  if (layer.radius.defined()) {
    const at::Tensor& radius = layer.radius;
    if (radius.scalar_type() != accumulation_dtype(weight) || radius.device() != weight.device() ||
        !radius.is_contiguous()) {
      return false;
    }
  }
  return true;
}
/// The same with the gradient of the layer.
inline bool is_flat(const Layer& layer) { return is_flat(layer, layer.gradient); }

/// `layer` as plain memory.
/// @param layer     `is_flat` with this gradient
/// @param gradient  replaces the layer's own; may be undefined
inline Flat flatten(const Layer& layer, const at::Tensor& gradient) {
  const at::Tensor& weight = layer.weight;
  Flat flat;
  flat.weight = weight.data_ptr();
  flat.spheres = layer.unit_dim == kWholeTensor ? 1 : weight.size(layer.unit_dim);
  flat.sphere_numel = flat.spheres > 0 ? weight.numel() / flat.spheres : 0;
  flat.weight_decay = layer.weight_decay;
  flat.weight_dtype = *flat_dtype(weight.scalar_type());
  flat.gradient_dtype = flat.weight_dtype;
  if (gradient.defined()) {
    flat.gradient = gradient.data_ptr();
    flat.gradient_dtype = *flat_dtype(gradient.scalar_type());
  }
  if (layer.radius.defined()) flat.radius = layer.radius.data_ptr();
  return flat;
}
/// The same with the gradient of the layer.
inline Flat flatten(const Layer& layer) { return flatten(layer, layer.gradient); }

/// Each of `layers` as plain memory.
inline std::vector<Flat> flatten(c10::ArrayRef<Layer> layers) {
  std::vector<Flat> flat;
  flat.reserve(layers.size());
  for (const Layer& layer : layers) flat.push_back(flatten(layer));
  return flat;
}

/// `tensor` as plain memory for elementwise operations.
/// @param tensor  plain memory without gaps
inline FlatTensor flat_tensor(const at::Tensor& tensor) {
  return {*flat_dtype(tensor.scalar_type()), tensor.numel()};
}

/// Tells autograd, as ATen's own in-place functions do, that the memory of `tensor` was written to.
inline void bump_version(const at::Tensor& tensor) {
  if (tensor.defined() && !tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace lawn::sphere
