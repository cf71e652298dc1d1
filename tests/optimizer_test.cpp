// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/support/refusal.h"
#include "tests/support/rows.h"
#include "tests/support/tolerance.h"

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
using lawn::testing::tolerance;
using torch::optim::Adam;
using torch::optim::AdamOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

double length(const torch::Tensor& tensor) {
  return tensor.detach().to(torch::kDouble).norm().item<double>();
}

/// One parameter with the given value and gradient.
torch::Tensor parameter(torch::Tensor value, torch::Tensor gradient = {}) {
  value = value.clone().set_requires_grad(true);
  if (gradient.defined()) value.mutable_grad() = gradient.clone();
  return value;
}

LAWN<SGD> wrap(const std::vector<torch::Tensor>& parameters, LAWNOptions options = {},
               SGDOptions base = SGDOptions(0.1)) {
  return LAWN<SGD>(SGD(parameters, std::move(base)), lawn::select(parameters), std::move(options));
}

TEST(LAWN, DeducesTheOptimizerAndIsOne) {
  Problem problem;
  LAWN optimizer(Adam(problem.model->parameters(), AdamOptions(1e-3)), problem.weights(),
                 LAWNOptions().free_steps(2000));
  static_assert(std::is_same_v<decltype(optimizer), LAWN<Adam>>);
  static_assert(std::is_base_of_v<Adam, LAWN<Adam>>);
  const std::vector<std::string> expected = {"0.weight", "2.weight"};
  EXPECT_EQ(optimizer.constrained(), expected);
  EXPECT_EQ(optimizer.lawn_options().free_steps(), 2000);
  torch::optim::Optimizer& base = optimizer;
  EXPECT_EQ(base.param_groups().front().params().size(), 4U);
}

TEST(LAWN, TakesOverTheStateOfAnOptimizerThatHasRun) {
  Problem plain;
  Problem wrapped;
  Adam base(plain.model->parameters(), AdamOptions(0.01));
  Adam before(wrapped.model->parameters(), AdamOptions(0.01));
  const auto run = [](torch::optim::Optimizer& optimizer, Problem& problem, int64_t from) {
    for (int64_t t = from; t < from + 3; ++t) {
      problem.backward(t);
      optimizer.step();
    }
  };
  run(base, plain, 0);
  run(before, wrapped, 0);
  LAWN lawn(std::move(before), wrapped.weights(), LAWNOptions().free_steps(100));
  run(base, plain, 3);
  run(lawn, wrapped, 3);
  expect_equal(wrapped.values(), plain.values(), "after 6 steps");
}

TEST(LAWN, SwitchesAtFreeStepsOrByHand) {
  Problem problem;
  auto optimizer = LAWN<SGD>(SGD(problem.model->parameters(), SGDOptions(0.1)), problem.weights(),
                             LAWNOptions().free_steps(2));
  std::vector<Phase> phases;
  for (int64_t t = 0; t < 4; ++t) {
    problem.backward(t);
    optimizer.step();
    phases.push_back(optimizer.phase());
  }
  const std::vector<Phase> expected = {Phase::kFree, Phase::kFree, Phase::kConstrained,
                                       Phase::kConstrained};
  EXPECT_EQ(phases, expected);

  auto by_hand = wrap({parameter(torch::ones({3}), torch::tensor({1.0f, 2.0f, 4.0f}))},
                      LAWNOptions().free_steps(LAWNOptions::kNever));
  by_hand.step();
  EXPECT_EQ(by_hand.phase(), Phase::kFree);
  const double radius = length(by_hand.param_groups().front().params().front());
  by_hand.constrain();
  EXPECT_EQ(by_hand.phase(), Phase::kConstrained);
  by_hand.constrain();  // again: no effect
  by_hand.step();
  EXPECT_NEAR(length(by_hand.param_groups().front().params().front()), radius,
              tolerance(torch::kFloat).norm);
}

