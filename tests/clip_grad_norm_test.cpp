// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
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
using lawn::testing::tolerance;

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
    // LibTorch 2.4 cannot divide a number beyond float16's range by a norm in float16.
    for (const double max_norm : {0.5, 6e4, 0.0, kInfinity}) {
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
    EXPECT_NEAR(parameter.grad()[0].item<double>(), 1.5, tolerance(torch::kFloat).norm);
  }
}

TEST(ClipGradNorm, TakesTheAbsoluteValuesOfComplexGradients) {
  for (const auto dtype : {torch::kComplexFloat, torch::kComplexDouble}) {
    for (const double norm_type : {2.0, 1.0, 3.0, kInfinity}) {
      torch::manual_seed(1);
      const auto complex = torch::randn({4, 5}, dtype);
      const auto real = torch::randn({6}, c10::toRealValueType(dtype));
      const std::vector<torch::Tensor> ours = {with_gradient(complex), with_gradient(real)};
      const auto total = lawn::clip_grad_norm_(ours, 0.5, norm_type);
      const auto values = torch::cat({complex.abs().flatten(), real});
      EXPECT_EQ(total.scalar_type(), values.scalar_type());
      const double expected = torch::norm(values, norm_type).item<double>();
      const double limit = 10 * tolerance(values.scalar_type()).norm;
      EXPECT_NEAR(total.item<double>(), expected, limit * expected);
      EXPECT_TRUE(
          torch::allclose(ours[0].grad(), complex * (0.5 / (expected + 1e-6)), limit, limit));
      EXPECT_TRUE(torch::allclose(ours[1].grad(), real * (0.5 / (expected + 1e-6)), limit, limit));
    }
  }
  auto bad = with_gradient(torch::full({2}, c10::complex<float>(0, kNaN)));
  expect_refusal([&] { lawn::clip_grad_norm_(bad, 1, 2, /*error_if_nonfinite=*/true); },
                 "expected a finite norm of order 2");
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

TEST(ClipGradNorm, ChangesNothingWithoutALimit) {
  for (const double bad : {kInfinity, kNaN, 1e30}) {
    auto good = with_gradient(torch::ones({2}));
    auto broken = with_gradient(torch::tensor({1.0, bad}, torch::kFloat));
    const auto before = broken.grad().clone();
    const auto total = lawn::clip_grad_norm_({good, broken}, kInfinity, 1).item<double>();
    EXPECT_TRUE(std::isnan(bad) ? std::isnan(total) : total >= bad * (1 - 1e-7)) << total;
    EXPECT_TRUE(torch::equal(good.grad(), torch::ones({2})));
    EXPECT_TRUE(torch::allclose(broken.grad(), before, 0, 0, /*equal_nan=*/true)) << broken.grad();
  }
  const auto gradient = torch::ones({1}).expand({3});  // not even copied
  auto expanded = torch::zeros({3}).set_requires_grad(true);
  expanded.mutable_grad() = gradient;
  EXPECT_FLOAT_EQ(lawn::clip_grad_norm_(expanded, kInfinity).item<float>(), std::sqrt(3.F));
  EXPECT_TRUE(expanded.grad().is_same(gradient));
}

/// The norm in float128's stead: of numbers divided by the largest, in float64.
double plain_norm(const std::vector<torch::Tensor>& parameters, double p) {
  double largest = 0;
  for (const auto& parameter : parameters) {
    largest = std::max(largest, parameter.grad().to(torch::kDouble).abs().max().item<double>());
  }
  if (std::isinf(p)) return largest;
  double sum = 0;
  for (const auto& parameter : parameters) {
    const auto gradient = parameter.grad().to(torch::kDouble).contiguous();
    for (int64_t i = 0; i < gradient.numel(); ++i) {
      sum += std::pow(std::abs(gradient.data_ptr<double>()[i]) / largest, p);
    }
  }
  return largest * std::pow(sum, 1 / p);
}

class ClipGradNormOfOrder : public ::testing::TestWithParam<double> {};

TEST_P(ClipGradNormOfOrder, NeitherOverflowsNorUnderflowsOnTheWay) {
  // One gradient of two numbers, and two gradients of one; the norm of each is a float32.
  for (const double size : {1e20, 1e-25, 1e37, 1e-37, 1.0}) {
    for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kBFloat16}) {
      for (const bool apart : {false, true}) {
        // The Euclidean norm of one gradient is that of sphere::norms.
        const auto numbers = torch::tensor({3 * size, 4 * size}, torch::kDouble).to(dtype);
        std::vector<torch::Tensor> parameters = {with_gradient(numbers)};
        if (apart) {
          parameters = {with_gradient(numbers.narrow(0, 0, 1)),
                        with_gradient(numbers.narrow(0, 1, 1))};
        }
        const double p = GetParam();
        const double expected = plain_norm(parameters, p);
        std::vector<torch::Tensor> before;
        for (const auto& parameter : parameters) {
          before.push_back(parameter.grad().to(torch::kDouble).clone());
        }
        const auto total = lawn::clip_grad_norm_(parameters, 1, p);
        const double rounding = tolerance(dtype).step;
        EXPECT_NEAR(total.item<double>() / expected, 1, 1e-6) << size << ' ' << dtype << ' ' << p;
        for (std::size_t i = 0; i < parameters.size(); ++i) {
          const auto wanted = before[i] * std::min(1.0, 1 / (expected + 1e-6));
          const auto got = parameters[i].grad().to(torch::kDouble);
          EXPECT_TRUE(torch::allclose(got, wanted, rounding, 0))
              << size << ' ' << dtype << ' ' << p << ": " << got << " for " << wanted;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Orders, ClipGradNormOfOrder,
                         ::testing::Values(1.0, 2.0, 3.0, 0.5, 20.0, kInfinity));

TEST(ClipGradNorm, ClipsHugeGradientsToTheLimit) {
  auto w = with_gradient(torch::tensor({3e20F, 4e20F}));
  EXPECT_FLOAT_EQ(lawn::clip_grad_norm_(w, 1).item<float>(), 5e20F);
  EXPECT_TRUE(torch::allclose(w.grad(), torch::tensor({0.6F, 0.8F}))) << w.grad();
}

TEST(ClipGradNorm, CountsAndScalesAGradientThatSharesMemoryOnce) {
  const auto expect_scaled = [](const std::vector<torch::Tensor>& listed, double norm) {
    std::vector<torch::Tensor> before;
    for (const auto& w : listed) before.push_back(w.grad().to_dense().clone());
    EXPECT_NEAR(lawn::clip_grad_norm_(listed, 1).item<double>(), norm,
                tolerance(torch::kFloat).step * norm);
    for (std::size_t i = 0; i < listed.size(); ++i) {
      EXPECT_TRUE(torch::allclose(listed[i].grad().to_dense(), before[i] / norm)) << i;
    }
  };
  const auto w = torch::zeros({4}).set_requires_grad(true);
  const auto v = torch::zeros({4}).set_requires_grad(true);
  w.mutable_grad() = torch::full({4}, 3.0F);
  expect_scaled({w, w}, 6);  // listed twice
  w.mutable_grad() = torch::full({4}, 3.0F);
  v.mutable_grad() = w.grad();  // one tensor: each parameter has a gradient of norm 6
  expect_scaled({w, v}, 6 * std::sqrt(2.0));
  const auto storage = torch::full({6}, 3.0F);  // overlapping views
  w.mutable_grad() = storage.narrow(0, 0, 4);
  v.mutable_grad() = storage.narrow(0, 2, 4);
  expect_scaled({w, v}, 6 * std::sqrt(2.0));
  w.mutable_grad() = torch::full({1}, 3.0F).expand({4});  // one number
  expect_scaled({w}, 6);
  w.mutable_grad() = torch::full({1}, 3.0F).expand({4});
  expect_scaled({w, w, v}, std::sqrt(36 + v.grad().square().sum().item<double>()));
  const auto indices = torch::arange(4).view({1, 4});
  const auto values = torch::full({4}, 3.0F);
  w.mutable_grad() = torch::sparse_coo_tensor(indices, values, {4});
  v.mutable_grad() = torch::sparse_coo_tensor(indices, values, {4});
  expect_scaled({w, v}, 6 * std::sqrt(2.0));
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
