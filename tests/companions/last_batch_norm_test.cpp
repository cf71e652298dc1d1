// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <limits>
#include <sstream>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/afan/freeze_batch_norm.h>
#include <lawn/companions/mimicnorm/last_batch_norm.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::LastBatchNorm;
using lawn::LastBatchNormOptions;
using lawn::testing::expect_refusal;

class LastNorm : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(4); }
};

TEST_F(LastNorm, NormalisesEachClassOverTheBatch) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    for (const auto& shape : std::vector<std::vector<int64_t>>{{64, 5}, {16, 5, 7}, {8, 5, 3, 4}}) {
      LastBatchNorm norm(LastBatchNormOptions(5).scale(3));
      norm->to(dtype);
      const auto x = (torch::randn(shape, torch::kDouble) * 4 + 2).to(dtype);
      const auto actual = norm->forward(x);
      const auto wide = x.to(torch::kDouble).transpose(0, 1).flatten(1);
      const auto mean = wide.mean(1, true);
      const auto variance = (wide - mean).square().mean(1, true);
      const auto expected = 3 * (wide - mean) / (variance + 1e-5).sqrt();
      const auto got = actual.to(torch::kDouble).transpose(0, 1).flatten(1);
      EXPECT_EQ(actual.sizes(), x.sizes());
      EXPECT_EQ(actual.scalar_type(), dtype);
      EXPECT_LE((got - expected).abs().max().item<double>(),
                2 * lawn::testing::tolerance(dtype).norm * expected.abs().max().item<double>())
          << "rounded twice, by the norm and by the scale";
      EXPECT_TRUE(norm->parameters().empty());
    }
  }
}

TEST_F(LastNorm, UsesRunningStatisticsInEvaluationMode) {
  LastBatchNorm norm(LastBatchNormOptions(3).momentum(1));
  const auto x = torch::randn({100, 3}) * 2 + 1;
  norm->forward(x);
  norm->eval();
  const auto expected = (x - x.mean(0)) / (x.var(0) + 1e-5).sqrt();
  EXPECT_TRUE(torch::allclose(norm->forward(x), expected, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(norm->forward(x.slice(0, 0, 1)), expected.slice(0, 0, 1), 1e-4, 1e-5))
      << "one image is enough";
}

/// The right class alone has a logit: the best that a network can do.
double best_loss(int64_t classes, double scale) {
  LastBatchNorm norm(LastBatchNormOptions(classes).scale(scale).eps(1e-12));
  const auto y = torch::arange(classes).repeat({4});
  const auto logits = torch::one_hot(y, classes).to(torch::kDouble);
  norm->to(torch::kDouble);
  return torch::nn::functional::cross_entropy(norm->forward(logits), y).item<double>();
}

TEST_F(LastNorm, PutsAFloorUnderTheLossThatTheScaleLifts) {
  EXPECT_NEAR(best_loss(10, 1), 0.28, 0.005);
  EXPECT_NEAR(best_loss(2, 1), 0.13, 0.005);
  for (const int64_t n : {2, 10, 100}) {
    for (const double scale : {1.0, 2.5}) {
      const auto classes = static_cast<double>(n);
      const double floor =
          std::log(1 + (classes - 1) * std::exp(-scale * classes / std::sqrt(classes - 1)));
      EXPECT_NEAR(best_loss(n, scale), floor, 1e-9);
    }
    EXPECT_LT(best_loss(n, 2.5), best_loss(n, 1));
  }
}

TEST_F(LastNorm, ClonesSavesAndFreezes) {
  LastBatchNorm norm(LastBatchNormOptions(3).scale(2));
  norm->forward(torch::randn({9, 3}) + 1);
  const auto x = torch::randn({9, 3});
  auto clone = std::dynamic_pointer_cast<lawn::LastBatchNormImpl>(norm->clone());
  std::stringstream file;
  torch::save(norm, file);
  LastBatchNorm loaded(LastBatchNormOptions(3).scale(2));
  torch::load(loaded, file);
  {
    const lawn::FreezeBatchNormStatistics frozen(*norm);
    norm->forward(x);
  }
  norm->eval();
  clone->eval();
  loaded->eval();
  EXPECT_TRUE(torch::equal(clone->forward(x), norm->forward(x)));
  EXPECT_TRUE(torch::equal(loaded->forward(x), norm->forward(x)));
  std::ostringstream text;
  text << *norm;
  EXPECT_NE(text.str().find("lawn::LastBatchNorm(3, scale=2)"), std::string::npos) << text.str();
}

TEST_F(LastNorm, ResetsItsStatisticsInPlace) {
  LastBatchNorm norm(3);
  const auto fresh = norm->named_buffers();
  std::vector<torch::Tensor> start;
  for (const auto& buffer : norm->buffers()) start.push_back(buffer.clone());
  norm->forward(torch::randn({9, 3}) + 1);
  const auto clone = std::dynamic_pointer_cast<lawn::LastBatchNormImpl>(norm->clone());
  norm->reset();
  for (std::size_t i = 0; i < start.size(); ++i) {
    EXPECT_TRUE(torch::equal(norm->buffers()[i], start[i])) << i;
    EXPECT_TRUE(norm->buffers()[i].is_same(fresh[i].value())) << i;
  }
  EXPECT_FALSE(torch::equal(clone->buffers()[0], start[0])) << "the clone has its own";
  clone->reset();
  EXPECT_TRUE(torch::equal(clone->buffers()[0], start[0]));
}

TEST_F(LastNorm, RefusesABatchOfOneWhileTrainingBeforeAnythingIsChanged) {
  LastBatchNorm norm(10);
  const auto refuse = [&](const std::vector<int64_t>& shape, const std::string& part) {
    expect_refusal([&] { norm->forward(torch::randn(shape)); }, part);
  };
  refuse({1, 10},
         "lawn::LastBatchNorm: expected more than one value to a class while training, got logits "
         "of shape [1, 10]; drop the last batch of an epoch if it is of one image, or call eval()");
  refuse({1, 10, 1, 1}, "got logits of shape [1, 10, 1, 1]");
  refuse({4, 9}, "expected logits of shape [batch, 10] or [batch, 10, ...], got [4, 9]");
  refuse({10}, "got [10]");
  for (const auto& buffer : norm->named_buffers()) {
    if (buffer.key() == "norm.num_batches_tracked") {
      EXPECT_EQ(buffer.value().item<int64_t>(), 0);
    }
  }
  EXPECT_EQ(norm->forward(torch::randn({1, 10, 2})).size(2), 2) << "positions count";
}

TEST_F(LastNorm, RefusesOptionsOutOfRange) {
  expect_refusal([] { LastBatchNorm(0); }, "lawn::LastBatchNorm: classes must be >= 1, got 0");
  expect_refusal([] { LastBatchNorm(LastBatchNormOptions(3).scale(0)); },
                 "scale must be finite and > 0, got 0");
  expect_refusal([] { LastBatchNorm(LastBatchNormOptions(3).momentum(1.5)); },
                 "momentum must be in [0, 1], got 1.5");
  expect_refusal(
      [] { LastBatchNorm(LastBatchNormOptions(3).eps(std::numeric_limits<double>::quiet_NaN())); },
      "eps must be finite and > 0, got nan");
}

}  // namespace