TEST(LAWN, TakesTheRadiusAtTheSwitchTheStartOrAsGiven) {
  const auto value = torch::tensor({3.0f, 4.0f});
  const auto gradient = torch::tensor({1.0f, -1.0f});
  const auto after = [&](LAWNOptions options) {
    auto w = parameter(value, gradient);
    auto optimizer = wrap({w}, options.free_steps(1));
    optimizer.step();
    w.mutable_grad() = gradient.clone();
    optimizer.step();
    return length(w);
  };
  EXPECT_NEAR(after(LAWNOptions()), std::hypot(2.9, 4.1), tolerance(torch::kFloat).step);
  EXPECT_NEAR(after(LAWNOptions().radius(Radius::kInitial)), 5.0, tolerance(torch::kFloat).step);
  EXPECT_NEAR(after(LAWNOptions().radius(Radius::kGiven).radii({2.0})), 2.0,
              tolerance(torch::kFloat).norm);
}

TEST(LAWN, BringsWeightsToInitialOrGivenRadiiAtTheSwitchItself) {
  for (const bool given : {false, true}) {
    auto w = parameter(torch::tensor({3.0f, 4.0f}), torch::tensor({1.0f, -1.0f}));
    auto options = LAWNOptions().free_steps(LAWNOptions::kNever).radius(Radius::kInitial);
    if (given) options.radius(Radius::kGiven).radii({2.0});
    auto optimizer = wrap({w}, options);
    optimizer.step();
    EXPECT_GT(std::abs(length(w) - 5), 1e-3) << "free";
    optimizer.constrain();
    EXPECT_NEAR(length(w), given ? 2.0 : 5.0, tolerance(torch::kFloat).step);
  }
}

TEST(LAWN, KeepsEachOutputUnitOnASphereOfItsOwn) {
  Problem problem;
  auto optimizer =
      LAWN<Adam>(Adam(problem.model->parameters(), AdamOptions(0.05)), problem.weights(),
                 LAWNOptions().granularity(Granularity::kOutputUnit));
  const auto weights = problem.weights().parameters();
  std::vector<torch::Tensor> radii;
  for (const auto& w : weights) radii.push_back(w.detach().norm(2, 1).clone());
  for (int64_t t = 0; t < 20; ++t) {
    problem.backward(t);
    optimizer.step();
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_TRUE(torch::allclose(weights[i].detach().norm(2, 1), radii[i], 1e-6, 1e-7));
  }
  EXPECT_EQ(optimizer.report().layers.front().spheres, 8);
}

TEST(LAWN, CutsATransposedConvolutionIntoOutputUnitsAlongItsSecondDimension) {
  torch::nn::Sequential model(
      torch::nn::ConvTranspose2d(torch::nn::ConvTranspose2dOptions(2, 5, 3).bias(false)));
  LAWN optimizer(SGD(model->parameters(), SGDOptions(0.1)), lawn::select_all_weights(*model),
                 LAWNOptions().granularity(Granularity::kOutputUnit));
  EXPECT_EQ(optimizer.report().layers.front().spheres, 5);
}

TEST(LAWN, ConstrainsATensorWhoseUnitsHaveOneElementAsAWhole) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(1, 6), torch::nn::ReLU(), torch::nn::Linear(6, 2));
  LAWN optimizer(SGD(model->parameters(), SGDOptions(0.1)), lawn::select_all_weights(*model),
                 LAWNOptions().granularity(Granularity::kOutputUnit));
  const auto layers = optimizer.report().layers;
  EXPECT_EQ(layers[0].spheres, 1);
  EXPECT_EQ(layers[1].spheres, 2);
  const auto w = model->parameters()[0];
  const auto before = w.detach().clone();
  model->forward(torch::ones({4, 1})).square().sum().backward();
  optimizer.step();
  EXPECT_GT((w.detach() - before).norm().item<double>(), 1e-3) << "one by one they were frozen";
  EXPECT_NEAR(w.detach().norm().item<double>(), before.norm().item<double>(), 1e-6);
}

