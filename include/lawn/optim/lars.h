// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/ArrayRef.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/serialize.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/held_once.h>
#include <lawn/optim/group_options.h>
#include <lawn/optim/lars_options.h>
#include <lawn/optim/tensor_lists.h>
#include <lawn/sphere/layer.h>

namespace lawn {

/// SGD whose learning rate follows, for each weight tensor, the norms of weight and gradient.
///
///   r = trust_coefficient ||w|| / (||g|| + weight_decay ||w|| + eps)
///   r <- min(r / lr, 1)                                              with `trust_clip`
///   d = r (g + weight_decay w)
///   m <- momentum m + d
///   w <- w - lr m,  or w - lr (d + momentum m) with `nesterov`
///
/// The trust ratio r counts as 1 (before `trust_clip`) where one of the norms is zero, and is 1
/// throughout a group whose `weight_decay` is 0, unless `always_adapt`: put biases and the
/// parameters of normalisation into such a group.
///
/// Parameters in bfloat16 and half have their momentum in float32, and each new weight is rounded
/// once. Options of a parameter group stand as they are given, with no defaults merged into them,
/// in every version of LibTorch. (Under LibTorch 2.15 that does not hold for a group added through
/// a reference to `torch::optim::Optimizer`, whose `add_param_group` is not virtual.)
///
/// Under `LAWN`, which takes the decay of constrained weights off their gradients, r still has the
/// `weight_decay` in its denominator; `weight_decay(0).always_adapt(true)` is free of that.
///
/// @note    `step` does not wait for the device
/// @source  You et al. 2017, arXiv 1708.03888, algorithm 1; `trust_clip`: NVIDIA's LARC
class LARS : public torch::optim::Optimizer {
 public:
  LARS(const std::vector<torch::optim::OptimizerParamGroup>& groups, const LARSOptions& defaults)
      : Optimizer(groups, std::make_unique<LARSOptions>(defaults)) {
    defaults.validate();
    held_once_.check(kName, param_groups_);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      detail::check_group_options<LARSOptions>(kName, groups[g]);
      detail::keep_group_options(groups[g], param_groups_[g]);
    }
  }
  LARS(std::vector<at::Tensor> parameters, const LARSOptions& defaults)
      : LARS({torch::optim::OptimizerParamGroup(std::move(parameters))}, defaults) {}

  /// As LibTorch's, and checks the options of the group.
  void add_param_group(const torch::optim::OptimizerParamGroup& group) {
    detail::check_group_options<LARSOptions>(kName, group);
    detail::refuse_held(kName, param_groups_, group);
    Optimizer::add_param_group(group);
    detail::keep_group_options(group, param_groups_.back());
  }

  /// Refuses what a step with the gradients of now would refuse; `step()` does it by itself.
  /// @throws c10::Error that names the parameter: for one that is held twice or whose state has
  ///         another shape, and for a sparse gradient. Nothing is changed
  void check_step() {
    held_once_.check(kName, param_groups_,
                     [this](const at::Tensor& parameter, const detail::Position& position) {
                       const auto found = state_.find(parameter.unsafeGetTensorImpl());
                       if (found == state_.end()) return;
                       const auto& state = static_cast<const LARSParamState&>(*found->second);
                       detail::refuse_other_shape(kName, state.momentum_buffer(), parameter,
                                                  position);
                     });
    detail::check_gradients<LARSOptions>(kName, param_groups_);
  }

