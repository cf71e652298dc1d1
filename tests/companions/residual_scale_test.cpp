// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <sstream>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/mimicnorm/residual_scale.h>

#include "tests/support/refusal.h"

namespace {

using lawn::ResidualScale;
using lawn::ResidualScaleOptions;
using lawn::testing::expect_refusal;

TEST(ResidualScaling, StartsAtTheGainOfItsConvolutionsOverTheBlocksIndex) {
  for (const int64_t block : {1, 2, 8}) {
    const auto b = static_cast<double>(block);
    EXPECT_NEAR(ResidualScale(block)->scale.item<double>(), 1.44 / b, 1e-7);
    EXPECT_NEAR(ResidualScale(ResidualScaleOptions(block).convolutions(3))->scale.item<double>(),
                1.728 / b, 1e-7);
  }
  EXPECT_NEAR(ResidualScale(ResidualScaleOptions(4).convolutions(0))->scale.item<double>(), 0.25,
              1e-7);
}

TEST(ResidualScaling, RectifiesTheSumAndLearnsItsScale) {
  torch::manual_seed(2);
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    ResidualScale end(3);
    end->to(dtype);
    const auto branch = torch::randn({2, 4, 3, 3}).to(dtype);
    const auto shortcut = torch::randn({2, 4, 3, 3}).to(dtype);
    const auto y = end->forward(branch, shortcut);
    EXPECT_EQ(y.scalar_type(), dtype);
    const auto sum = end->scale.detach() * branch + shortcut;
    EXPECT_TRUE(torch::equal(y, sum.clamp_min(0)));
    y.sum().backward();
    const auto expected = (branch * (sum > 0)).to(torch::kDouble).sum();
    EXPECT_NEAR(end->scale.grad().item<double>(), expected.item<double>(),
                dtype == torch::kBFloat16 ? 0.2 : 1e-4);
    EXPECT_EQ(end->parameters().size(), 1U);
  }
}

TEST(ResidualScaling, ClonesAndSavesWhatWasLearned) {
  ResidualScale end(2);
  {
    const torch::NoGradGuard no_grad;
    end->scale.fill_(0.125);
  }
  const auto clone = std::dynamic_pointer_cast<lawn::ResidualScaleImpl>(end->clone());
  EXPECT_EQ(clone->scale.item<double>(), 0.125);
  EXPECT_FALSE(clone->scale.is_same(end->scale));
  std::stringstream file;
  torch::save(end, file);
  ResidualScale loaded(5);
  torch::load(loaded, file);
  EXPECT_EQ(loaded->scale.item<double>(), 0.125);
  std::ostringstream text;
  text << *end;
  EXPECT_EQ(text.str(), "lawn::ResidualScale(block=2, convolutions=2)");
}

TEST(ResidualScaling, ResetsInPlace) {
  ResidualScale end(2);
  end->to(torch::kDouble);
  const auto scale = end->scale;
  const auto clone = std::dynamic_pointer_cast<lawn::ResidualScaleImpl>(end->clone());
  {
    const torch::NoGradGuard no_grad;
    scale.fill_(0.125);
  }
  end->reset();
  EXPECT_TRUE(end->scale.is_same(scale)) << "an optimizer holds it";
  EXPECT_DOUBLE_EQ(scale.item<double>(), 0.72);
  EXPECT_TRUE(scale.requires_grad());
  clone->reset();
  EXPECT_FALSE(clone->scale.is_same(scale));
  EXPECT_EQ(clone->parameters().size(), 1U);
}

TEST(ResidualScaling, RefusesBadInput) {
  expect_refusal([] { ResidualScale(0); },
                 "lawn::ResidualScale: block must be >= 1, counted from 1, got 0");
  expect_refusal([] { ResidualScale(ResidualScaleOptions(1).convolutions(-1)); },
                 "convolutions must be >= 0, got -1");
  expect_refusal(
      [] {
        ResidualScale(1)->forward(torch::ones({2, 4, 3, 3}), torch::ones({2, 3, 3, 3}));
      },
      "expected branch and shortcut of one shape, got [2, 4, 3, 3] and [2, 3, 3, 3]");
}

}  // namespace
