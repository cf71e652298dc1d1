// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>

#include <lawn/report.h>
#include <lawn/sphere/aten.h>
#include <lawn/sphere/layer.h>

namespace lawn::detail {

inline bool all_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

/// What is unusual about a layer, in words.
inline std::string remark(const sphere::Layer& layer, const at::Tensor& gradient, Phase phase) {
  std::string note;
  const auto add = [&note](const char* text) {
    note += (note.empty() ? "" : ", ") + std::string(text);
  };
  if (!all_finite(layer.weight)) add("weight is not finite");
  if (!gradient.defined()) {
    add("no gradient");
  } else if (gradient.layout() != at::kStrided) {
    add("gradient is not dense");
  } else if (!all_finite(gradient)) {
    add("gradient is not finite");
  }
  if (phase == Phase::kConstrained && (layer.radius == 0).any().item<bool>()) {
    add(layer.unit_dim == sphere::kWholeTensor ? "left free" : "some units left free");
  }
  return note;
}

/// Measures one layer for `LAWN::report()`, in float64. Waits for the device.
inline LayerReport measure(const std::string& name, const sphere::Layer& layer, Phase phase) {
  const at::NoGradGuard no_grad;
  LayerReport result;
  result.name = name;
  sphere::Layer wide;
  wide.weight = layer.weight.detach().to(at::kDouble);
  wide.unit_dim = layer.unit_dim;
  const auto norms = sphere::aten::norm(wide);
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
  const auto gradient = layer.weight.grad();
  if (gradient.defined() && gradient.layout() == at::kStrided) {
    const auto g = gradient.to(at::kDouble);
    const double product = (g * wide.weight).sum().item<double>();
    result.cosine = product / (result.norm * g.norm().item<double>());
  }
  result.note = remark(layer, gradient, phase);
  return result;
}

}  // namespace lawn::detail
