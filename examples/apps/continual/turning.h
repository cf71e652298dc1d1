// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <lawn/checkpoint.h>

#include <cstdint>
#include <utility>
#include <vector>

/// The angle by which a step turns weights: the length of a step where only their direction counts.
///   theta = 2 asin(||a/||a|| - b/||b|||| / 2)     a, b: a weight tensor before and after a step
/// Gives the mean over tensors and over the sampled steps, each of which costs a copy.
class Turning {
 public:
  explicit Turning(std::vector<at::Tensor> weights) : weights_(std::move(weights)) {}

  /// Forgets the sampled steps.
  void clear() {
    sum_ = 0;
    steps_ = 0;
  }

  /// Call this before a step that is to be sampled.
  void before_step() {
    before_.clear();
    for (const at::Tensor& weight : weights_) before_.push_back(weight.detach().clone());
  }

  /// Call this after every step. It waits for the device if that step is sampled.
  void after_step() {
    if (before_.empty()) return;
    const at::NoGradGuard no_grad;
    for (size_t index = 0; index < weights_.size(); ++index) {
      const at::Tensor& before = before_[index];
      const at::Tensor& after = weights_[index];
      const at::Tensor chord = (after / after.norm()).sub_(before / before.norm()).norm();
      sum_ +=
          2 * (chord / 2).clamp_max(1).asin().item<double>() / static_cast<double>(weights_.size());
    }
    before_.clear();
    ++steps_;
  }

  /// The mean angle in radians; 0 before the first step.
  double mean() const { return steps_ == 0 ? 0 : sum_ / static_cast<double>(steps_); }

  void add_to(lawn::Checkpoint& checkpoint) {
    checkpoint.add("turning/sum", sum_).add("turning/steps", steps_);
  }

 private:
  std::vector<at::Tensor> weights_;
  std::vector<at::Tensor> before_;
  double sum_ = 0;
  int64_t steps_ = 0;
};
