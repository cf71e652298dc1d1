// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <lawn/finite_math.h>

namespace lawn {

namespace detail::grad_scaler {

/// Whether the scale, which is a float32, can be `value`. It cannot be 0, whose reciprocal is
/// infinite, nor below the smallest normal number, since the reciprocal may then be infinite.
inline bool can_be_scale(double value) {
  return value >= std::numeric_limits<float>::min() && value <= std::numeric_limits<float>::max();
}

}  // namespace detail::grad_scaler

/// Options of `GradScaler`. Checked when the scaler is constructed, in the types with which the
/// device computes: float32, and int32 for the interval.
struct GradScalerOptions {
  /// The first scale: from the smallest normal float32 (about 1.2e-38) to the largest (3.4e38).
  TORCH_ARG(double, init_scale) = 65536;
  /// Factor of the scale after `growth_interval` good steps in a row, > 1.
  TORCH_ARG(double, growth_factor) = 2;
  /// Factor of the scale after a skipped step, in (0, 1).
  TORCH_ARG(double, backoff_factor) = 0.5;
  /// Number of good steps in a row after which the scale grows, >= 1.
  TORCH_ARG(int64_t, growth_interval) = 2000;
  /// Whether the scaler works; if not, it does nothing, and `step` is the optimizer's own.
  TORCH_ARG(bool, enabled) = true;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(detail::grad_scaler::can_be_scale(init_scale()),
                "lawn::GradScaler: init_scale must be finite and > 0 as a normal float32 (1.2e-38 "
                "to 3.4e38), got ",
                init_scale());
    TORCH_CHECK(growth_factor() > 1 && growth_factor() <= std::numeric_limits<float>::max() &&
                    static_cast<float>(growth_factor()) > 1,
                "lawn::GradScaler: growth_factor must be finite and > 1 as a float32 (1.0000002 or "
                "more), got ",
                growth_factor());
    TORCH_CHECK(
        backoff_factor() > 0 && backoff_factor() < 1 && static_cast<float>(backoff_factor()) > 0 &&
            static_cast<float>(backoff_factor()) < 1,
        "lawn::GradScaler: backoff_factor must be in (0, 1) as a float32, got ", backoff_factor());
    TORCH_CHECK(growth_interval() >= 1 && growth_interval() <= std::numeric_limits<int32_t>::max(),
                "lawn::GradScaler: growth_interval must be in [1, 2147483647], got ",
                growth_interval());
  }
};

}  // namespace lawn
