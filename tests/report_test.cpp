// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/support/tolerance.h"

namespace {

using lawn::testing::tolerance;

using lawn::LAWN;
using lawn::LAWNOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

torch::Tensor parameter(const std::vector<float>& value, const std::vector<float>& gradient) {
  auto w = torch::tensor(value).set_requires_grad(true);
  w.mutable_grad() = torch::tensor(gradient);
  return w;
}

TEST(Report, GivesNormAndCosineInTheFreePhaseAndNoRadius) {
  auto w = parameter({3, 4}, {4, 3});
  const LAWN optimizer(SGD({w}, SGDOptions(0.1)), lawn::select({w}), LAWNOptions().free_steps(10));
  const auto report = optimizer.report();
  EXPECT_EQ(report.phase, lawn::Phase::kFree);
  EXPECT_EQ(report.steps, 0);
  ASSERT_EQ(report.layers.size(), 1U);
  const auto& layer = report.layers.front();
  EXPECT_EQ(layer.name, "parameter 0");
  EXPECT_EQ(layer.spheres, 1);
  EXPECT_FALSE(layer.radius.has_value());
  EXPECT_FALSE(layer.norm_error.has_value());
  EXPECT_DOUBLE_EQ(layer.norm, 5);
  EXPECT_NEAR(layer.cosine.value(), 24.0 / 25.0, tolerance(torch::kDouble).step);
}

TEST(Report, GivesRadiusAndErrorInTheConstrainedPhase) {
  auto w = parameter({3, 4}, {4, 3});
  LAWN optimizer(SGD({w}, SGDOptions(0.1)), lawn::select({w}));
  optimizer.step();
  auto layer = optimizer.report().layers.front();
  EXPECT_DOUBLE_EQ(layer.radius.value(), 5);
  EXPECT_LE(layer.norm_error.value(), 1e-6);
  {
    const torch::NoGradGuard no_grad;
    w.mul_(1.5);
  }
  layer = optimizer.report().layers.front();
  EXPECT_NEAR(layer.norm_error.value(), 0.5, tolerance(torch::kFloat).norm)
      << "what the user did to the weight shows";
}

TEST(Report, TakesTheLargestErrorOfTheOutputUnits) {
  auto w = torch::tensor({{3.0f, 4.0f}, {5.0f, 12.0f}}).set_requires_grad(true);
  LAWN optimizer(SGD({w}, SGDOptions(0.1)), lawn::select({w}),
                 LAWNOptions().granularity(lawn::Granularity::kOutputUnit));
  optimizer.constrain();
  {
    const torch::NoGradGuard no_grad;
    w[1].mul_(0.75);
  }
  const auto layer = optimizer.report().layers.front();
  EXPECT_EQ(layer.spheres, 2);
  EXPECT_NEAR(layer.radius.value(), std::hypot(5.0, 13.0), tolerance(torch::kFloat).norm);
  EXPECT_NEAR(layer.norm, std::hypot(5.0, 0.75 * 13.0), tolerance(torch::kFloat).norm);
  EXPECT_NEAR(layer.norm_error.value(), 0.25, tolerance(torch::kFloat).norm);
}

TEST(Report, CosineVanishesAfterAProjection) {
  auto w = parameter({3, 4}, {4, 3});
  LAWN optimizer(SGD({w}, SGDOptions(0)), lawn::select({w}));
  EXPECT_GT(optimizer.report().layers.front().cosine.value(), 0.9);
  optimizer.step();
  EXPECT_NEAR(optimizer.report().layers.front().cosine.value(), 0, tolerance(torch::kFloat).norm);
}

/// The report of LAWN around SGD on `value`, after a step with `gradient` if that is defined.
lawn::LayerReport report_of(const torch::Tensor& value, const torch::Tensor& gradient) {
  auto w = value.clone().set_requires_grad(true);
  LAWN optimizer(SGD({w}, SGDOptions(0.1)), lawn::select({w}),
                 LAWNOptions().zero_norm(lawn::ZeroNorm::kLeaveFree).angular_steps(true));
  w.mutable_grad() = gradient;
  optimizer.step();
  const auto report = optimizer.report();
  std::ostringstream text;
  text << report;
  EXPECT_EQ(text.str().find("nan"), std::string::npos) << text.str();
  return report.layers.front();
}

TEST(Report, HasNoNaNForZerosNorForNothing) {
  const auto some = torch::tensor({3.0f, 4.0f});
  const auto none = torch::zeros({2});
  const auto zero_gradient = report_of(some, none);
  EXPECT_FALSE(zero_gradient.cosine.has_value());
  EXPECT_EQ(zero_gradient.note, "gradient is zero");
  const auto zero_weight = report_of(none, none);
  EXPECT_FALSE(zero_weight.cosine.has_value());
  EXPECT_FALSE(zero_weight.angular_step.has_value());
  EXPECT_EQ(zero_weight.note, "weight is zero, gradient is zero, left free");
  const auto moved = report_of(none, some);
  EXPECT_GT(moved.norm, 0);
  EXPECT_EQ(moved.note, "left free");
  EXPECT_EQ(report_of(torch::zeros({0, 3}), torch::zeros({0, 3})).note.substr(0, 11),
            "no elements");
}

TEST(Report, SaysThatAWeightIsOffItsSphere) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    auto w = torch::tensor({3.0f, 4.0f}).to(dtype).set_requires_grad(true);
    w.mutable_grad() = torch::tensor({1.0f, 1.0f}).to(dtype);
    LAWN optimizer(SGD({w}, SGDOptions(0.1)), lawn::select({w}));
    optimizer.step();
    EXPECT_EQ(optimizer.report().layers.front().note, "") << dtype;
    {
      const torch::NoGradGuard no_grad;
      w.mul_(1.05);
    }
    EXPECT_EQ(optimizer.report().layers.front().note, "off its sphere") << dtype;
  }
}

TEST(Report, PrintsATableInAlignedColumns) {
  lawn::Report report;
  report.phase = lawn::Phase::kConstrained;
  report.steps = 120;
  lawn::LayerReport first;
  first.name = "features.0.weight";
  first.radius = 2.5;
  first.norm = 2.5;
  first.norm_error = 1e-7;
  lawn::LayerReport second;
  second.name = "fc.weight";
  second.norm = 1;
  second.note = "no gradient";
  report.layers = {first, second};
  std::ostringstream text;
  text << report;
  EXPECT_EQ(text.str(),
            "LAWN: constrained phase, 120 steps done\n"
            "layer              spheres  radius  norm  norm error  cos(w,g)  angular step  note\n"
            "features.0.weight  1        2.5     2.5   1e-07       -         -\n"
            "fc.weight          1        -       1     -           -         -             no "
            "gradient\n");
}

}  // namespace
