// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

namespace lawn::testing {

/// The one table of tolerances.
struct Tolerance {
  double step;        ///< relative difference of one step from its float64 twin
  double norm;        ///< | ||w|| / R - 1 | after any number of steps
  double trajectory;  ///< the largest element of a parameter, after 30 steps on two trajectories
};

inline Tolerance tolerance(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return {1e-12, 1e-14, 1e-9};
    case at::kFloat:
      return {1e-5, 1e-6, 2e-4};
    case at::kHalf:
      return {4e-3, 1.0 / 2048, 5e-2};  // 10 bits of mantissa
    case at::kBFloat16:
      return {3e-2, 1.0 / 256, 3e-1};  // 7 bits of mantissa
    default:
      TORCH_CHECK(false, "no tolerance for dtype ", dtype);
  }
}

/// Whether the elements of `got` differ from those of `expected` by the rounding of a step at most.
/// @param dtype  in which that was; by default `got`'s
inline ::testing::AssertionResult close(const at::Tensor& got, const at::Tensor& expected,
                                        std::optional<at::ScalarType> dtype = std::nullopt) {
  const double relative = tolerance(dtype.value_or(got.scalar_type())).step;
  if (at::allclose(got, expected, relative, relative / 10)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "expected\n" << expected << "\ngot\n" << got;
}

/// Names the instances of a test over dtypes.
inline std::string dtype_name(const ::testing::TestParamInfo<at::ScalarType>& info) {
  return c10::toString(info.param);
}

}  // namespace lawn::testing
