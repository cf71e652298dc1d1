// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <lawn/sphere/layer.h>

namespace lawn::detail::optimizer {

/// Measures the angle by which each layer's weight turns in a step, from a copy of the weights
/// before the step.
///   theta = 2 asin(||a/||a|| - b/||b|||| / 2)
class AngularSteps {
 public:
  /// Copies the weights. A further call before `measure` or `forget`, at a later evaluation of the
  /// same step, does nothing.
  void remember(const std::vector<sphere::Layer>& layers) {
    if (!before_.empty()) return;
    const at::NoGradGuard no_grad;
    for (const auto& layer : layers) before_.push_back(layer.weight.detach().clone());
  }

  /// Compares the weights with the copies, and releases these. Does not wait for the device.
  void measure(const std::vector<sphere::Layer>& layers) {
    const at::NoGradGuard no_grad;
    angles_.clear();
    if (before_.size() != layers.size()) return;  // the optimizer never called its closure
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto dtype = sphere::accumulation_dtype(layers[i].weight);
      const auto before = before_[i].to(dtype);
      const auto after = layers[i].weight.detach().to(dtype);
      // 2 asin(|a - b| / 2) keeps the small angles that acos(<a,b>) rounds away.
      const auto chord = (after / after.norm() - before / before.norm()).norm();
      angles_.push_back(2 * (chord / 2).clamp_max(1).asin());
    }
    before_.clear();
  }

  /// Releases the copies of a step that was not finished.
  void forget() { before_.clear(); }

  /// The angle of each layer, 0-dim, in radians; empty before the first measurement.
  const std::vector<at::Tensor>& angles() const { return angles_; }

 private:
  std::vector<at::Tensor> before_;
  std::vector<at::Tensor> angles_;
};

}  // namespace lawn::detail::optimizer