  /// One step on every parameter that has a gradient; gradients stay as they are.
  /// @return the closure's loss, or an undefined tensor
  /// @throws c10::Error as `check_step`, before anything is changed
  at::Tensor step(LossClosure closure = nullptr) override {
    at::Tensor loss;
    if (closure) {
      const at::AutoGradMode with_grad(true);
      loss = closure();
    }
    check_step();
    const at::NoGradGuard no_grad;
    const auto batches = detail::batches<LARSOptions>(kName, param_groups_);
    std::vector<at::Tensor> weights;
    std::vector<at::Tensor> gradients;
    for (const Batch& batch : batches) {
      if (!adapts(batch)) continue;
      weights.insert(weights.end(), batch.weights.begin(), batch.weights.end());
      gradients.insert(gradients.end(), batch.gradients.begin(), batch.gradients.end());
    }
    const auto weight_norms = detail::norms(weights);
    const auto gradient_norms = detail::norms(gradients);
    std::size_t done = 0;
    for (const Batch& batch : batches) {
      std::vector<at::Tensor> ratios;
      if (adapts(batch)) {
        const std::size_t count = batch.weights.size();
        ratios = trust_ratios({weight_norms.data() + done, count},
                              {gradient_norms.data() + done, count}, *batch.options);
        done += count;
      }
      move_(batch, ratios);
    }
    return loss;
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    torch::optim::serialize<LARSParamState, LARSOptions>(archive, *this);
  }
  void load(torch::serialize::InputArchive& archive) override {
    torch::optim::serialize<LARSParamState, LARSOptions>(archive, *this);
    held_once_ = {};  // to look at the new state
  }

 private:
  using Batch = detail::Batch<LARSOptions>;
  static constexpr const char* kName = "lawn::LARS";

  static bool adapts(const Batch& batch) {
    return batch.options->weight_decay() != 0 || batch.options->always_adapt();
  }

  /// The r of each weight of a batch.
  static std::vector<at::Tensor> trust_ratios(c10::ArrayRef<at::Tensor> weight_norms,
                                              c10::ArrayRef<at::Tensor> gradient_norms,
                                              const LARSOptions& options) {
    const auto w = at::stack(weight_norms);
    const auto g = at::stack(gradient_norms).to(w.scalar_type());
    const auto quotient =
        options.trust_coefficient() * w / (g + options.weight_decay() * w + options.eps());
    auto ratio = at::where((w > 0).logical_and(g > 0), quotient, 1.0);
    if (options.trust_clip()) ratio = (ratio / options.lr()).clamp_max(1.0);
    return ratio.unbind();
  }

  at::Tensor momentum_of(const at::Tensor& weight) {
    auto& state = state_[weight.unsafeGetTensorImpl()];
    if (!state) {
      const auto options = weight.options().dtype(sphere::accumulation_dtype(weight));
      auto fresh = std::make_unique<LARSParamState>();
      fresh->momentum_buffer(at::zeros_like(weight, options));
      state = std::move(fresh);
    }
    auto& found = static_cast<LARSParamState&>(*state);
    found.momentum_buffer(sphere::beside_sums(weight, found.momentum_buffer()));
    return found.momentum_buffer();
  }

  /// The step of one batch. Without `ratios` it is SGD's.
  void move_(const Batch& batch, const std::vector<at::Tensor>& ratios) {
    const LARSOptions& options = *batch.options;
    const auto weights = detail::widened(batch.weights, batch.weights.front());
    auto directions = detail::widened(batch.gradients, batch.weights.front());
    if (options.weight_decay() != 0) {
      directions = at::_foreach_add(directions, weights, options.weight_decay());
      at::_foreach_mul_(directions, ratios);
    } else if (!ratios.empty()) {
      directions = at::_foreach_mul(directions, ratios);
    }
    if (options.momentum() != 0) {
      std::vector<at::Tensor> buffers;
      buffers.reserve(batch.weights.size());
      for (const at::Tensor& weight : batch.weights) buffers.push_back(momentum_of(weight));
      at::_foreach_mul_(buffers, options.momentum());
      at::_foreach_add_(buffers, directions);
      directions = options.nesterov() ? at::_foreach_add(directions, buffers, options.momentum())
                                      : std::move(buffers);
    }
    at::_foreach_add_(weights, directions, -options.lr());
    if (!weights.front().is_same(batch.weights.front())) {
      at::_foreach_copy_(batch.weights, weights);
    }
  }

  detail::HeldOnce held_once_;
};

}  // namespace lawn