TEST(LAWN, TakesTheBiasesOfTheSubnetworkWhenAsked) {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(4, 8), torch::nn::ReLU(), torch::nn::Linear(8, 3));
  const auto x = torch::randn({16, 4});
  const auto sub = lawn::final_homogeneous_subnetwork(model->forward(x), *model);
  EXPECT_EQ(LAWN(SGD(model->parameters(), SGDOptions(0.1)), sub).constrained().size(), 2U);
  LAWN optimizer(SGD(model->parameters(), SGDOptions(0.1)), sub,
                 LAWNOptions().biases(true).granularity(Granularity::kOutputUnit));
  const std::vector<std::string> expected = {"0.weight", "0.bias", "2.weight", "2.bias"};
  EXPECT_EQ(optimizer.constrained(), expected);
  const auto bias = model->parameters()[1];
  const double radius = length(bias);
  const auto before = bias.detach().clone();
  for (int i = 0; i < 5; ++i) {
    optimizer.zero_grad();
    model->forward(x).square().mean().backward();
    optimizer.step();
  }
  EXPECT_NEAR(length(bias), radius, tolerance(torch::kFloat).norm);
  EXPECT_FALSE(torch::equal(bias.detach(), before)) << "one sphere as a whole, so it can turn";
}

TEST(LAWN, LeavesABiasOfOneElementFree) {
  torch::nn::Sequential model(torch::nn::Linear(4, 1));
  const auto sub = lawn::final_homogeneous_subnetwork(model->forward(torch::ones({2, 4})), *model);
  const LAWN optimizer(SGD(model->parameters(), SGDOptions(0.1)), sub, LAWNOptions().biases(true));
  EXPECT_EQ(optimizer.constrained(), std::vector<std::string>{"0.weight"});
}

TEST(LAWN, WeightDecayDoesNotActOnAConstrainedTensor) {
  // The gradient is radial: without weight decay nothing moves, so nothing may move with it.
  const auto value = torch::tensor({3.0f, 4.0f, 12.0f});
  const auto check = [&](auto make) {
    auto w = parameter(value, value * 0.3f);
    auto optimizer = make(w);
    optimizer.step();
    EXPECT_TRUE(torch::allclose(w.detach(), value, 1e-5)) << w;
  };
  check([](const torch::Tensor& w) { return wrap({w}, {}, SGDOptions(0.1).weight_decay(0.5)); });
  check([](const torch::Tensor& w) {
    return LAWN<torch::optim::AdamW>(
        torch::optim::AdamW({w}, torch::optim::AdamWOptions(0).weight_decay(0.5)),
        lawn::select({w}));
  });
  // Adam divides by the size of what is left, which is rounding: its moments must stay tiny.
  auto w = parameter(value, value * 0.3f);
  LAWN optimizer(Adam({w}, AdamOptions(0).weight_decay(0.5)), lawn::select({w}));
  optimizer.step();
  const auto& state =
      static_cast<torch::optim::AdamParamState&>(*optimizer.state().at(w.unsafeGetTensorImpl()));
  EXPECT_LT(state.exp_avg().abs().max().item<double>(), tolerance(torch::kFloat).norm);
}

TEST(LAWN, WeightDecayActsOnEveryOtherTensorAndInTheFreePhase) {
  auto constrained = parameter(torch::ones({3}), torch::tensor({1.0f, 0.0f, 0.0f}));
  auto other = parameter(torch::ones({3}), torch::zeros({3}));
  LAWN optimizer(SGD({constrained, other}, SGDOptions(0.1).weight_decay(0.5)),
                 lawn::select({constrained}), LAWNOptions().free_steps(1));
  optimizer.step();
  EXPECT_TRUE(torch::allclose(constrained.detach(), torch::tensor({0.85f, 0.95f, 0.95f})));
  EXPECT_TRUE(torch::allclose(other.detach(), torch::full({3}, 0.95f)));
  optimizer.step();
  EXPECT_TRUE(torch::allclose(other.detach(), torch::full({3}, 0.95f * 0.95f)));
}

