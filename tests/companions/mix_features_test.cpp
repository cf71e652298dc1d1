// SPDX-License-Identifier: Apache-2.0

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/afan/mix_features.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::FeatureStatistics;
using lawn::mix_features;
using lawn::testing::expect_refusal;
using lawn::testing::tolerance;

constexpr FeatureStatistics kBoth[] = {FeatureStatistics::kOverChannels,
                                       FeatureStatistics::kOverSpace};

/// The twin: element by element, in double.
torch::Tensor mixed_plainly(const torch::Tensor& clean, const torch::Tensor& perturbed,
                            FeatureStatistics statistics) {
  const auto f = clean.to(torch::kDouble).flatten(2);
  const auto g = perturbed.to(torch::kDouble).flatten(2);
  auto result = torch::empty_like(f);
  const bool channels = statistics == FeatureStatistics::kOverChannels;
  const int64_t runs = f.size(channels ? 2 : 1);
  const auto run = [&](const torch::Tensor& t, int64_t n, int64_t r) {
    return channels ? t[n].select(1, r) : t[n][r];
  };
  for (int64_t n = 0; n < f.size(0); ++n) {
    for (int64_t r = 0; r < runs; ++r) {
      const auto a = run(f, n, r);
      const auto b = run(g, n, r);
      const double mean = a.mean().item<double>();
      const double sigma = a.std(/*unbiased=*/false).item<double>();
      auto out = run(result, n, r);
      out.copy_((a - mean) / sigma * b.std(/*unbiased=*/false) + b.mean());
    }
  }
  return result.view(clean.sizes());
}

double difference(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.to(torch::kDouble) - b.to(torch::kDouble)).abs().max().item<double>();
}

class MixFeatures : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(9); }
};

TEST_F(MixFeatures, EqualsAPlainTwinAndHasThePerturbedStatistics) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    const auto clean = (torch::randn({3, 6, 4, 5}, torch::kDouble) * 2 + 1).to(dtype);
    const auto perturbed = (torch::randn({3, 6, 4, 5}, torch::kDouble) * 0.5 - 1).to(dtype);
    for (const auto statistics : kBoth) {
      const auto mixed = mix_features(clean, perturbed, statistics);
      EXPECT_EQ(mixed.scalar_type(), dtype);
      EXPECT_LE(difference(mixed, mixed_plainly(clean, perturbed, statistics)),
                4 * tolerance(dtype).norm)
          << c10::toString(dtype);
      const std::vector<int64_t> dims = statistics == FeatureStatistics::kOverChannels
                                            ? std::vector<int64_t>{1}
                                            : std::vector<int64_t>{2, 3};
      const auto mean = [&](const torch::Tensor& t) { return t.to(torch::kDouble).mean(dims); };
      const auto sigma = [&](const torch::Tensor& t) {
        return t.to(torch::kDouble).std(dims, /*unbiased=*/false);
      };
      EXPECT_LE(difference(mean(mixed), mean(perturbed)), 4 * tolerance(dtype).norm);
      EXPECT_LE(difference(sigma(mixed), sigma(perturbed)), 4 * tolerance(dtype).norm);
      EXPECT_GT(difference(mean(clean), mean(perturbed)), 0.5) << "they had others before";
    }
  }
}

TEST_F(MixFeatures, OfFeaturesWithThemselvesChangesNothing) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    const auto f = (torch::randn({3, 6, 4, 5}, torch::kDouble) + 1).to(dtype);
    for (const auto statistics : kBoth) {
      EXPECT_LE(difference(mix_features(f, f, statistics), f), 4 * tolerance(dtype).norm);
    }
    const auto flat = torch::randn({4, 7}, torch::kDouble).to(dtype);
    EXPECT_LE(difference(mix_features(flat, flat), flat), 4 * tolerance(dtype).norm);
  }
}

