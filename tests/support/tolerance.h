// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

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

/// Names the instances of a test over dtypes.
inline std::string dtype_name(const ::testing::TestParamInfo<at::ScalarType>& info) {
  return c10::toString(info.param);
}

}  // namespace lawn::testing
