// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <optional>
#include <string>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <c10/core/ScalarType.h>

#include <lawn/report.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/spheres.h>

namespace lawn::detail::optimizer {

inline bool all_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

inline bool has_dense_gradient(const at::Tensor& weight) {
  return weight.grad().defined() && weight.grad().layout() == at::kStrided;
}

/// `value`, or none if it is not finite, as a quotient with a zero norm.
inline std::optional<double> if_finite(double value) {
  return std::isfinite(value) ? std::optional<double>(value) : std::nullopt;
}

/// | ||w|| / R - 1 | above which a weight counts as off its sphere: larger than rounding to this
/// type explains.
inline double worst_norm_error(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16:
      return 1.0 / 128;
    case at::kHalf:
      return 1.0 / 512;
    default:
      return 1e-4;
  }
}

/// Says in words what is unusual about a layer.
inline std::string remark(const sphere::Layer& layer, const LayerSums& sums, Phase phase,
                          const std::optional<double>& norm_error) {
  std::string note;
  const auto add = [&note](const char* text) {
    note += (note.empty() ? "" : ", ") + std::string(text);
  };
  const bool zero = (sums.norms == 0).all().item<bool>();
  const bool empty = zero && layer.weight.numel() == 0;  // an empty part of a whole is not
  if (empty) {
    add("no elements");
  } else if (!all_finite(sums.norms)) {
    add("weight is not finite");
  } else if (zero) {
    add("weight is zero");
  }
  if (!layer.weight.grad().defined()) {
    add("no gradient");
  } else if (!has_dense_gradient(layer.weight)) {
    add("gradient is not dense");
  } else if (!std::isfinite(sums.gg)) {
    add("gradient is not finite");
  } else if (sums.gg == 0 && layer.gradient.defined() && !empty) {
    add("gradient is zero");
  }
  if (norm_error && std::isfinite(*norm_error) &&
      *norm_error > worst_norm_error(layer.weight.scalar_type())) {
    add("off its sphere");
  }
  if (phase == Phase::kConstrained && (layer.radius == 0).any().item<bool>()) {
    add(layer.unit_dim == sphere::kWholeTensor ? "left free" : "some units left free");
  }
  return note;
}

/// The entry of `LAWN::report()` for one layer. Waits for the device.
inline LayerReport measure(const std::string& name, const sphere::Layer& layer,
                           const LayerSums& sums, Phase phase) {
  const at::NoGradGuard no_grad;
  LayerReport result;
  result.name = name;
  const auto& norms = sums.norms;
  result.spheres = norms.numel();
  result.norm = norms.norm().item<double>();
  if (layer.radius.defined()) {
    const auto radius = layer.radius.to(norms.device(), at::kDouble);  // the model may have moved
    result.radius = radius.norm().item<double>();
    if (phase == Phase::kConstrained && radius.numel() > 0) {
      const auto error = at::where(radius > 0, norms / radius - 1, 0.0);
      result.norm_error = error.abs().max().item<double>();
    }
  }
  if (layer.gradient.defined()) {
    result.cosine = if_finite(sums.gw / (result.norm * std::sqrt(sums.gg)));
  }
  result.note = remark(layer, sums, phase, result.norm_error);
  return result;
}

}  // namespace lawn::detail::optimizer
