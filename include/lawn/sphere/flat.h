// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

#include <lawn/finite_math.h>

/// Layers and tensors as plain memory. Free of torch, so that device code can include it.
namespace lawn::sphere {

/// The dtypes that fast tables take.
enum class Dtype : std::uint8_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

/// Bounds of a sum of n products of floats. Below n times `kLeastFloatSum` the sum may be
/// inaccurate, because products below the smallest normal float have lost precision or vanished;
/// above `kMostFloatSum` it has overflowed. Such a sum is taken again in double.
constexpr float kLeastFloatSum = std::numeric_limits<float>::min() * 67108864.0f;  // 2^26
/// See `kLeastFloatSum`.
constexpr float kMostFloatSum = std::numeric_limits<float>::max();

/// A layer as plain memory: `spheres` runs of `sphere_numel` elements, one after the other without
/// gaps, in the weight and in the gradient alike.
struct Flat {
  /// Elements of the weight.
  void* weight = nullptr;
  /// Elements of the gradient; null if a step has none.
  void* gradient = nullptr;
  /// One number for each sphere, float64 for a float64 weight, else float32. If null, every sphere
  /// counts as constrained.
  void* radius = nullptr;
  /// Number of spheres.
  std::int64_t spheres = 0;
  /// Number of elements of each sphere.
  std::int64_t sphere_numel = 0;
  /// The same as `Layer::weight_decay`.
  double weight_decay = 0;
  /// Dtype of the weight.
  Dtype weight_dtype = Dtype::kFloat32;
  /// Dtype of the gradient; the weight's if there is none.
  Dtype gradient_dtype = Dtype::kFloat32;
};

/// A tensor as plain memory, for elementwise operations. A derived struct has the arrays, all in
/// one order. The CPU's loops treat the tensor as one sphere.
struct FlatTensor {
  /// Dtype of the tensor that is changed.
  Dtype dtype = Dtype::kFloat32;
  /// Number of all its elements.
  std::int64_t sphere_numel = 0;
  /// Number of spheres, always 1.
  std::int64_t spheres = 1;
};

}  // namespace lawn::sphere
