// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <lawn/finite_math.h>

namespace lawn {

/// Options of `Admm`.
struct AdmmOptions {
  /// The initial weight of the penalty, finite and > 0. Gradient descent with learning rate lr
  /// needs lr rho < 2.
  TORCH_ARG(double, rho) = 1e-3;
  /// Factor by which each `update` multiplies rho, >= 1.
  TORCH_ARG(double, rho_growth) = 2;
  /// Upper bound of rho, >= `rho`.
  TORCH_ARG(double, max_rho) = 1;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(std::isfinite(rho()) && rho() > 0, "lawn::Admm: rho must be finite and > 0, got ",
                rho());
    TORCH_CHECK(std::isfinite(rho_growth()) && rho_growth() >= 1,
                "lawn::Admm: rho_growth must be finite and >= 1, got ", rho_growth());
    TORCH_CHECK(std::isfinite(max_rho()) && max_rho() >= rho(),
                "lawn::Admm: max_rho must be finite and >= rho, ", rho(), ", got ", max_rho());
  }
};

}  // namespace lawn
