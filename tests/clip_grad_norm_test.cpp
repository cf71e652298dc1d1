// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/clip_grad_norm.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::expect_refusal;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

torch::Tensor with_gradient(const torch::Tensor& gradient) {
  auto parameter = torch::zeros(gradient.sizes(), gradient.options().layout(torch::kStrided))
                       .set_requires_grad(true);
  parameter.mutable_grad() = gradient.clone();
  return parameter;
}

/// Parameters of several shapes and strides, one of them without a gradient, one empty.
std::vector<torch::Tensor> several(torch::ScalarType dtype) {
  torch::manual_seed(2);
  const auto random = [&](torch::IntArrayRef sizes) {
    return with_gradient(torch::randn(sizes).to(dtype));
  };
  std::vector<torch::Tensor> all = {random({5, 7}), random({9}), random({}), random({0, 3})};
  all.push_back(torch::zeros({3}, dtype).set_requires_grad(true));
  auto transposed = torch::zeros({4, 6}, dtype).set_requires_grad(true);
  transposed.mutable_grad() = torch::randn({6, 4}).to(dtype).t();
  all.push_back(transposed);
  return all;
}

class ClipGradNormOn : public ::testing::TestWithParam<torch::ScalarType> {};

TEST_P(ClipGradNormOn, GivesTheNumbersOfLibTorch) {
  const double tolerance = lawn::testing::tolerance(GetParam()).step;
  for (const double norm_type : {2.0, 1.0, 3.5, kInfinity}) {
    for (const double max_norm : {0.5, 1e6, 0.0, kInfinity}) {
      auto ours = several(GetParam());
      auto theirs = several(GetParam());
      theirs.erase(theirs.begin() + 3);  // LibTorch's has no largest value of an empty gradient
      const auto total = lawn::clip_grad_norm_(ours, max_norm, norm_type);
      const double expected = torch::nn::utils::clip_grad_norm_(theirs, max_norm, norm_type);
      ours.erase(ours.begin() + 3);
      EXPECT_EQ(total.dim(), 0);
      EXPECT_EQ(total.scalar_type(), GetParam() == torch::kDouble ? torch::kDouble : torch::kFloat);
      EXPECT_FALSE(total.requires_grad());
      EXPECT_NEAR(total.item<double>(), expected, 3 * tolerance * expected);
      for (std::size_t i = 0; i < ours.size(); ++i) {
        ASSERT_EQ(ours[i].grad().defined(), theirs[i].grad().defined());
        if (!ours[i].grad().defined()) continue;
        EXPECT_EQ(ours[i].grad().scalar_type(), GetParam());
        EXPECT_TRUE(torch::allclose(ours[i].grad(), theirs[i].grad(), 3 * tolerance, tolerance))
            << norm_type << ", " << max_norm << ", " << i;
      }
    }
  }
}

TEST_P(ClipGradNormOn, LeavesSmallGradientsBitForBit) {
  auto parameters = several(GetParam());
  const auto before = several(GetParam());
  lawn::clip_grad_norm_(parameters, 1e6);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!before[i].grad().defined()) continue;
    EXPECT_TRUE(torch::equal(parameters[i].grad(), before[i].grad()));
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ClipGradNormOn,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16,
                                           torch::kHalf),
                         lawn::testing::dtype_name);

TEST(ClipGradNorm, TakesSeveralDtypesAtOnce) {
  auto wide = with_gradient(torch::full({2}, 3.0, torch::kDouble));
  auto single = with_gradient(torch::full({1}, 3.0));
  auto half = with_gradient(torch::full({1}, 3.0, torch::kBFloat16));
  const auto total = lawn::clip_grad_norm_({single, wide, half}, 3);
  EXPECT_EQ(total.scalar_type(), torch::kDouble);
  EXPECT_DOUBLE_EQ(total.item<double>(), 6);
  for (const auto& parameter : {wide, single, half}) {
    EXPECT_NEAR(parameter.grad()[0].item<double>(), 1.5, 1e-6);
  }
}

