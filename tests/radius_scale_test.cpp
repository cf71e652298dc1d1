// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>
#include <lawn/sphere/usable_radii.h>

#include "tests/support/refusal.h"
#include "tests/support/rows.h"
#include "tests/support/tolerance.h"

/// Radii that are a multiple of the norms.
namespace {

using lawn::Granularity;
using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::Phase;
using lawn::Radius;
using lawn::ZeroNorm;
using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::Problem;
using torch::optim::SGD;
using torch::optim::SGDOptions;

const double kRounding = lawn::testing::tolerance(torch::kFloat).norm;

torch::Tensor parameter(const torch::Tensor& value, const torch::Tensor& gradient) {
  auto weight = value.clone().set_requires_grad(true);
  weight.mutable_grad() = gradient.clone();
  return weight;
}

LAWN<SGD> wrap(const torch::Tensor& weight, const LAWNOptions& options) {
  return LAWN<SGD>(SGD({weight}, SGDOptions(0.1)), lawn::select({weight}), options);
}

void expect_near(const torch::Tensor& actual, const std::vector<double>& expected) {
  const auto twin = torch::tensor(expected, torch::kDouble).view(actual.sizes());
  EXPECT_TRUE(torch::allclose(actual.detach().to(torch::kDouble), twin, kRounding, kRounding))
      << actual;
}

TEST(RadiusScale, EndsTheStepThatSwitchesOnTheScaledSphere) {
  auto w = parameter(torch::tensor({3.0f, 4.0f}), torch::tensor({1.0f, -1.0f}));
  auto optimizer = wrap(w, LAWNOptions().radius_scale(0.5));
  optimizer.step();
  // g + 0.04 w = {1.12, -0.84} is tangent to the weight as it was; from there the step, then the
  // rescaling to 2.5.
  const double length = std::hypot(2.888, 4.084);
  expect_near(w, {2.5 * 2.888 / length, 2.5 * 4.084 / length});
  EXPECT_NEAR(optimizer.report().layers.front().radius.value(), 2.5, kRounding);

  w.mutable_grad() = torch::tensor({1.0f, -1.0f});
  optimizer.step();
  EXPECT_NEAR(w.detach().norm().item<double>(), 2.5, 2.5 * kRounding);
}

TEST(RadiusScale, BringsWeightsToTheScaledSphereAtOnceWhenSwitchedByHand) {
  for (const bool initial : {false, true}) {
    auto w = parameter(torch::tensor({3.0f, 4.0f}), torch::tensor({1.0f, -1.0f}));
    auto optimizer = wrap(w, LAWNOptions()
                                 .free_steps(LAWNOptions::kNever)
                                 .radius_scale(0.5)
                                 .radius(initial ? Radius::kInitial : Radius::kCaptured));
    if (initial) {
      const torch::NoGradGuard no_grad;
      w.mul_(2);  // so that the initial radius is not the captured one
    }
    optimizer.constrain();
    expect_near(w, {1.5, 2.0});
  }
}

TEST(RadiusScale, TakesInitialRadiiTimesTheScaleAndJumpsBeforeTheStep) {
  auto w = parameter(torch::tensor({3.0f, 4.0f}), torch::tensor({1.0f, -1.0f}));
  auto optimizer = wrap(w, LAWNOptions().radius_scale(0.5).radius(Radius::kInitial));
  optimizer.step();
  // From {1.5, 2}: g + 0.08 w = {1.12, -0.84}.
  const double length = std::hypot(1.388, 2.084);
  expect_near(w, {2.5 * 1.388 / length, 2.5 * 2.084 / length});
}

TEST(RadiusScale, ScalesEachOutputUnit) {
  auto w = parameter(torch::tensor({{3.0f, 4.0f}, {6.0f, 8.0f}}), torch::zeros({2, 2}));
  auto optimizer = wrap(w, LAWNOptions().radius_scale(0.5).granularity(Granularity::kOutputUnit));
  optimizer.step();
  expect_near(w, {1.5, 2, 3, 4});
}

TEST(RadiusScale, ScalesBiases) {
  torch::nn::Sequential model(torch::nn::Linear(4, 8), torch::nn::ReLU(), torch::nn::Linear(8, 3));
  const auto sub = lawn::final_homogeneous_subnetwork(model->forward(torch::ones({2, 4})), *model);
  const auto bias = model->parameters()[1];
  const double norm = bias.detach().norm().item<double>();
  LAWN optimizer(SGD(model->parameters(), SGDOptions(0.1)), sub,
                 LAWNOptions().biases(true).radius_scale(3).free_steps(LAWNOptions::kNever));
  optimizer.constrain();
  EXPECT_NEAR(bias.detach().norm().item<double>(), 3 * norm, 3 * norm * kRounding);
}

TEST(RadiusScale, OfOneMovesNoBitAtTheSwitch) {
  Problem problem;
  const auto before = problem.values();
  LAWN optimizer(SGD(problem.model->parameters(), SGDOptions(0.1)), problem.weights(),
                 LAWNOptions().free_steps(LAWNOptions::kNever).radius_scale(1));
  optimizer.constrain();
  expect_equal(problem.values(), before, "at the switch");
}

TEST(RadiusScale, LeavesFreeWhatCannotBeARadius) {
  const auto options =
      LAWNOptions().zero_norm(ZeroNorm::kLeaveFree).granularity(Granularity::kOutputUnit);
  const auto stays_free = [&](const torch::Tensor& value, double scale) {
    auto w = parameter(value, torch::zeros_like(value));
    LAWNOptions scaled = options;
    auto optimizer = wrap(w, scaled.radius_scale(scale));
    optimizer.step();
    EXPECT_TRUE(torch::equal(w[0].detach(), value[0])) << w;
    EXPECT_EQ(optimizer.report().layers.front().note, "gradient is zero, some units left free");
    const double norm = w[1].detach().to(torch::kDouble).norm().item<double>();
    EXPECT_NEAR(norm / value[1].to(torch::kDouble).norm().item<double>() / scale, 1,
                lawn::testing::tolerance(value.scalar_type()).norm);
  };
  stays_free(torch::tensor({{0.0f, 0.0f}, {3.0f, 4.0f}}), 0.5);
  stays_free(torch::tensor({{3e38f, 0.0f}, {3.0f, 4.0f}}), 10);
  stays_free(torch::tensor({{1e-44f, 0.0f}, {3.0f, 4.0f}}), 1e-3);
  // Radii are float32, of which the elements must fit the weight's own type.
  stays_free(torch::tensor({{3e4f, 3e4f}, {3.0f, 4.0f}}).to(torch::kHalf), 10);
  stays_free(torch::tensor({{1e-6f, 1e-6f}, {64.0f, 64.0f}}).to(torch::kHalf), 1e-3);
}

TEST(RadiusScale, IsRoundedOnceAndMayBeOutOfTheRangeOfFloat) {
  auto w = parameter(torch::tensor({3e-30f, 4e-30f}), torch::zeros({2}));
  auto optimizer = wrap(w, LAWNOptions().radius_scale(1e39));
  optimizer.step();
  EXPECT_NEAR(optimizer.report().layers.front().radius.value(), 5e9, 5e9 * kRounding);
}

TEST(RadiusScale, UsableRadiiAreTheNormsThemselvesForAScaleOfOne) {
  const auto norms = torch::tensor({1.0f, HUGE_VALF, 0.0f, std::nanf(""), 1e-44f});
  EXPECT_TRUE(torch::equal(lawn::sphere::usable_radii(norms, 1, torch::kHalf, 100),
                           torch::tensor({1.0f, 0.0f, 0.0f, 0.0f, 1e-44f})));
  EXPECT_TRUE(torch::equal(lawn::sphere::usable_radii(norms, 2, torch::kFloat, 100),
                           torch::tensor({2.0f, 0.0f, 0.0f, 0.0f, 2e-44f})));
  EXPECT_TRUE(torch::equal(lawn::sphere::usable_radii(norms, 2, torch::kHalf, 100),
                           torch::tensor({2.0f, 0.0f, 0.0f, 0.0f, 0.0f})));
}

LAWN<SGD> wrap_problem(Problem& problem, LAWNOptions options) {
  return LAWN<SGD>(SGD(problem.model->parameters(), SGDOptions(0.1).momentum(0.9)),
                   problem.weights(), std::move(options));
}

void train(LAWN<SGD>& optimizer, Problem& problem, int64_t from, int64_t to) {
  for (int64_t t = from; t < to; ++t) {
    problem.backward(t);
    optimizer.step();
  }
}

TEST(RadiusScale, GoesOnFromACheckpointOnBothSidesOfTheSwitch) {
  for (const auto radius : {Radius::kCaptured, Radius::kInitial}) {
    for (const int64_t stop : {2, 4, 6}) {
      const auto options = LAWNOptions().free_steps(4).radius_scale(0.5).radius(radius);
      Problem straight;
      auto whole = wrap_problem(straight, options);
      train(whole, straight, 0, 9);

      Problem first;
      auto before = wrap_problem(first, options);
      train(before, first, 0, stop);
      std::stringstream model_file;
      std::stringstream optimizer_file;
      torch::save(first.model, model_file);
      torch::save(before, optimizer_file);
      Problem second(torch::kFloat, /*seed=*/5);
      second.x = first.x;
      second.y = first.y;
      auto after = wrap_problem(second, options);
      torch::load(second.model, model_file);
      torch::load(after, optimizer_file);
      train(after, second, stop, 9);
      expect_equal(second.values(), straight.values(), "stopped after " + std::to_string(stop));
    }
  }
}

TEST(RadiusScale, OfTheLoadingOptimizerCountsForRadiiThatAreNotTakenYet) {
  const auto radius_after_loading = [](Radius radius, int64_t stop) {
    const auto options = LAWNOptions().free_steps(2).radius(radius);
    Problem problem;
    auto before = wrap_problem(problem, LAWNOptions(options).radius_scale(0.5));
    const double initial = problem.model->parameters()[0].detach().norm().item<double>();
    train(before, problem, 0, stop);
    std::stringstream file;
    torch::save(before, file);
    auto after = wrap_problem(problem, LAWNOptions(options).radius_scale(4));
    torch::load(after, file);
    const double norm = problem.model->parameters()[0].detach().norm().item<double>();
    train(after, problem, stop, 5);
    const double taken = after.report().layers.front().radius.value();
    return std::vector<double>{taken / initial, taken / norm};
  };
  EXPECT_NEAR(radius_after_loading(Radius::kCaptured, 2)[1], 4, 4 * kRounding) << "not taken yet";
  EXPECT_NEAR(radius_after_loading(Radius::kCaptured, 4)[1], 1, 2 * kRounding) << "they stand";
  EXPECT_NEAR(radius_after_loading(Radius::kInitial, 1)[0], 0.5, kRounding) << "they stand";
}

TEST(RadiusScale, IsAmongTheOptionsOnWhichRanksAgree) {
  EXPECT_NE(LAWNOptions().radius_scale(0.5).describe().find("\nradius_scale 0.5\n"),
            std::string::npos);
}

TEST(RadiusScaleRefuses, WhatIsNotFiniteAndPositive) {
  auto w = parameter(torch::ones({2}), torch::zeros({2}));
  for (const double bad : {0.0, -1.0, HUGE_VAL, std::nan("")}) {
    expect_refusal([&] { wrap(w, LAWNOptions().radius_scale(bad)); },
                   "lawn::LAWN: radius_scale must be finite and > 0, got");
  }
}

TEST(RadiusScaleRefuses, GivenRadiiToBeScaled) {
  auto w = parameter(torch::ones({2}), torch::zeros({2}));
  const auto given = LAWNOptions().radius(Radius::kGiven).radii({1.0});
  expect_refusal([&] { wrap(w, LAWNOptions(given).radius_scale(2)); },
                 "radius_scale must be 1 with Radius::kGiven, got 2; multiply the radii by it");
  wrap(w, LAWNOptions(given).radius_scale(1));
}

TEST(RadiusScaleRefuses, RadiiOutOfTheRangeOfTheWeightsType) {
  const auto refused = [](const torch::Tensor& value, double scale, const std::string& message,
                          Granularity granularity = Granularity::kLayer) {
    auto w = parameter(value, torch::ones_like(value));
    const auto options = LAWNOptions().radius_scale(scale).granularity(granularity);
    auto optimizer = wrap(w, options);
    expect_refusal([&] { optimizer.step(); }, message);
    EXPECT_EQ(optimizer.phase(), Phase::kFree);
    EXPECT_TRUE(torch::equal(w.detach(), value)) << "nothing was changed";
    EXPECT_TRUE(torch::equal(w.grad(), torch::ones_like(value))) << "nothing was changed";
    expect_refusal([&] { wrap(w, LAWNOptions(options).radius(Radius::kInitial)); },
                   "when it was wrapped");
  };
  refused(torch::tensor({3e38f, 0.0f}), 10, "got 10 times 3e+38 for parameter 0 of type Float");
  refused(torch::tensor({1e-44f, 0.0f}), 1e-3, "in which it is 0");
  refused(torch::tensor({3e4f, 3e4f}).to(torch::kHalf), 10, "and each of its 2 elements inf");
  refused(torch::tensor({{1.0f, 1.0f}, {3e38f, 0.0f}}), 10, "for parameter 0 in output unit 1",
          Granularity::kOutputUnit);
}

}  // namespace