TEST(LAWN, EachGroupsOwnWeightDecayIsSubtracted) {
  const auto value = torch::tensor({3.0f, 4.0f});
  auto a = parameter(value, value);
  auto b = parameter(value, value);
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<torch::Tensor>{a},
                      std::make_unique<SGDOptions>(SGDOptions(0.1).weight_decay(0.75)));
  groups.emplace_back(
      std::vector<torch::Tensor>{b},
      std::make_unique<SGDOptions>(SGDOptions(0.1).momentum(0.9).weight_decay(0.25)));
  LAWN optimizer(SGD(groups, SGDOptions(0.1)), lawn::select({a, b}));
  optimizer.step();
  EXPECT_TRUE(torch::allclose(a.detach(), value, 1e-5));
  const auto& state =
      static_cast<torch::optim::SGDParamState&>(*optimizer.state().at(b.unsafeGetTensorImpl()));
  EXPECT_LT(state.momentum_buffer().abs().max().item<double>(), tolerance(torch::kFloat).step);
}

TEST(LAWN, LeavesAParameterWithoutAGradientWhereItIs) {
  torch::manual_seed(0);
  auto used = parameter(torch::randn({4}), torch::randn({4}));
  auto unused = parameter(torch::randn({4}));
  auto optimizer = wrap({unused, used});
  const auto before = unused.detach().clone();
  for (int i = 0; i < 3; ++i) optimizer.step();
  EXPECT_TRUE(torch::allclose(unused.detach(), before, 1e-6));
  EXPECT_EQ(optimizer.report().layers.front().note, "no gradient");
}

TEST(LAWN, LeavesEmptyAndScalarParametersInOrder) {
  auto empty = parameter(torch::zeros({0, 3}), torch::zeros({0, 3}));
  auto scalar = parameter(torch::tensor(2.0f), torch::tensor(1.0f));
  auto optimizer = wrap({empty, scalar});
  optimizer.step();
  EXPECT_NEAR(scalar.item<double>(), 2.0, tolerance(torch::kFloat).norm)
      << "a sphere in one dimension is two points";
  EXPECT_EQ(optimizer.report().layers.size(), 2U);
}

TEST(LAWN, WorksOnNonContiguousAndChannelsLastWeights) {
  torch::manual_seed(0);
  auto strided = torch::randn({8, 12}).t().slice(0, 0, 12, 2).detach().set_requires_grad(true);
  auto channels_last = torch::randn({4, 3, 3, 3})
                           .contiguous(torch::MemoryFormat::ChannelsLast)
                           .set_requires_grad(true);
  strided.mutable_grad() = torch::randn({6, 8});
  channels_last.mutable_grad() = torch::randn({4, 3, 3, 3});
  const double radii[] = {length(strided), length(channels_last)};
  auto optimizer = wrap({strided, channels_last});
  for (int i = 0; i < 5; ++i) optimizer.step();
  EXPECT_NEAR(length(strided) / radii[0], 1, tolerance(torch::kFloat).norm);
  EXPECT_NEAR(length(channels_last) / radii[1], 1, tolerance(torch::kFloat).norm);
  EXPECT_FALSE(strided.is_contiguous());
}

TEST(LAWN, FollowsAModelThatIsMovedToAnotherDtypeAfterTheSwitch) {
  Problem problem;
  LAWN optimizer(SGD(problem.model->parameters(), SGDOptions(0.1)), problem.weights());
  problem.backward(0);
  optimizer.step();
  problem.model->to(torch::kDouble);
  problem.x = problem.x.to(torch::kDouble);
  for (int64_t t = 1; t < 4; ++t) {
    problem.backward(t);
    optimizer.step();
  }
  EXPECT_LE(optimizer.report().layers.front().norm_error.value(), 1e-7);
}

class LAWNNorm : public ::testing::TestWithParam<torch::ScalarType> {};

TEST_P(LAWNNorm, StaysAtTheRadiusForTenThousandSteps) {
  torch::manual_seed(3);
  auto w = torch::randn({32, 16}).to(GetParam()).set_requires_grad(true);
  LAWN optimizer(Adam({w}, AdamOptions(0.02)), lawn::select({w}));
  const double radius = length(w);
  const auto before = w.detach().clone();
  for (int i = 0; i < 10000; ++i) {
    w.mutable_grad() = torch::randn({32, 16}).to(GetParam());
    optimizer.step();
  }
  EXPECT_NEAR(length(w) / radius, 1, tolerance(GetParam()).norm);
  EXPECT_LE(optimizer.report().layers.front().norm_error.value(), tolerance(GetParam()).norm);
  EXPECT_GT(length(w - before) / radius, 0.5) << "the weight has turned";
}

