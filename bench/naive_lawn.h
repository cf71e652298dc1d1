// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <torch/torch.h>

namespace bench {

/// The mathematics of LAWN's constrained phase as one writes them in a training loop, one ATen call
/// at a time. The library is measured against this form. It has no weight decay, no zero norms and
/// no other dtypes.
class NaiveLAWN {
 public:
  explicit NaiveLAWN(const std::vector<at::Tensor>& weights) : weights_(weights) {
    const torch::NoGradGuard no_grad;
    for (const auto& weight : weights_) radii_.push_back(weight.norm());
  }

  /// g <- g - (<g,w> / <w,w>) w
  void project() {
    const torch::NoGradGuard no_grad;
    for (const auto& w : weights_) {
      auto& g = w.mutable_grad();
      g -= (g * w).sum() / (w * w).sum() * w;
    }
  }

  /// w <- R w / ||w||
  void rescale() {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      weights_[i] *= radii_[i] / weights_[i].norm();
    }
  }

 private:
  std::vector<at::Tensor> weights_;
  std::vector<at::Tensor> radii_;
};

}  // namespace bench
