// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include <torch/torch.h>

namespace lawn::testing {

struct SignMomentumOptions : torch::optim::OptimizerCloneableOptions<SignMomentumOptions> {
  explicit SignMomentumOptions(double lr = 1e-2) : lr_(lr) {}
  TORCH_ARG(double, lr);
  TORCH_ARG(double, decay) = 0;

 public:
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("lr", torch::IValue(lr()));
    archive.write("decay", torch::IValue(decay()));
  }
  void serialize(torch::serialize::InputArchive& archive) override {
    c10::IValue value;
    archive.read("lr", value);
    lr(value.toDouble());
    archive.read("decay", value);
    decay(value.toDouble());
  }
  double get_lr() const override { return lr(); }
  void set_lr(const double lr) override { lr_ = lr; }
};

struct SignMomentumState : torch::optim::OptimizerCloneableParamState<SignMomentumState> {
  TORCH_ARG(torch::Tensor, average);

 public:
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("average", average(), /*is_buffer=*/true);
  }
  void serialize(torch::serialize::InputArchive& archive) override {
    torch::Tensor loaded;
    archive.read("average", loaded, /*is_buffer=*/true);
    average(loaded);
  }
};

/// An optimizer such as a user might bring: m <- 0.9 m + 0.1 (g + decay w), w <- w - lr m / (|m| +
/// 0.1). It has no `save` and `load` of its own, and LibTorch's do nothing.
class UnsavedSignMomentum : public torch::optim::Optimizer {
 public:
  explicit UnsavedSignMomentum(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                               SignMomentumOptions defaults = SignMomentumOptions())
      : Optimizer(groups, std::make_unique<SignMomentumOptions>(std::move(defaults))) {}

  torch::Tensor step(LossClosure closure = nullptr) override {
    torch::Tensor loss;
    if (closure) {
      const torch::AutoGradMode with_grad(true);
      loss = closure();
    }
    const torch::NoGradGuard no_grad;
    for (auto& group : param_groups_) {
      const auto& options = static_cast<const SignMomentumOptions&>(group.options());
      for (auto& parameter : group.params()) {
        if (!parameter.grad().defined()) continue;
        auto& state = state_[parameter.unsafeGetTensorImpl()];
        if (!state) {
          auto fresh = std::make_unique<SignMomentumState>();
          fresh->average(torch::zeros_like(parameter));
          state = std::move(fresh);
        }
        auto average = static_cast<SignMomentumState&>(*state).average();
        average.mul_(0.9).add_(parameter.grad() + options.decay() * parameter, 0.1);
        parameter.sub_(options.lr() * average / (average.abs() + 0.1));
      }
    }
    return loss;
  }
};

/// The same with `save` and `load`.
class SignMomentum : public UnsavedSignMomentum {
 public:
  using UnsavedSignMomentum::UnsavedSignMomentum;

  void save(torch::serialize::OutputArchive& archive) const override {
    torch::optim::serialize<SignMomentumState, SignMomentumOptions>(archive, *this);
  }
  void load(torch::serialize::InputArchive& archive) override {
    torch::optim::serialize<SignMomentumState, SignMomentumOptions>(archive, *this);
  }
};

}  // namespace lawn::testing
