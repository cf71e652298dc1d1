// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/Scalar.h>
#include <c10/util/ArrayRef.h>
#include <torch/optim/optimizer.h>

#include <lawn/optim/checked_groups.h>
#include <lawn/optim/fused/entries.h>
#include <lawn/optim/lamb_options.h>
#include <lawn/optim/parameter_lists.h>
#include <lawn/parameters/tensor_lists.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/functions.h>

namespace lawn {

/// Adam with the update of each weight tensor scaled to the learning rate times the weight's norm.
///
///   m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2
///   u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay w
///   w <- w - lr min(||w|| / ||u||, max_trust_ratio) u
///
/// The trust ratio ||w|| / ||u|| counts as 1 where one of the norms is zero, and is 1 throughout a
/// group whose `weight_decay` is 0, unless `always_adapt`: put biases and the parameters of
/// normalisation into such a group. Gradients are not clipped. Other implementations also clip
/// their common norm to 1; here call `clip_grad_norm_(parameters, 1)` before the step.
///
/// Parameters in bfloat16 and half have moments in float32, and each new weight is rounded once. In
/// every version of LibTorch, a parameter group keeps its options as they are given, with no
/// defaults merged into them. (Under LibTorch 2.15 that does not hold for a group added through a
/// reference to `torch::optim::Optimizer`, whose `add_param_group` is not virtual.)
///
/// `LAWN` restores what the decay takes off the norms of constrained weights, but ||u|| still holds
/// `weight_decay w`, which as a rule shrinks the trust ratio; `weight_decay(0).always_adapt(true)`
/// avoids that.
///
/// @note    `step` does not wait for the device. Step counts and learning rates live on the host: a
///          CUDA graph would replay those of its capture
/// @source  You et al. 2019, arXiv 1904.00962, algorithm 2, with the identity for phi
class LAMB
    : public detail::optim::CheckedGroups<LAMBOptions, LAMBParamState, &LAMBParamState::exp_avg> {
 public:
  /// @param groups    parameter groups; one without options of its own gets `defaults`
  /// @param defaults  options of groups without their own
  /// @throws c10::Error that names an option out of its range, or a parameter that is held twice
  explicit LAMB(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                const LAMBOptions& defaults = {})
      : CheckedGroups(kWho, groups, defaults) {}
  /// The same for one group.
  explicit LAMB(std::vector<at::Tensor> parameters, const LAMBOptions& defaults = {})
      : LAMB({torch::optim::OptimizerParamGroup(std::move(parameters))}, defaults) {}

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
    std::vector<Update> updates;
    for (auto& list : detail::optim::parameter_lists<LAMBOptions>(kWho, param_groups_)) {
      updates.push_back(adam_update(std::move(list)));
    }
    adapt_(updates);
    for (const Update& update : updates) {
      at::_foreach_add_(update.wide_weights, update.values, -update.list.options->lr());
      if (!update.wide_weights.front().is_same(update.list.weights.front())) {
        at::_foreach_copy_(update.list.weights, update.wide_weights);
      }
    }
    return loss;
  }

 private:
  static constexpr const char* kWho = "lawn::LAMB";

  /// The update u of each weight of a list.
  struct Update {
    detail::optim::ParameterList<LAMBOptions> list;
    std::vector<at::Tensor> wide_weights;
    std::vector<at::Tensor> values;
  };

  LAMBParamState& state_of(const at::Tensor& weight) {
    auto& state = state_[weight.unsafeGetTensorImpl()];
    if (!state) {
      const auto options = weight.options().dtype(sphere::accumulation_dtype(weight));
      auto fresh = std::make_unique<LAMBParamState>();
      fresh->exp_avg(at::zeros_like(weight, options));
      fresh->exp_avg_sq(at::zeros_like(weight, options));
      state = std::move(fresh);
    }
    auto& found = static_cast<LAMBParamState&>(*state);
    found.exp_avg(sphere::beside_sums(weight, found.exp_avg()));
    found.exp_avg_sq(sphere::beside_sums(weight, found.exp_avg_sq()));
    return found;
  }

  Update adam_update(detail::optim::ParameterList<LAMBOptions> list) {
    const LAMBOptions& options = *list.options;
    auto wide_weights = detail::parameters::widened(list.weights, list.weights.front());
    const auto gradients = detail::parameters::widened(list.gradients, list.weights.front());
    std::vector<at::Tensor> values(list.weights.size());
    std::vector<Entry> fused;
    std::vector<Entry> unfused;
    for (std::size_t i = 0; i < values.size(); ++i) {
      LAMBParamState& state = state_of(list.weights[i]);
      state.step(state.step() + 1);
      values[i] = at::empty_like(wide_weights[i]);
      const bool fits =
          detail::optim::can_fuse(values[i], /*reduced_on_cpu=*/false, /*on_gpu=*/true) &&
          sphere::beside(values[i], state.exp_avg()) &&
          sphere::beside(values[i], state.exp_avg_sq());
      const auto ordered =
          fits ? detail::optim::in_order_of(values[i], gradients[i]) : at::Tensor();
      if (ordered.defined()) {
        fused.push_back({values[i], ordered, &state});
      } else {
        unfused.push_back({values[i], gradients[i], &state});
      }
    }
    if (!fused.empty()) adam_fused_(fused, options);
    if (!unfused.empty()) adam_unfused_(unfused, options);
    if (options.weight_decay() != 0) {
      at::_foreach_add_(values, wide_weights, options.weight_decay());
    }
    return {std::move(list), std::move(wide_weights), std::move(values)};
  }

