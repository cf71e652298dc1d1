// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bernoulli.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/csrc/autograd/autograd.h>

#include <lawn/sphere/layer.h>

namespace lawn {

/// Direction of the steps of `feature_pgd`.
enum class PerturbationDirection {
  kAscent,       ///< along the sign of the loss's gradient
  kRandomSigns,  ///< a random sign for each element, drawn once: a control
};

/// Options of `feature_pgd`. Checked in each call.
struct PerturbationOptions {
  /// K, the number of steps, >= 0.
  TORCH_ARG(int64_t, steps) = 5;
  /// gamma, the size of a step in each element, >= 0.
  TORCH_ARG(double, step_size) = 1.0 / 255;
  /// The largest perturbation of an element, >= 0; if left out, there is no bound except K gamma,
  /// and no random start.
  TORCH_ARG(std::optional<double>, epsilon) = std::nullopt;
  /// Whether to start from a uniformly drawn perturbation of at most `epsilon`.
  TORCH_ARG(bool, random_start) = false;
  /// Direction of the steps.
  TORCH_ARG(PerturbationDirection, direction) = PerturbationDirection::kAscent;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(steps() >= 0, "lawn::feature_pgd: steps must be >= 0, got ", steps());
    TORCH_CHECK(std::isfinite(step_size()) && step_size() >= 0,
                "lawn::feature_pgd: step_size must be finite and >= 0, got ", step_size());
    TORCH_CHECK(!epsilon() || (std::isfinite(*epsilon()) && *epsilon() >= 0),
                "lawn::feature_pgd: epsilon must be finite and >= 0, got ", epsilon().value_or(0));
    TORCH_CHECK(!random_start() || epsilon(),
                "lawn::feature_pgd: random_start needs an epsilon to draw from, got none; set it");
  }

  /// Whether features come out unchanged.
  bool is_nothing() const {
    return !random_start() && (steps() == 0 || step_size() == 0 || epsilon() == 0.0);
  }
};

namespace detail::afan {

/// Factor of the loss where features are of float16, which holds nothing below 6e-8: the gradient
/// of a mean over many elements would be 0. The factor is a power of two, which rounds nothing, and
/// leaves the gradients of a sum over samples far from 65504.
constexpr double kHalfFactor = 1024;

/// The gradient of the loss by the features, up to a positive factor; gradients of parameters do
/// not change.
template <class Loss>
at::Tensor ascent_direction(const at::Tensor& features, const Loss& loss) {
  const at::AutoGradMode with_gradients(true);
  auto leaf = features.detach().requires_grad_(true);
  const at::Tensor value = loss(leaf);
  TORCH_CHECK(value.defined() && value.numel() == 1,
              "lawn::feature_pgd: expected a loss of one element, got ",
              value.defined() ? "shape " : "an undefined tensor",
              value.defined() ? value.sizes() : at::IntArrayRef());
  TORCH_CHECK(value.requires_grad(),
              "lawn::feature_pgd: expected a loss that depends on the features, got one without a "
              "graph; the tail must neither detach them nor turn gradients off");
  const double factor = features.scalar_type() == at::kHalf ? kHalfFactor : 1;
  auto gradient =
      torch::autograd::grad({value}, {leaf}, {at::full_like(value, factor)}, /*retain_graph=*/false,
                            /*create_graph=*/false, /*allow_unused=*/true)[0];
  TORCH_CHECK(gradient.defined(),
              "lawn::feature_pgd: expected a loss that depends on the features, got one that does "
              "not");
  return gradient;
}

}  // namespace detail::afan

/// Perturbs features so that the loss rises: projected gradient ascent in the infinity norm.
///   delta <- clip(delta + gamma sign(grad_f loss(f + delta)), -eps, eps)          K times
/// `loss`, the tail of the network, runs `steps` times forward and backward, or with `kRandomSigns`
/// not at all. Gradients of parameters stay untouched, dropout draws random numbers, and running
/// statistics are updated unless a `FreezeBatchNormStatistics` is held. The loss of features in
/// float16 is multiplied by 1024 for its gradient, which would underflow otherwise.
/// @param options   eps, gamma, K and the direction; checked before anything is called
/// @param features  f: any shape, floating point. delta is kept in float32 for half and bfloat16
/// @param loss      features -> a differentiable tensor of one element
/// @return f + delta: shape, dtype and device of `features`, without a graph, in memory of its own
/// @throws c10::Error for options out of range, features that are not of floating point, and, where
///         it runs, a loss that does not depend on them
/// @note   does not wait for the device
/// @source Chen et al. 2021, arXiv 2103.12171; Madry et al. 2018, arXiv 1706.06083, section 2.1
template <class Loss>
at::Tensor feature_pgd(const at::Tensor& features, const Loss& loss,
                       const PerturbationOptions& options = {}) {
  options.validate();
  TORCH_CHECK(features.defined() && features.is_floating_point(),
              "lawn::feature_pgd: expected features of floating point, got ",
              features.defined() ? c10::toString(features.scalar_type()) : "an undefined tensor");
  const at::NoGradGuard no_grad;
  const auto clean = features.detach();
  const auto wide = clean.to(sphere::accumulation_dtype(clean));
  auto delta = at::zeros_like(wide);
  const auto perturbed = [&] { return (wide + delta).to(clean.scalar_type()); };
  if (options.random_start()) delta.uniform_(-*options.epsilon(), *options.epsilon());
  at::Tensor direction;
  if (options.direction() == PerturbationDirection::kRandomSigns) {
    direction = at::empty_like(wide).bernoulli_(0.5).mul_(2).sub_(1);
  }
  for (int64_t step = 0; step < options.steps(); ++step) {
    if (options.direction() == PerturbationDirection::kAscent) {
      direction = at::sign(detail::afan::ascent_direction(perturbed(), loss));
    }
    delta.add_(direction.to(delta.scalar_type()), options.step_size());
    if (options.epsilon()) delta.clamp_(-*options.epsilon(), *options.epsilon());
  }
  return perturbed();
}

}  // namespace lawn
