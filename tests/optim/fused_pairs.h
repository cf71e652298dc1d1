// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/optim/fused_adagrad.h>
#include <lawn/optim/fused_adam.h>
#include <lawn/optim/fused_adamw.h>
#include <lawn/optim/fused_sgd.h>

#include "tests/support/tolerance.h"

/// The fused optimizers beside LibTorch's own, on the same gradients.
namespace lawn::testing {

struct SGDPair {
  using Plain = torch::optim::SGD;
  using Fused = lawn::FusedSGD;
  static constexpr const char* kFunction = "aten::_fused_sgd_";
  /// One after the other; the first is the simplest.
  static auto options() {
    const auto sgd = torch::optim::SGDOptions(0.05);
    auto momentum = sgd;
    momentum.momentum(0.9);
    auto dampened = momentum;
    dampened.dampening(0.5).weight_decay(0.1);
    auto nesterov = momentum;
    nesterov.nesterov(true).weight_decay(0.1);
    return std::vector<torch::optim::SGDOptions>{sgd, momentum, dampened, nesterov};
  }
};

template <class Options>
std::vector<Options> adam_options() {
  const auto adam = Options(0.02).weight_decay(0);
  auto decayed = adam;
  decayed.weight_decay(0.1).betas({0.8, 0.95}).eps(1e-5);
  auto amsgrad = decayed;
  amsgrad.amsgrad(true);
  return {adam, decayed, amsgrad};
}

struct AdamPair {
  using Plain = torch::optim::Adam;
  using Fused = lawn::FusedAdam;
  static constexpr const char* kFunction = "aten::_fused_adam_";
  static auto options() { return adam_options<torch::optim::AdamOptions>(); }
};

struct AdamWPair {
  using Plain = torch::optim::AdamW;
  using Fused = lawn::FusedAdamW;
  static constexpr const char* kFunction = "aten::_fused_adamw_";
  static auto options() { return adam_options<torch::optim::AdamWOptions>(); }
};

struct AdagradPair {
  using Plain = torch::optim::Adagrad;
  using Fused = lawn::FusedAdagrad;
  static constexpr const char* kFunction = "aten::_fused_adagrad_";
  static auto options() {
    const auto adagrad = torch::optim::AdagradOptions(0.1);
    auto decayed = adagrad;
    decayed.lr_decay(0.01).weight_decay(0.1).initial_accumulator_value(0.5).eps(1e-6);
    return std::vector<torch::optim::AdagradOptions>{adagrad, decayed};
  }
};

using FusedPairs = ::testing::Types<SGDPair, AdamPair, AdamWPair, AdagradPair>;

using Tensors = std::vector<torch::Tensor>;
using Group = torch::optim::OptimizerParamGroup;

/// Parameters of several shapes and orders of memory.
inline Tensors parameters(torch::TensorOptions options) {
  const auto leaf = [&](const torch::Tensor& values) {
    return values.to(options).requires_grad_();
  };
  return {leaf(torch::randn({17, 13})), leaf(torch::randn({5})), leaf(torch::randn({})),
          leaf(torch::randn({4, 3, 3, 5}).contiguous(torch::MemoryFormat::ChannelsLast)),
          leaf(torch::randn({6, 9}).t())};
}

/// The same values, dtypes and strides in memory of their own.
inline Tensors copies(const Tensors& tensors) {
  Tensors all;
  for (const auto& tensor : tensors) all.push_back(tensor.detach().clone().requires_grad_());
  return all;
}

/// A gradient that pulls each element towards 0, with noise that depends on `step` alone.
inline void set_pulling_gradients(const Tensors& tensors, int64_t step) {
  torch::manual_seed(1000 + step);
  for (const auto& tensor : tensors) {
    const auto values = tensor.detach();
    const auto noise = torch::randn(tensor.sizes(), torch::kDouble);
    tensor.mutable_grad() = values + noise.to(values.options());
  }
}

/// Expects equal values but for rounding: `tolerance` times the largest element.
inline void expect_close(const Tensors& actual, const Tensors& expected, double tolerance,
                         const std::string& where) {
  ASSERT_EQ(actual.size(), expected.size()) << where;
  for (size_t i = 0; i < actual.size(); ++i) {
    const auto a = actual[i].detach().to(torch::kDouble);
    const auto b = expected[i].detach().to(torch::kDouble);
    if (a.numel() == 0) continue;
    // Not a maximum of differences alone: a NaN must fail.
    ASSERT_LE((a - b).abs().max().item<double>(), tolerance * b.abs().max().item<double>())
        << where << ", parameter " << i;
  }
}

/// Steps `from` to `to` of both on the same gradients.
inline void step_both(torch::optim::Optimizer& fused, const Tensors& a,
                      torch::optim::Optimizer& plain, const Tensors& b, int64_t from, int64_t to) {
  for (int64_t t = from; t < to; ++t) {
    set_pulling_gradients(a, t);
    set_pulling_gradients(b, t);
    fused.step();
    plain.step();
  }
}

/// Expects that 1,000 steps of both, for each of the options, stay together.
template <class Pair>
void expect_same_trajectories(torch::TensorOptions where) {
  const auto dtype = c10::typeMetaToScalarType(where.dtype());
  const auto all_options = Pair::options();
  for (size_t k = 0; k < all_options.size(); ++k) {
    torch::manual_seed(3);
    const auto a = parameters(where);
    const auto b = copies(a);
    typename Pair::Fused fused(a, all_options[k]);
    typename Pair::Plain plain(b, all_options[k]);
    for (int64_t t = 0; t < 1000; t += 100) {
      step_both(fused, a, plain, b, t, t + 100);
      expect_close(a, b, tolerance(dtype).trajectory,
                   "options " + std::to_string(k) + ", step " + std::to_string(t + 100));
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

}  // namespace lawn::testing
