// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/serialize.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/optim/group_options.h>
#include <lawn/optim/tensor_lists.h>
#include <lawn/sphere/layer.h>

namespace lawn {

/// Options of `LARS`. Checked when the optimizer is constructed and when a group is added.
struct LARSOptions : public torch::optim::OptimizerCloneableOptions<LARSOptions> {
  LARSOptions(double lr) : lr_(lr) {}  // converts from a learning rate, as LibTorch's do
  /// Learning rate, >= 0.
  TORCH_ARG(double, lr);
  /// Decay of the momentum per step, in [0, 1); 0 keeps none.
  TORCH_ARG(double, momentum) = 0.9;
  /// lambda, >= 0. With 0, weights are adapted with `always_adapt` alone.
  TORCH_ARG(double, weight_decay) = 1e-4;
  /// eta, > 0.
  TORCH_ARG(double, trust_coefficient) = 0.001;
  /// Added to the denominator of the trust ratio, >= 0.
  TORCH_ARG(double, eps) = 1e-8;
  /// Whether the step looks one momentum ahead; needs a momentum.
  TORCH_ARG(bool, nesterov) = false;
  /// Whether the learning rate of a weight, lr times its trust ratio, becomes min(trust ratio, lr)
  /// instead, as in LARC.
  TORCH_ARG(bool, trust_clip) = false;
  /// Whether groups without weight decay (as a rule biases and normalisation) are adapted as well.
  TORCH_ARG(bool, always_adapt) = false;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    const auto check = [](const char* option, double value, bool good, const char* range) {
      TORCH_CHECK(std::isfinite(value) && good, "lawn::LARS: ", option, " must be ", range,
                  ", got ", value);
    };
    check("lr", lr(), lr() >= 0, "finite and >= 0");
    check("momentum", momentum(), momentum() >= 0 && momentum() < 1, "in [0, 1)");
    check("weight_decay", weight_decay(), weight_decay() >= 0, "finite and >= 0");
    check("trust_coefficient", trust_coefficient(), trust_coefficient() > 0, "finite and > 0");
    check("eps", eps(), eps() >= 0, "finite and >= 0");
    TORCH_CHECK(!nesterov() || momentum() > 0, "lawn::LARS: nesterov needs a momentum > 0, got ",
                momentum());
  }

  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("lr", c10::IValue(lr()));
    archive.write("momentum", c10::IValue(momentum()));
    archive.write("weight_decay", c10::IValue(weight_decay()));
    archive.write("trust_coefficient", c10::IValue(trust_coefficient()));
    archive.write("eps", c10::IValue(eps()));
    archive.write("nesterov", c10::IValue(nesterov()));
    archive.write("trust_clip", c10::IValue(trust_clip()));
    archive.write("always_adapt", c10::IValue(always_adapt()));
  }
  void serialize(torch::serialize::InputArchive& archive) override {
    const auto read = [&archive](const char* key) {
      c10::IValue value;
      archive.read(key, value);
      return value;
    };
    lr(read("lr").toDouble());
    momentum(read("momentum").toDouble());
    weight_decay(read("weight_decay").toDouble());
    trust_coefficient(read("trust_coefficient").toDouble());
    eps(read("eps").toDouble());
    nesterov(read("nesterov").toBool());
    trust_clip(read("trust_clip").toBool());
    always_adapt(read("always_adapt").toBool());
  }
  double get_lr() const override { return lr(); }
  void set_lr(const double value) override { lr(value); }

  friend bool operator==(const LARSOptions& a, const LARSOptions& b) {
    return a.lr() == b.lr() && a.momentum() == b.momentum() &&
           a.weight_decay() == b.weight_decay() && a.trust_coefficient() == b.trust_coefficient() &&
           a.eps() == b.eps() && a.nesterov() == b.nesterov() && a.trust_clip() == b.trust_clip() &&
           a.always_adapt() == b.always_adapt();
  }
};

/// What `LARS` keeps of a parameter; nothing without momentum.
struct LARSParamState : public torch::optim::OptimizerCloneableParamState<LARSParamState> {
  /// Shape and device of the parameter; float64 for a float64 parameter, else float32.
  TORCH_ARG(at::Tensor, momentum_buffer);

 public:
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("momentum_buffer", momentum_buffer(), /*is_buffer=*/true);
  }
  void serialize(torch::serialize::InputArchive& archive) override {
    at::Tensor buffer;
    archive.read("momentum_buffer", buffer, /*is_buffer=*/true);
    momentum_buffer(buffer);
  }

  friend bool operator==(const LARSParamState& a, const LARSParamState& b) {
    return detail::same_values(a.momentum_buffer(), b.momentum_buffer());
  }
};

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
  LARS(const std::vector<torch::optim::OptimizerParamGroup>& groups, LARSOptions defaults)
      : Optimizer(groups, std::make_unique<LARSOptions>(defaults)) {
    defaults.validate();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      detail::check_group_options<LARSOptions>(kName, groups[g]);
      detail::keep_group_options(groups[g], param_groups_[g]);
    }
  }
  LARS(std::vector<at::Tensor> parameters, LARSOptions defaults)
      : LARS({torch::optim::OptimizerParamGroup(std::move(parameters))}, std::move(defaults)) {}

  /// As LibTorch's, and checks the options of the group.
  void add_param_group(const torch::optim::OptimizerParamGroup& group) {
    detail::check_group_options<LARSOptions>(kName, group);
    Optimizer::add_param_group(group);
    detail::keep_group_options(group, param_groups_.back());
  }

  /// One step on every parameter that has a gradient; gradients stay as they are.
  /// @return the closure's loss, or an undefined tensor
  /// @throws c10::Error for a sparse gradient, before anything is changed
  at::Tensor step(LossClosure closure = nullptr) override {
    at::Tensor loss;
    if (closure) {
      const at::AutoGradMode with_grad(true);
      loss = closure();
    }
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
    return static_cast<LARSParamState&>(*state).momentum_buffer();
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
};

}  // namespace lawn