INSTANTIATE_TEST_SUITE_P(Dtypes, LAWNNorm,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16,
                                           torch::kHalf),
                         lawn::testing::dtype_name);

TEST(LAWN, NonFiniteGradientHarmsItsOwnLayerAloneAndTheReportNamesIt) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    torch::manual_seed(0);
    auto hurt = parameter(torch::randn({4}), torch::tensor({1.0f, bad, 2.0f, 3.0f}));
    auto well = parameter(torch::randn({4}), torch::randn({4}));
    const double radius = length(well);
    auto optimizer = wrap({hurt, well});
    optimizer.step();
    EXPECT_TRUE(torch::isfinite(well).all().item<bool>());
    EXPECT_NEAR(length(well), radius, tolerance(torch::kFloat).norm);
    EXPECT_EQ(torch::isfinite(hurt).sum().item<int64_t>(), 3)
        << "the other elements are as SGD left them";
    const auto report = optimizer.report();
    EXPECT_EQ(report.layers[0].note, "weight is not finite, gradient is not finite");
    EXPECT_EQ(report.layers[1].note, "");
  }
}

TEST(LAWN, FreeZeroNormLayerTrainsAsTheBaseOptimizerWould) {
  auto zero = parameter(torch::zeros({3}), torch::ones({3}));
  auto other = parameter(torch::ones({3}), torch::tensor({1.0f, 0.0f, 0.0f}));
  auto optimizer = wrap({zero, other}, LAWNOptions().zero_norm(ZeroNorm::kLeaveFree));
  optimizer.step();
  EXPECT_TRUE(torch::allclose(zero.detach(), torch::full({3}, -0.1f)));
  zero.mutable_grad() = torch::ones({3});
  optimizer.step();
  EXPECT_TRUE(torch::allclose(zero.detach(), torch::full({3}, -0.2f))) << "it stays free";
  EXPECT_NEAR(length(other), std::sqrt(3.0), tolerance(torch::kFloat).norm);
  EXPECT_EQ(optimizer.report().layers.front().note, "left free");
  EXPECT_EQ(optimizer.report().layers.front().norm_error.value(), 0);
}

TEST(LAWN, FreeZeroUnitLeavesTheOtherUnitsConstrained) {
  auto w = parameter(torch::tensor({{0.0f, 0.0f}, {3.0f, 4.0f}}), torch::ones({2, 2}));
  auto optimizer = wrap({w}, LAWNOptions()
                                 .granularity(Granularity::kOutputUnit)
                                 .zero_norm(ZeroNorm::kLeaveFree)
                                 .radius(Radius::kGiven)
                                 .radii({2.0}));
  optimizer.step();
  EXPECT_TRUE(torch::allclose(w[0].detach(), torch::full({2}, -0.1f)));
  EXPECT_NEAR(length(w[1]), 2.0, tolerance(torch::kFloat).norm);
  EXPECT_EQ(optimizer.report().layers.front().note, "some units left free");
}

TEST(LAWN, MeasuresTheAngleOfEachStep) {
  // A tangent step of length 0.5 from a weight of length 5 turns it by atan(0.1).
  auto w = parameter(torch::tensor({3.0f, 4.0f}), torch::tensor({4.0f, -3.0f}));
  auto optimizer = wrap({w}, LAWNOptions().angular_steps(true));
  EXPECT_FALSE(optimizer.report().layers.front().angular_step.has_value());
  optimizer.step();
  EXPECT_NEAR(optimizer.report().layers.front().angular_step.value(), std::atan(0.1),
              tolerance(torch::kFloat).norm);
  // With a closure that is evaluated often, the angle is that of the whole step.
  Problem problem;
  auto lbfgs = lawn::testing::LBFGS::make(problem.groups());
  LAWN around(std::move(lbfgs), problem.weights(), LAWNOptions().angular_steps(true));
  const auto weight = problem.weights().parameters().front();
  const auto before = weight.detach().to(torch::kDouble);
  around.step([&] { return problem.backward(0); });
  const auto after = weight.detach().to(torch::kDouble);
  const double cosine = (before * after).sum().item<double>() / (length(before) * length(after));
  EXPECT_NEAR(around.report().layers.front().angular_step.value(), std::acos(cosine),
              tolerance(torch::kFloat).step);
}

