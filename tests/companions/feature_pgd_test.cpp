// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/afan/feature_pgd.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::feature_pgd;
using lawn::PerturbationDirection;
using lawn::PerturbationOptions;
using lawn::testing::expect_refusal;
using lawn::testing::tolerance;

double size_of(const torch::Tensor& perturbed, const torch::Tensor& features) {
  return (perturbed.to(torch::kDouble) - features.to(torch::kDouble)).abs().max().item<double>();
}

class FeaturePGD : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(21);
    tail_ = torch::nn::Sequential(torch::nn::Linear(12, 16), torch::nn::Tanh(),
                                  torch::nn::Linear(16, 4));
    features_ = torch::randn({32, 12});
    y_ = torch::randint(4, {32});
  }

  auto loss() {
    return [this](const torch::Tensor& f) {
      return torch::nn::functional::cross_entropy(tail_->forward(f), y_);
    };
  }

  void to(torch::ScalarType dtype) {
    tail_->to(dtype);
    features_ = features_.to(dtype);
  }

  torch::nn::Sequential tail_{nullptr};
  torch::Tensor features_;
  torch::Tensor y_;
};

TEST_F(FeaturePGD, EqualsThePlainLoop) {
  for (const auto dtype : {torch::kDouble, torch::kFloat}) {
    to(dtype);
    const auto options = PerturbationOptions().steps(7).step_size(0.02).epsilon(0.05);
    const auto actual = feature_pgd(features_, loss(), options);
    auto expected = features_.clone();
    for (int64_t k = 0; k < 7; ++k) {
      auto leaf = expected.detach().requires_grad_(true);
      loss()(leaf).backward();
      const torch::NoGradGuard no_grad;
      expected = expected + 0.02 * leaf.grad().sign();
      expected = torch::max(torch::min(expected, features_ + 0.05), features_ - 0.05);
    }
    EXPECT_LE(size_of(actual, expected), lawn::testing::tolerance(dtype).norm);
    EXPECT_EQ(actual.scalar_type(), dtype);
    EXPECT_FALSE(actual.requires_grad());
  }
}

TEST_F(FeaturePGD, StaysWithinTheStepsAndWithinEpsilon) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    to(dtype);
    // The sum f + delta is rounded to the dtype of f, of which elements are below 4.
    const double rounding = 4 * lawn::testing::tolerance(dtype).norm;
    for (const auto direction :
         {PerturbationDirection::kAscent, PerturbationDirection::kRandomSigns}) {
      const auto options = PerturbationOptions().steps(5).step_size(0.01).direction(direction);
      const double free = size_of(feature_pgd(features_, loss(), options), features_);
      EXPECT_LE(free, 0.05 + rounding);
      EXPECT_GE(free, 0.05 - rounding) << "elements whose gradient keeps its sign go all the way";
      auto clipped = options;
      clipped.epsilon(0.03);
      const double within = size_of(feature_pgd(features_, loss(), clipped), features_);
      EXPECT_LE(within, 0.03 + rounding);
      EXPECT_GE(within, 0.03 - rounding);
    }
  }
}

TEST_F(FeaturePGD, AddsUpStepsThatBFloat16WouldRoundAway) {
  to(torch::kBFloat16);
  features_ = torch::full({32, 12}, 1.0, torch::kBFloat16);
  // bfloat16 has steps of 1/128 from 1 on: one of 0.003 alone is lost.
  const auto options = PerturbationOptions().steps(5).step_size(0.003).direction(
      PerturbationDirection::kRandomSigns);
  const auto one = feature_pgd(features_, loss(), PerturbationOptions(options).steps(1));
  const auto five = feature_pgd(features_, loss(), options);
  EXPECT_TRUE((one.gt(1)).logical_not().all().item<bool>());
  EXPECT_TRUE(five.gt(1).any().item<bool>());
  // A perturbation in bfloat16 would stop growing at 0.5.
  const auto nothing = torch::zeros({32, 12}, torch::kBFloat16);
  const auto many = PerturbationOptions(options).steps(1000).step_size(0.001);
  EXPECT_NEAR(size_of(feature_pgd(nothing, loss(), many), nothing), 1, 1.0 / 256);
}

TEST_F(FeaturePGD, SeesGradientsBelowTheRangeOfHalf) {
  const auto features = torch::zeros({256, 64, 1, 1}, torch::kHalf);
  const auto weights = (torch::rand({64, 8, 8}) + 0.5).mul(torch::randn({64, 8, 8}).sign());
  const auto of_pool = weights.mean({1, 2}, /*keepdim=*/true).sign();
  for (const auto dtype : {torch::kHalf, torch::kFloat}) {  // as under autocast
    const auto perturbed = feature_pgd(
        features,
        [&](const torch::Tensor& f) {
          const auto positions = f.expand({256, 64, 8, 8}).to(dtype);
          return (positions * of_pool.mul(weights.abs()).to(dtype)).mean() * 1e-3;
        },
        PerturbationOptions().steps(1).step_size(0.25));
    EXPECT_TRUE(torch::equal(perturbed, (0.25 * of_pool).to(torch::kHalf).expand_as(features)))
        << c10::toString(dtype);
  }
}

