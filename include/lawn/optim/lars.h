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

#include <lawn/optim/checked_groups.h>
#include <lawn/optim/lars_options.h>
#include <lawn/optim/parameter_lists.h>
#include <lawn/parameters/tensor_lists.h>
#include <lawn/sphere/layer.h>

namespace lawn {

/// SGD that adapts the learning rate of each weight tensor to the norms of weight and gradient.
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
/// once. In every version of LibTorch, a parameter group keeps its options as they are given, with
/// no defaults merged into them. (Under LibTorch 2.15 that does not hold for a group added through
/// a reference to `torch::optim::Optimizer`, whose `add_param_group` is not virtual.)
///
/// `LAWN` removes the decay of constrained weights from their gradients, but r still has
/// `weight_decay` in its denominator; `weight_decay(0).always_adapt(true)` avoids that.
///
/// @note    `step` does not wait for the device
/// @source  You et al. 2017, arXiv 1708.03888, algorithm 1; `trust_clip`: NVIDIA's LARC
class LARS : public detail::optim::CheckedGroups<LARSOptions, LARSParamState,
                                                 &LARSParamState::momentum_buffer> {
 public:
  /// @param groups    parameter groups; one without options of its own gets `defaults`
  /// @param defaults  options of groups without their own
  /// @throws c10::Error that names an option out of its range, or a parameter that is held twice
  LARS(const std::vector<torch::optim::OptimizerParamGroup>& groups, const LARSOptions& defaults)
      : CheckedGroups(kWho, groups, defaults) {}
  /// The same for one group.
  LARS(std::vector<at::Tensor> parameters, const LARSOptions& defaults)
      : LARS({torch::optim::OptimizerParamGroup(std::move(parameters))}, defaults) {}

  /// Steps every parameter that has a gradient; gradients stay as they are.
  /// @return the closure's loss, or an undefined tensor
  /// @throws c10::Error as `check_step` does, before anything is changed
  at::Tensor step(LossClosure closure = nullptr) override {
    at::Tensor loss;
    if (closure) {
      const at::AutoGradMode with_grad(true);
      loss = closure();
    }
    check_step();
    const at::NoGradGuard no_grad;
    const auto lists = detail::optim::parameter_lists<LARSOptions>(kWho, param_groups_);
    std::vector<at::Tensor> weights;
    std::vector<at::Tensor> gradients;
    for (const List& list : lists) {
      if (!adapts(list)) continue;
      weights.insert(weights.end(), list.weights.begin(), list.weights.end());
      gradients.insert(gradients.end(), list.gradients.begin(), list.gradients.end());
    }
    const auto weight_norms = detail::parameters::norms(weights);
    const auto gradient_norms = detail::parameters::norms(gradients);
    std::size_t done = 0;
    for (const List& list : lists) {
      std::vector<at::Tensor> ratios;
      if (adapts(list)) {
        const std::size_t count = list.weights.size();
        ratios = trust_ratios({weight_norms.data() + done, count},
                              {gradient_norms.data() + done, count}, *list.options);
        done += count;
      }
      move_(list, ratios);
    }
    return loss;
  }

 private:
  using List = detail::optim::ParameterList<LARSOptions>;
  static constexpr const char* kWho = "lawn::LARS";

  static bool adapts(const List& list) {
    return list.options->weight_decay() != 0 || list.options->always_adapt();
  }

  /// The trust ratio r of each weight of a list.
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

  /// Steps one list; without `ratios` the step is SGD's.
  void move_(const List& list, const std::vector<at::Tensor>& ratios) {
    const LARSOptions& options = *list.options;
    const auto weights = detail::parameters::widened(list.weights, list.weights.front());
    auto directions = detail::parameters::widened(list.gradients, list.weights.front());
    if (options.weight_decay() != 0) {
      directions = at::_foreach_add(directions, weights, options.weight_decay());
      at::_foreach_mul_(directions, ratios);
    } else if (!ratios.empty()) {
      directions = at::_foreach_mul(directions, ratios);
    }
    if (options.momentum() != 0) {
      std::vector<at::Tensor> buffers;
      buffers.reserve(list.weights.size());
      for (const at::Tensor& weight : list.weights) buffers.push_back(momentum_of(weight));
      at::_foreach_mul_(buffers, options.momentum());
      at::_foreach_add_(buffers, directions);
      directions = options.nesterov() ? at::_foreach_add(directions, buffers, options.momentum())
                                      : std::move(buffers);
    }
    at::_foreach_add_(weights, directions, -options.lr());
    if (!weights.front().is_same(list.weights.front())) {
      at::_foreach_copy_(list.weights, weights);
    }
  }
};

}  // namespace lawn