// Refusals: each before anything is changed.

TEST(LAWN, MeasuresNoAngleWhereTheOptimizerIgnoresItsClosure) {
  struct Idle : SGD {
    using SGD::SGD;
    torch::Tensor step(LossClosure /*closure*/ = nullptr) override { return {}; }
  };
  Problem problem;
  LAWN optimizer(Idle(problem.model->parameters(), SGDOptions(0.1)), problem.weights(),
                 LAWNOptions().angular_steps(true));
  optimizer.step([&] { return problem.backward(0); });
  EXPECT_FALSE(optimizer.report().layers.front().angular_step.has_value());
}

TEST(LAWNRefuses, NegativeFreeSteps) {
  auto w = parameter(torch::ones({2}));
  expect_refusal([&] { wrap({w}, LAWNOptions().free_steps(-3)); },
                 "lawn::LAWN: free_steps must be >= 0, got -3");
}

TEST(LAWNRefuses, RadiiThatDoNotFit) {
  auto w = parameter(torch::ones({2}));
  expect_refusal([&] { wrap({w}, LAWNOptions().radii({1.0})); },
                 "radii are used with radius(Radius::kGiven) alone");
  expect_refusal([&] { wrap({w}, LAWNOptions().radius(Radius::kGiven)); },
                 "expected one of radii for each of 1 constrained tensors, got 0");
  for (const double bad : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    expect_refusal([&] { wrap({w}, LAWNOptions().radius(Radius::kGiven).radii({bad})); },
                   "radii must be finite and > 0, got");
  }
}

TEST(LAWNRefuses, ParameterThatTheOptimizerDoesNotHold) {
  auto held = parameter(torch::ones({2}));
  auto stranger = parameter(torch::ones({2}));
  expect_refusal(
      [&] {
        LAWN(SGD({held}, SGDOptions(0.1)), lawn::select({held, stranger}));
      },
      "got parameter 1 which it does not hold");
}

TEST(LAWNRefuses, ParameterThatTheOptimizerHoldsTwice) {
  auto w = parameter(torch::ones({2}));
  expect_refusal(
      [&] {
        LAWN(SGD({w, w}, SGDOptions(0.1)), lawn::select({w}));
      },
      "got parameter 0 2 times");
}

TEST(LAWNRefuses, TheOptimizerStaysWhereItWas) {
  auto w = parameter(torch::ones({2}));
  SGD base({w}, SGDOptions(0.1));
  expect_refusal([&] { LAWN(std::move(base), lawn::select({w}), LAWNOptions().free_steps(-1)); },
                 "free_steps");
  EXPECT_EQ(base.param_groups().front().params().size(), 1U);
}

TEST(LAWNRefuses, ZeroNormAtTheSwitchAndNamesTheTensor) {
  auto good = parameter(torch::ones({2}), torch::tensor({1.0f, 0.0f}));
  auto zero = parameter(torch::zeros({2}), torch::ones({2}));
  auto optimizer = wrap({good, zero});
  expect_refusal([&] { optimizer.step(); },
                 "expected parameter 1 to have a finite norm > 0 at the switch, got 0");
  EXPECT_EQ(optimizer.phase(), Phase::kFree);
  EXPECT_TRUE(torch::equal(good.detach(), torch::ones({2})));
  EXPECT_TRUE(torch::equal(good.grad(), torch::tensor({1.0f, 0.0f})));
  expect_refusal([&] { optimizer.constrain(); }, "lawn::LAWN");
  expect_refusal([&] { wrap({zero}, LAWNOptions().radius(Radius::kInitial)); },
                 "when it was wrapped");
}

