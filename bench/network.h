// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "shapes.h"

namespace bench {

/// Weights with gradients, as after a backward pass. All benchmarks of one shape list share one, so
/// that pairs which are compared read the same addresses.
struct Network {
  std::vector<at::Tensor> weights;

  /// Normal weights of variance 2 / fan-in, and gradients of 1e-3 of that, from a fixed seed.
  Network(const ShapeList& list, at::Device device) {
    torch::manual_seed(7);
    for (const Shape& shape : list.shapes) {
      int64_t fan_in = 1;
      for (std::size_t dim = 1; dim < shape.size(); ++dim) fan_in *= shape[dim];
      const double deviation = std::sqrt(2.0 / static_cast<double>(fan_in));
      auto weight = (deviation * torch::randn(shape)).to(device).requires_grad_();
      weight.mutable_grad() = (1e-3 * deviation * torch::randn(shape)).to(device);
      weights.push_back(weight);
    }
  }

  /// The one of this list, made at its first use.
  static Network& shared(const ShapeList& list, at::Device device) {
    static std::map<std::string, Network> all;
    return all.try_emplace(list.name, list, device).first->second;
  }
};

}  // namespace bench
