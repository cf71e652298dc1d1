// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

#include <lawn/finite_math.h>

/// Free of torch, so that device code can include it.
namespace lawn::sphere {

/// The dtypes that fast tables take.
enum class Dtype : std::uint8_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

/// A sum of products of floats that is smaller than the first, times the number of products, or
/// larger than the second, may have lost something to the limits of their range: to products that
/// have vanished, each at most the least number of full precision, or that have overflowed. Such a
/// sum is taken again in double.
constexpr float kLeastFloatSum = std::numeric_limits<float>::min() * 67108864.0f;  // 2^26
/// See `kLeastFloatSum`.
constexpr float kMostFloatSum = std::numeric_limits<float>::max();

/// A layer as plain memory: `spheres` runs of `sphere_numel` elements, one after the other without
/// gaps, in the weight and in the gradient alike.
struct Flat {
  /// Its elements.
  void* weight = nullptr;
  /// Null where a step has none.
  void* gradient = nullptr;
  /// One number for each sphere, float64 for a float64 weight, else float32. Null: every sphere
  /// counts as constrained.
  void* radius = nullptr;
  /// How many there are.
  std::int64_t spheres = 0;
  /// Elements of each.
  std::int64_t sphere_numel = 0;
  /// As `Layer::weight_decay`.
  double weight_decay = 0;
  /// Of the weight.
  Dtype weight_dtype = Dtype::kFloat32;
  /// The weight's where there is no gradient.
  Dtype gradient_dtype = Dtype::kFloat32;
};

/// A tensor as plain memory, whose elements have nothing to do with one another; arrays, all in one
/// order, are a derived struct's. To the loops of the CPU it is one sphere.
struct FlatTensor {
  /// Of the tensor that is changed.
  Dtype dtype = Dtype::kFloat32;
  /// All its elements.
  std::int64_t sphere_numel = 0;
  /// One.
  std::int64_t spheres = 1;
};

}  // namespace lawn::sphere