TEST(LAWNRefuses, ZeroNormOfOneOutputUnit) {
  auto w = parameter(torch::tensor({{1.0f, 1.0f}, {0.0f, 0.0f}}), torch::ones({2, 2}));
  auto optimizer = wrap({w}, LAWNOptions().granularity(Granularity::kOutputUnit));
  expect_refusal([&] { optimizer.step(); }, "got 0 in output unit 1");
}

TEST(LAWNRefuses, AUnitDimThatTheTensorHasNot) {
  auto w = parameter(torch::ones({2, 3}), torch::ones({2, 3}));
  for (const int64_t dim : {-1, 2}) {
    auto selected = lawn::select({w}).all();
    selected[0].unit_dim = dim;
    expect_refusal(
        [&] {
          LAWN(SGD({w}, SGDOptions(0.1)), lawn::Subnetwork(selected),
               LAWNOptions().granularity(Granularity::kOutputUnit));
        },
        "of shape [2, 3], with a unit_dim in [0, 2), got " + std::to_string(dim));
  }
}

TEST(LAWNRefuses, NormThatIsNotFiniteAtTheSwitch) {
  auto w = parameter(torch::tensor({1.0f, std::nanf("")}), torch::ones({2}));
  auto optimizer = wrap({w});
  expect_refusal([&] { optimizer.step(); }, "got nan");
}

TEST(LAWNRefuses, SparseGradientOfAConstrainedTensorAndTakesItElsewhere) {
  torch::nn::Embedding table(torch::nn::EmbeddingOptions(5, 3).sparse(true));
  torch::nn::Linear head(3, 2);
  const auto backward = [&] {
    head->forward(table->forward(torch::tensor({1, 3}))).square().sum().backward();
  };
  auto parameters = head->parameters();
  parameters.push_back(table->weight);
  const auto before = table->weight.detach().clone();
  LAWN both(SGD(parameters, SGDOptions(0.1)), lawn::select({table->weight, head->weight}),
            LAWNOptions().free_steps(100));
  backward();
  expect_refusal([&] { both.step(); }, "expected a dense gradient for parameter 0");
  EXPECT_EQ(both.report().layers.front().note, "gradient is not dense");
  EXPECT_TRUE(torch::equal(table->weight.detach(), before));
  EXPECT_EQ(both.steps(), 0);

  LAWN outside(SGD(parameters, SGDOptions(0.1)), lawn::select({head->weight}));
  outside.step();
  EXPECT_FALSE(torch::equal(table->weight.detach(), before));
}

TEST(LAWNRefuses, ProjectingStateItDoesNotKnow) {
  Problem problem;
  expect_refusal(
      [&] {
        LAWN<lawn::testing::SignMomentum>(
            lawn::testing::SignMomentum(problem.groups()), problem.weights(),
            LAWNOptions().state_at_switch(lawn::StateAtSwitch::kProject));
      },
      "StateAtSwitch::kProject needs LAWNOptions().first_moments(...)");
}

TEST(LAWNRefuses, LBFGSWithoutAClosureBeforeAnythingIsChanged) {
  const auto weight =
      parameter(torch::tensor({{3.0, 4.0}, {1.0, 2.0}}), torch::tensor({{1.0, -1.0}, {2.0, 0.5}}));
  LAWN optimizer(torch::optim::LBFGS({weight}, torch::optim::LBFGSOptions(0.1)),
                 lawn::select({weight}), LAWNOptions().free_steps(0));
  const auto gradient = weight.grad().clone();
  expect_refusal([&] { optimizer.step(); },
                 "lawn::LAWN: expected a closure, which L-BFGS evaluates, got none; nothing was "
                 "changed");
  EXPECT_EQ(optimizer.phase(), Phase::kFree);
  EXPECT_TRUE(torch::equal(weight.grad(), gradient));
}

TEST(LAWNRefuses, IntegerAndComplexParametersInTheSelection) {
  expect_refusal([] { lawn::select({torch::ones({2}, torch::kLong)}); }, "Long");
  expect_refusal([] { lawn::select({torch::ones({2}, torch::kComplexFloat)}); }, "ComplexFloat");
  auto w = parameter(torch::ones({2}));
  expect_refusal([&] { lawn::select({w, w}); }, "once");
}

}  // namespace
