// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/sphere/layer.h>

#include "tests/support/tolerance.h"

/// Layers in float32 whose products leave the range of float32.
namespace lawn::testing {

/// Of elements, up to where a norm is a float32 still.
constexpr double kScales[] = {1e-36, 1e-30, 1e-25, 1e-22, 1e-20, 1e-18, 1e-12,
                              1e-3,  1,     1e5,   1e18,  1e20,  1e30,  1e35};

/// A weight and a gradient with elements of the given sizes and an angle between them.
inline sphere::Layer layer_of_scale(int64_t numel, double of_weight, double of_gradient) {
  torch::manual_seed(7);
  const auto w = torch::randn({numel}, torch::kDouble);
  const auto g = torch::randn({numel}, torch::kDouble) + 0.5 * w;
  sphere::Layer layer;
  layer.weight = (of_weight * w).to(torch::kFloat);
  layer.gradient = (of_gradient * g).to(torch::kFloat);
  return layer;
}

/// That the gradient is what a projection in float64 makes of `before`; where the multiple of the
/// weight is itself out of the range of float32, that it stayed.
inline void expect_projected(const sphere::Layer& layer, const torch::Tensor& before,
                             const std::string& what) {
  const auto w = layer.weight.to(torch::kDouble);
  const auto g = before.to(torch::kDouble);
  const double multiple = ((g * w).sum() / (w * w).sum()).item<double>();
  // Below the least number of full precision some of it is lost, and all of it in the end.
  if (std::abs(multiple) < 1.2e-38) return;
  const auto expected = std::abs(multiple) > 3.4e38 ? g : g - multiple * w;
  const auto error = (layer.gradient.to(torch::kDouble) - expected).abs().max();
  EXPECT_LE((error / g.abs().max()).item<double>(), tolerance(torch::kFloat).step) << what;
}

}  // namespace lawn::testing