TEST_F(MixFeatures, GivesConstantFeaturesTheOthersMeanWithoutADivisionByZero) {
  for (const auto statistics : kBoth) {
    const auto constant = torch::full({2, 4, 3, 3}, 1.5).requires_grad_(true);
    const auto other = torch::randn({2, 4, 3, 3}).requires_grad_(true);
    const auto mixed = mix_features(constant, other, statistics);
    const auto dims = lawn::detail::afan::statistics_dims(other, statistics);
    EXPECT_LE(difference(mixed, other.mean(dims, true).expand_as(other)), 1e-6);
    EXPECT_TRUE(torch::equal(mix_features(constant, constant, statistics), constant));
    (mixed.sum() + mix_features(other, constant, statistics).sum()).backward();
    EXPECT_TRUE(constant.grad().isfinite().all().item<bool>());
    EXPECT_TRUE(other.grad().isfinite().all().item<bool>());
  }
  const auto one_channel = torch::randn({2, 1, 3});
  const auto target = torch::randn({2, 1, 3});
  EXPECT_TRUE(torch::equal(mix_features(one_channel, target), target));
}

TEST_F(MixFeatures, TakesNoRoundingOfAMeanForADeviation) {
  // The mean of so many times 0.1 is not 0.1.
  struct Case {
    FeatureStatistics statistics;
    std::vector<int64_t> shape;
  };
  for (const auto& [statistics, shape] : {Case{FeatureStatistics::kOverChannels, {2, 64, 5, 5}},
                                          Case{FeatureStatistics::kOverSpace, {2, 6, 3, 3}}}) {
    for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kBFloat16}) {
      const auto constant = torch::full(shape, 0.1, dtype).requires_grad_(true);
      const auto other = (torch::randn(shape) * 3).to(dtype).requires_grad_(true);
      const auto dims = lawn::detail::afan::statistics_dims(other, statistics);
      const auto wide = other.detach().to(torch::kDouble);
      const auto mixed = mix_features(constant, other, statistics);
      EXPECT_LE(difference(mixed, wide.mean(dims, true).expand_as(other)),
                4 * tolerance(dtype).norm);
      const auto flattened = mix_features(other, constant, statistics);
      EXPECT_LE(difference(flattened, constant), tolerance(dtype).norm);
      (mixed.sum() + flattened.sum()).backward();
      EXPECT_TRUE(constant.grad().isfinite().all().item<bool>());
      EXPECT_LE(constant.grad().abs().max().item<double>(), 1.5) << "that of the mean alone";
    }
  }
  const auto tiny = torch::randn({2, 6, 3, 3}) * 1e-30;  // of which the variance is 0
  EXPECT_TRUE(mix_features(tiny, torch::randn({2, 6, 3, 3})).isfinite().all().item<bool>());
  for (const auto& shape : std::vector<std::vector<int64_t>>{{0, 6, 3, 3}, {2, 0, 3}, {2, 6, 0}}) {
    const auto nothing = torch::ones(shape);
    for (const auto statistics : kBoth) {
      EXPECT_EQ(mix_features(nothing, nothing, statistics).sizes(), nothing.sizes());
    }
  }
}

TEST_F(MixFeatures, RefusesWhatHasNoSuchStatistics) {
  const auto f = torch::randn({2, 4});
  expect_refusal([&] { mix_features(f, f, FeatureStatistics::kOverSpace); },
                 "lawn::mix_features: expected features of shape [batch, channels, positions...], "
                 "or kOverChannels, got [2, 4]");
  expect_refusal([&] { mix_features(f[0], f[0]); }, "of shape [batch, channels], got [4]");
  expect_refusal([&] { mix_features(f, f.t()); },
                 "expected clean and perturbed features of one shape and dtype, got Float [2, 4] "
                 "and Float [4, 2]");
  expect_refusal([&] { mix_features(f, f.to(torch::kDouble)); }, "and Double [2, 4]");
  const auto whole = torch::ones({2, 4}, torch::kLong);
  expect_refusal([&] { mix_features(whole, whole); },
                 "expected features of floating point, got Long");
}

}  // namespace