TEST_F(FeaturePGD, StartsAtRandomWithinEpsilonAndStaysThere) {
  const auto options = PerturbationOptions().steps(0).epsilon(0.1).random_start(true);
  const auto start = feature_pgd(features_, loss(), options);
  EXPECT_LE(size_of(start, features_), 0.1 + 1e-6);
  EXPECT_GT(size_of(start, features_), 0.09);
  EXPECT_NEAR((start - features_).mean().item<double>(), 0, 0.02);
  EXPECT_FALSE(torch::equal(feature_pgd(features_, loss(), options), start));
  const auto end = feature_pgd(features_, loss(), PerturbationOptions(options).steps(20));
  EXPECT_LE(size_of(end, features_), 0.1 + 1e-6);
}

TEST_F(FeaturePGD, RaisesTheLossAboveCleanAndAboveRandomSignsOfTheSameSize) {
  const auto options = PerturbationOptions().steps(5).step_size(0.05);
  const auto random = PerturbationOptions(options).direction(PerturbationDirection::kRandomSigns);
  const auto value = [&](const torch::Tensor& f) { return loss()(f).item<double>(); };
  const double clean = value(features_);
  const double ascent = value(feature_pgd(features_, loss(), options));
  double highest = clean;
  for (int trial = 0; trial < 20; ++trial) {
    const auto perturbed = feature_pgd(features_, loss(), random);
    EXPECT_NEAR(size_of(perturbed, features_), 0.25, tolerance(torch::kFloat).norm);
    highest = std::max(highest, value(perturbed));
  }
  EXPECT_GT(ascent, clean + 0.1);
  EXPECT_GT(ascent, highest + 0.1);
}

TEST_F(FeaturePGD, ChangesNothingWithoutStepsOrSize) {
  for (const auto& options : {PerturbationOptions().step_size(0), PerturbationOptions().steps(0),
                              PerturbationOptions().epsilon(0.0)}) {
    EXPECT_TRUE(options.is_nothing());
    EXPECT_TRUE(torch::equal(feature_pgd(features_, loss(), options), features_));
  }
  EXPECT_FALSE(PerturbationOptions().is_nothing());
  EXPECT_FALSE(PerturbationOptions().steps(0).epsilon(0.1).random_start(true).is_nothing());
}

TEST_F(FeaturePGD, LeavesGradientsFeaturesAndGraphsAlone) {
  loss()(features_).backward();
  std::vector<torch::Tensor> before;
  for (const auto& p : tail_->parameters()) before.push_back(p.grad().clone());
  auto leaf = features_.clone().requires_grad_(true);
  const auto behind = leaf * 1;
  {
    const torch::NoGradGuard no_grad;  // of the caller: the inner steps need gradients all the same
    feature_pgd(features_, loss(), PerturbationOptions());
  }
  const auto copy = behind.detach().clone();
  auto perturbed = feature_pgd(behind, loss(), PerturbationOptions());
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(torch::equal(tail_->parameters()[i].grad(), before[i])) << i;
  }
  EXPECT_FALSE(leaf.grad().defined());
  perturbed.zero_();
  EXPECT_TRUE(torch::equal(behind, copy)) << "memory of its own";
}

TEST_F(FeaturePGD, RefusesOptionsOutOfRange) {
  const auto refuse = [&](const PerturbationOptions& options, const std::string& part) {
    expect_refusal([&] { feature_pgd(features_, loss(), options); }, part);
  };
  refuse(PerturbationOptions().steps(-1), "lawn::feature_pgd: steps must be >= 0, got -1");
  refuse(PerturbationOptions().step_size(-0.5), "step_size must be finite and >= 0, got -0.5");
  refuse(PerturbationOptions().step_size(std::numeric_limits<double>::infinity()),
         "step_size must be finite and >= 0, got inf");
  refuse(PerturbationOptions().epsilon(-1.0), "epsilon must be finite and >= 0, got -1");
  refuse(PerturbationOptions().random_start(true), "random_start needs an epsilon");
}

TEST_F(FeaturePGD, RefusesALossThatCannotBeClimbed) {
  const auto options = PerturbationOptions();
  expect_refusal([&] { feature_pgd(torch::ones({2}, torch::kLong), loss(), options); },
                 "expected features of floating point, got Long");
  expect_refusal([&] { feature_pgd(torch::Tensor(), loss(), options); }, "an undefined tensor");
  expect_refusal(
      [&] {
        feature_pgd(
            features_, [](const torch::Tensor& f) { return f * 2; }, options);
      },
      "expected a loss of one element, got shape [32, 12]");
  expect_refusal(
      [&] {
        feature_pgd(
            features_, [](const torch::Tensor& f) { return f.detach().sum(); }, options);
      },
      "expected a loss that depends on the features, got one without a graph");
  const auto parameter = torch::ones({1}, torch::requires_grad());
  expect_refusal(
      [&] {
        feature_pgd(
            features_, [&](const torch::Tensor&) { return parameter * 2; }, options);
      },
      "got one that does not");
}

}  // namespace
