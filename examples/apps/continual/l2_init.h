// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <lawn/decorator.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>

#include <utility>
#include <vector>

/// Pulls each parameter towards its initial value:
///   g <- g + strength (w - w_0)
/// which is what strength / 2 ||w - w_0||^2 adds to the loss; the strength is twice the paper's.
/// @source Kumar, Marklund and Van Roy 2023, arXiv 2308.11958
class L2InitRule {
 public:
  static constexpr const char* kWho = "L2Init";

  /// @param parameters  with their initial values
  L2InitRule(std::vector<at::Tensor> parameters, double strength)
      : parameters_(std::move(parameters)), strength_(strength) {
    TORCH_CHECK(strength >= 0, kWho, ": expected a strength >= 0, got ", strength);
    for (const at::Tensor& parameter : parameters_) {
      initial_.push_back(parameter.detach().clone());
    }
  }

  void before_step(torch::optim::Optimizer& /*optimizer*/) {
    const at::NoGradGuard no_grad;
    for (size_t index = 0; index < parameters_.size(); ++index) {
      at::Tensor& gradient = parameters_[index].mutable_grad();
      if (!gradient.defined()) continue;
      gradient.add_(parameters_[index], strength_).sub_(initial_[index], strength_);
    }
  }
  void after_step(torch::optim::Optimizer& /*optimizer*/) {}

  // A resumed run draws the initial weights again, from its seed.
  void save(torch::serialize::OutputArchive& /*archive*/) const {}
  void load(torch::serialize::InputArchive& /*archive*/,
            const torch::optim::Optimizer& /*optimizer*/) {}

 private:
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> initial_;
  double strength_;
};

/// An optimizer that pulls parameters towards their values at its construction.
template <class Opt>
class L2Init : public lawn::Decorator<Opt, L2InitRule> {
 public:
  L2Init(Opt&& optimizer, const std::vector<at::Tensor>& parameters, double strength)
      : lawn::Decorator<Opt, L2InitRule>(std::move(optimizer), L2InitRule(parameters, strength)) {}
};