TEST(ClipGradNorm, IsZeroWithoutGradients) {
  EXPECT_EQ(lawn::clip_grad_norm_(std::vector<torch::Tensor>{}, 1).item<float>(), 0);
  EXPECT_EQ(lawn::clip_grad_norm_(torch::ones({2}), 1).item<float>(), 0);
  auto zero = with_gradient(torch::zeros({3}));
  EXPECT_EQ(lawn::clip_grad_norm_(zero, 1).item<float>(), 0);
  EXPECT_TRUE(torch::equal(zero.grad(), torch::zeros({3})));
}

TEST(ClipGradNorm, AddsUpTheEntriesOfASparseGradient) {
  const auto indices = torch::tensor({{1, 1, 3}}, torch::kLong);
  const auto gradient = torch::sparse_coo_tensor(indices, torch::tensor({1.0, 2.0, 4.0}), {5});
  auto sparse = with_gradient(gradient);
  const auto total = lawn::clip_grad_norm_(sparse, 1);
  EXPECT_FLOAT_EQ(total.item<float>(), 5);
  EXPECT_TRUE(sparse.grad().is_sparse());
  EXPECT_TRUE(torch::allclose(sparse.grad().to_dense(), gradient.to_dense() / 5));
}

TEST(ClipGradNorm, ScalesByANormThatIsNotFiniteUnlessItIsAnError) {
  for (const double bad : {kInfinity, kNaN}) {
    auto good = with_gradient(torch::ones({2}));
    auto broken = with_gradient(torch::full({2}, bad));
    expect_refusal(
        [&] {
          lawn::clip_grad_norm_({good, broken}, 1, 2, true);
        },
        "lawn::clip_grad_norm_: expected a finite norm of order 2 of the gradients, got");
    EXPECT_TRUE(torch::equal(good.grad(), torch::ones({2})));
    auto theirs_good = with_gradient(torch::ones({2}));
    auto theirs_broken = with_gradient(torch::full({2}, bad));
    torch::nn::utils::clip_grad_norm_({theirs_good, theirs_broken}, 1);
    const auto total = lawn::clip_grad_norm_({good, broken}, 1);
    EXPECT_FALSE(std::isfinite(total.item<double>()));
    EXPECT_TRUE(torch::allclose(good.grad(), theirs_good.grad(), 0, 0, /*equal_nan=*/true));
    EXPECT_TRUE(torch::allclose(broken.grad(), theirs_broken.grad(), 0, 0, /*equal_nan=*/true));
  }
  auto good = with_gradient(torch::ones({4}));
  EXPECT_FLOAT_EQ(lawn::clip_grad_norm_(good, 1, 2, true).item<float>(), 2);
}

TEST(ClipGradNorm, NeverReadsWhatTheDeviceHolds) {
  // There is nothing to read on the meta device: whatever tried would throw.
  auto w = with_gradient(torch::empty({3}, torch::kMeta));
  EXPECT_TRUE(lawn::clip_grad_norm_({w, w}, 1).is_meta());
  EXPECT_TRUE(lawn::clip_grad_norm_(w, 1, 1).is_meta());
  EXPECT_THROW(lawn::clip_grad_norm_(w, 1, 2, true), c10::Error);
}

TEST(ClipGradNorm, RefusesLimitsAndOrdersOutOfRange) {
  auto w = with_gradient(torch::ones({2}));
  expect_refusal([&] { lawn::clip_grad_norm_(w, -1); }, "max_norm must be >= 0, got -1");
  expect_refusal([&] { lawn::clip_grad_norm_(w, kNaN); }, "max_norm must be >= 0, got nan");
  expect_refusal([&] { lawn::clip_grad_norm_(w, 1, 0); }, "norm_type must be > 0, got 0");
}

}  // namespace
