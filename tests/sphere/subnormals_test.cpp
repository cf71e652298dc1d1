// SPDX-License-Identifier: Apache-2.0

#include <atomic>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

/// Numbers below the least normal one, with which x86 computes slowly.
namespace {

using lawn::FusedAdam;
using lawn::FusedSGD;
using lawn::LAWN;
using lawn::LAWNOptions;
using torch::optim::Adam;
using torch::optim::AdamOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

constexpr float kLeastNormal = std::numeric_limits<float>::min();
constexpr bool kFlushed =
#if defined(__SSE__)
    true;
#else
    false;  // other machines compute with them at full speed
#endif

int64_t subnormals(const torch::Tensor& values) {
  const auto sizes = values.detach().abs().to(torch::kDouble);
  return sizes.gt(0).logical_and(sizes.lt(kLeastNormal)).sum().item<int64_t>();
}

/// A weight of ones, whose second half is barely normal, and its gradient, which is 0.
torch::Tensor barely_normal(int64_t numel) {
  const auto weight = torch::ones({numel});
  weight.slice(0, numel / 2).fill_(2 * kLeastNormal);
  const auto result = weight.requires_grad_();
  result.mutable_grad() = torch::zeros({numel});
  return result;
}

template <class Optimizer, class Options>
void expect_flushed_weights(const Options& options) {
  for (const int64_t numel : {10, 1000, 200000}) {
    const auto weight = barely_normal(numel);
    LAWN optimizer(Optimizer({weight}, options), lawn::select({weight}),
                   LAWNOptions().radius_scale(0.25));
    optimizer.step();
    const auto expected = torch::full({numel}, 0.25);
    expected.slice(0, numel / 2).zero_();
    EXPECT_TRUE(torch::allclose(weight, expected, 1e-5, 0)) << numel << ": " << weight;
    EXPECT_EQ(subnormals(weight), 0) << numel;
  }
}

TEST(Subnormals, AWeightThatShrinksBelowTheLeastNormalNumberIsZero) {
  if (!kFlushed) GTEST_SKIP() << "this machine computes with subnormal numbers at full speed";
  expect_flushed_weights<SGD>(SGDOptions(0.1));
  expect_flushed_weights<Adam>(AdamOptions(0.1));
  expect_flushed_weights<FusedSGD>(SGDOptions(0.1));
  expect_flushed_weights<FusedSGD>(SGDOptions(0.1).momentum(0.9));
  expect_flushed_weights<FusedAdam>(AdamOptions(0.1));
}

/// Whether each thread of LibTorch's pool, this one among them, still computes with subnormals.
bool all_threads_compute_with_subnormals() {
  std::atomic<int> flushing{0};
  at::parallel_for(0, 64, 1, [&](int64_t, int64_t) {
    volatile float small = kLeastNormal;
    volatile float half = small / 2;
    if (half == 0.F) ++flushing;
  });
  return flushing == 0;
}

TEST(Subnormals, AStepLeavesTheModeOfEveryThread) {
  const auto weight = barely_normal(200000);
  LAWN optimizer(FusedAdam({weight}, AdamOptions(0.1)), lawn::select({weight}));
  optimizer.step();
  EXPECT_TRUE(all_threads_compute_with_subnormals());
}

/// The moments, in a folded step, of a weight that gets no gradient any more.
template <class Optimizer, class Options>
void expect_moments_to_end_at_zero(const Options& options) {
  const auto weight = torch::ones({1000}).requires_grad_();
  LAWN optimizer(Optimizer({weight}, options), lawn::select({weight}));
  weight.mutable_grad() = torch::full({1000}, 1e-3);
  optimizer.step();
  weight.mutable_grad().zero_();
  for (int i = 0; i < 1500; ++i) optimizer.step();
  const auto& state = *optimizer.state().at(weight.unsafeGetTensorImpl());
  if constexpr (std::is_base_of_v<torch::optim::SGD, Optimizer>) {
    const auto& momentum = static_cast<const torch::optim::SGDParamState&>(state);
    EXPECT_EQ(momentum.momentum_buffer().abs().sum().template item<double>(), 0);
  } else {
    const auto& moments = static_cast<const torch::optim::AdamParamState&>(state);
    EXPECT_EQ(moments.exp_avg().abs().sum().template item<double>(), 0);
    EXPECT_EQ(moments.exp_avg_sq().abs().sum().template item<double>(), 0);
  }
}

TEST(Subnormals, MomentsWithoutGradientsEndAtZero) {
  if (!kFlushed) GTEST_SKIP() << "this machine computes with subnormal numbers at full speed";
  expect_moments_to_end_at_zero<FusedSGD>(SGDOptions(0.1).momentum(0.9));
  expect_moments_to_end_at_zero<FusedAdam>(AdamOptions(0.1).betas({0.9, 0.9}));
}

/// What made it matter: a dead unit gets no gradient of its own. Where the gradient wants larger
/// weights, the projection shrinks those of that unit, by a factor in each step while they are small
/// beside Adam's epsilon.
TEST(Subnormals, ADeadUnitLeavesNone) {
  if (!kFlushed) GTEST_SKIP() << "this machine computes with subnormal numbers at full speed";
  const auto weight = torch::ones({2, 100}).requires_grad_();
  LAWN optimizer(FusedAdam({weight}, AdamOptions(0.1).eps(0.1)), lawn::select({weight}));
  for (int i = 0; i < 2000; ++i) {
    weight.mutable_grad() = -weight.detach();
    weight.mutable_grad()[1].zero_();
    optimizer.step();
  }
  EXPECT_EQ(subnormals(weight), 0);
  EXPECT_LT(weight[1].abs().max().item<double>(), 1e-30);
}

}  // namespace
