// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include <torch/torch.h>

namespace lawn::testing {

/// The problem of make_golden.py: five parameters, one of them zero at the start and one whose
/// gradient is always zero.
struct GoldenProblem {
  static constexpr std::size_t kZeroWeight = 3;
  static constexpr std::size_t kZeroGradient = 4;
  static constexpr int64_t kSteps = 12;

  GoldenProblem() {
    const std::vector<std::vector<int64_t>> shapes = {{3, 4}, {5}, {2, 3, 2}, {2, 2}, {3}};
    for (std::size_t k = 0; k < shapes.size(); ++k) {
      auto weight = torch::zeros(shapes[k], torch::kDouble);
      if (k != kZeroWeight) {
        weight += 0.5 * torch::sin(0.7 * indices(weight) + 1.3 * static_cast<double>(k) + 0.2);
      }
      weights.push_back(weight.set_requires_grad(true));
    }
  }

  void set_gradients(int64_t step) {
    for (std::size_t k = 0; k < weights.size(); ++k) {
      const auto angle = 0.3 * indices(weights[k]) * (step + 1) + static_cast<double>(k);
      const auto gradient = torch::cos(angle) + 0.3 * weights[k].detach();
      weights[k].mutable_grad() = k == kZeroGradient ? torch::zeros_like(gradient) : gradient;
    }
  }

  /// Every element of every parameter.
  torch::Tensor values() const {
    std::vector<torch::Tensor> flat;
    for (const auto& weight : weights) flat.push_back(weight.detach().flatten());
    return torch::cat(flat);
  }

  std::vector<torch::Tensor> weights;

 private:
  static torch::Tensor indices(const torch::Tensor& like) {
    return torch::arange(like.numel(), torch::kDouble).reshape(like.sizes());
  }
};

}  // namespace lawn::testing