  /// Where a weight's m / c1 / (sqrt(v / c2) + eps) is written, its gradient in float32 or wider,
  /// and its state; c1 and c2 are the bias corrections.
  using Entry = detail::optim::FusedEntry<LAMBParamState>;

  /// Writes the values: Adam's fused step from zero with a learning rate of -1.
  static void adam_fused_(const std::vector<Entry>& list, const LAMBOptions& options) {
    const auto column = [&list](const auto& get) {
      return detail::optim::column(c10::ArrayRef<Entry>(list), get);
    };
    const auto values = column([](const Entry& entry) { return entry.parameter; });
    // After infinitely many steps nothing is left of the bias.
    const auto endless = at::full({}, std::numeric_limits<double>::infinity(),
                                  list.front().parameter.options().dtype(at::kFloat));
    const auto steps = options.bias_correction()
                           ? detail::optim::step_counts(c10::ArrayRef<Entry>(list))
                           : std::vector<at::Tensor>(list.size(), endless);
    const auto [beta1, beta2] = options.betas();
    at::_foreach_zero_(values);
    at::_fused_adam_(values, column([](const Entry& entry) { return entry.gradient; }),
                     column([](const Entry& entry) { return entry.state->exp_avg(); }),
                     column([](const Entry& entry) { return entry.state->exp_avg_sq(); }),
                     /*max_exp_avg_sqs=*/{}, steps, /*lr=*/-1.0, beta1, beta2, /*weight_decay=*/0.0,
                     options.eps(), /*amsgrad=*/false, /*maximize=*/false, std::nullopt,
                     std::nullopt);
  }

  /// The same for any device and stride.
  static void adam_unfused_(const std::vector<Entry>& list, const LAMBOptions& options) {
    const auto [beta1, beta2] = options.betas();
    std::vector<at::Tensor> values;
    std::vector<at::Tensor> gradients;
    std::vector<at::Tensor> first;
    std::vector<at::Tensor> second;
    // m / c1 / (sqrt(v) / sqrt(c2) + eps) = m / (c1 / sqrt(c2) sqrt(v) + c1 eps)
    std::vector<at::Scalar> root_factors;
    std::vector<at::Scalar> root_terms;
    for (const Entry& entry : list) {
      values.push_back(entry.parameter);
      gradients.push_back(entry.gradient);
      first.push_back(entry.state->exp_avg());
      second.push_back(entry.state->exp_avg_sq());
      const auto t = static_cast<double>(entry.state->step());
      const double correction1 = options.bias_correction() ? 1 - std::pow(beta1, t) : 1;
      const double correction2 = options.bias_correction() ? 1 - std::pow(beta2, t) : 1;
      root_factors.emplace_back(correction1 / std::sqrt(correction2));
      root_terms.emplace_back(correction1 * options.eps());
    }
    at::_foreach_lerp_(first, gradients, 1 - beta1);
    at::_foreach_mul_(second, beta2);
    at::_foreach_addcmul_(second, gradients, gradients, 1 - beta2);
    auto roots = at::_foreach_sqrt(second);
    at::_foreach_mul_(roots, root_factors);
    at::_foreach_add_(roots, root_terms);
    at::_foreach_copy_(values, at::_foreach_div(first, roots));
  }

  /// Multiplies each update by its trust ratio, that is, rescales it to its weight's norm.
  /// `sphere::rescale_` leaves a vector as it is if one of the norms is zero.
  static void adapt_(const std::vector<Update>& updates) {
    std::vector<at::Tensor> weights;
    for (const Update& update : updates) {
      if (!adapts(update)) continue;
      const auto& list = update.list.weights;
      weights.insert(weights.end(), list.begin(), list.end());
    }
    auto radii = detail::parameters::norms(weights);
    std::vector<sphere::Layer> layers;
    layers.reserve(radii.size());
    for (const Update& update : updates) {
      if (!adapts(update)) continue;
      const c10::ArrayRef<at::Tensor> norms(radii.data() + layers.size(), update.values.size());
      const auto bounded = bound(norms, update);
      for (std::size_t i = 0; i < bounded.size(); ++i) {
        layers.push_back(sphere::whole(update.values[i], bounded[i]));
      }
    }
    sphere::rescale_(layers);
  }

  static bool adapts(const Update& update) {
    return update.list.options->weight_decay() != 0 || update.list.options->always_adapt();
  }

  /// min(||w||, max_trust_ratio ||u||), where ||u|| replaces a ||w|| that is zero.
  static std::vector<at::Tensor> bound(c10::ArrayRef<at::Tensor> weight_norms,
                                       const Update& update) {
    const double most = update.list.options->max_trust_ratio();
    if (std::isinf(most)) return weight_norms.vec();
    const auto norms = at::stack(weight_norms);
    const auto lengths = at::stack(detail::parameters::norms(update.values));
    return at::minimum(at::where(norms > 0, norms, lengths), lengths * most).unbind();
  }
};

}  // namespace lawn
