// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cstddef>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/optim/lars.h>

#include "tests/capture/device_reads.h"
#include "tests/optim/golden/problem.h"
#include "tests/optim/golden/timm.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::LARS;
using lawn::LARSOptions;
using lawn::LARSParamState;
using lawn::testing::close;
using lawn::testing::device_reads;
using lawn::testing::expect_refusal;
using lawn::testing::GoldenProblem;
using lawn::testing::tolerance;
using torch::optim::OptimizerParamGroup;

std::unique_ptr<LARSOptions> own(const LARSOptions& options) {
  return std::make_unique<LARSOptions>(options);
}

torch::Tensor leaf(const torch::Tensor& values) {
  return values.detach().clone().set_requires_grad(true);
}

/// LARS as its docstring writes it, for one tensor, in float64.
struct Twin {
  Twin(const torch::Tensor& start, LARSOptions given)
      : options(std::move(given)), w(start.detach().to(torch::kDouble).clone()) {
    m = torch::zeros_like(w);
  }

  void step(const torch::Tensor& gradient) {
    const auto g = gradient.to(torch::kDouble);
    double ratio = 1;
    if (options.weight_decay() != 0 || options.always_adapt()) {
      const double w_norm = w.norm().item<double>();
      const double g_norm = g.norm().item<double>();
      if (w_norm > 0 && g_norm > 0) {
        ratio = options.trust_coefficient() * w_norm /
                (g_norm + options.weight_decay() * w_norm + options.eps());
      }
      if (options.trust_clip()) ratio = std::min(ratio / options.lr(), 1.0);
    }
    const auto d = ratio * (g + options.weight_decay() * w);
    m = options.momentum() * m + d;
    w = w - options.lr() * (options.nesterov() ? d + options.momentum() * m : m);
  }

  LARSOptions options;
  torch::Tensor w, m;
};

class LARSOn : public ::testing::TestWithParam<torch::ScalarType> {
 protected:
  void SetUp() override { torch::manual_seed(3); }

  torch::Tensor random(torch::IntArrayRef sizes) {
    return torch::randn(sizes).to(GetParam()).contiguous();
  }
};

TEST_P(LARSOn, EqualsAPlainTwinInEveryGroup) {
  const bool wide = GetParam() == torch::kDouble || GetParam() == torch::kFloat;
  const int steps = wide ? 60 : 15;
  const std::vector<LARSOptions> each = {
      LARSOptions(0.5).trust_coefficient(0.02),
      LARSOptions(0.01).weight_decay(0),
      LARSOptions(0.3).trust_coefficient(0.05).weight_decay(0).always_adapt(true).momentum(0),
      LARSOptions(0.5).trust_coefficient(0.02).weight_decay(0.1).nesterov(true).eps(0.1),
      LARSOptions(0.02).trust_coefficient(0.1).trust_clip(true).momentum(0.5),
      LARSOptions(0.01).weight_decay(0).momentum(0),
  };
  std::vector<OptimizerParamGroup> groups;
  std::vector<torch::Tensor> weights;
  std::vector<Twin> twins;
  for (const auto& options : each) {
    std::vector<torch::Tensor> members = {
        leaf(random({6, 5})),
        leaf(random({7})),
        leaf(random({})),
        leaf(torch::zeros({3}, GetParam())),
        leaf(random({2, 3, 4, 4}).contiguous(torch::MemoryFormat::ChannelsLast)),
        leaf(random({5, 4}).t()),
        leaf(random({0, 2})),
        random({6, 8}).slice(1, 0, 8, 2).detach().set_requires_grad(true)};
    for (const auto& w : members) {
      weights.push_back(w);
      twins.emplace_back(w, options);
    }
    groups.emplace_back(members, own(options));
  }
  LARS lars(groups, 0.1);
  for (int t = 0; t < steps; ++t) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      weights[i].mutable_grad() = torch::randn_like(weights[i]) + 0.3;
      twins[i].step(weights[i].grad());
    }
    const auto gradient = weights[0].grad().clone();
    lars.step();
    EXPECT_TRUE(torch::equal(weights[0].grad(), gradient)) << "the gradient is the user's";
  }
  const auto tolerance = lawn::testing::tolerance(GetParam());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i].numel() == 0) continue;
    const double error =
        (weights[i].detach().to(torch::kDouble) - twins[i].w).abs().max().item<double>();
    EXPECT_LE(error, tolerance.trajectory * twins[i].w.abs().max().item<double>()) << i;
  }
}

TEST_P(LARSOn, KeepsItsMomentumInTheDtypeOfSums) {
  auto w = leaf(random({4}));
  LARS lars({w}, 0.1);
  w.mutable_grad() = torch::ones_like(w);
  lars.step();
  const auto& state = static_cast<const LARSParamState&>(*lars.state().at(w.unsafeGetTensorImpl()));
  const auto expected = GetParam() == torch::kDouble ? torch::kDouble : torch::kFloat;
  EXPECT_EQ(state.momentum_buffer().scalar_type(), expected);
  EXPECT_EQ(w.scalar_type(), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Dtypes, LARSOn,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16,
                                           torch::kHalf),
                         lawn::testing::dtype_name);

void expect_golden(const std::string& name, const LARSOptions& options) {
  GoldenProblem problem;
  LARS lars(problem.weights, options);
  for (int64_t t = 0; t < GoldenProblem::kSteps; ++t) {
    problem.set_gradients(t);
    lars.step();
  }
  const auto expected = torch::tensor(lawn::testing::timm_golden().at(name), torch::kDouble);
  EXPECT_LE((problem.values() - expected).abs().max().item<double>(), 1e-12) << name;
}

TEST(LARS, GivesTheNumbersOfTimm) {
  const auto options = LARSOptions(0.5).weight_decay(0.01).trust_coefficient(0.02);
  const auto with = [&](const auto& change) {
    auto changed = options;
    change(changed);
    return changed;
  };
  expect_golden("lars", options);
  expect_golden("lars, no momentum", with([](LARSOptions& o) { o.momentum(0); }));
  expect_golden("lars, nesterov", with([](LARSOptions& o) { o.nesterov(true); }));
  expect_golden("lars, trust_clip",
                with([](LARSOptions& o) { o.trust_clip(true).lr(0.05).trust_coefficient(0.1); }));
  expect_golden("lars, no decay", with([](LARSOptions& o) { o.weight_decay(0).lr(0.05); }));
  expect_golden("lars, no decay, always_adapt, eps",
                with([](LARSOptions& o) { o.weight_decay(0).always_adapt(true).eps(0.1); }));
}

TEST(LARS, StepsInProportionToTheWeightWhateverTheGradient) {
  torch::manual_seed(0);
  const auto options = LARSOptions(2).trust_coefficient(0.05).weight_decay(0).always_adapt(true);
  auto small = leaf(1e-3 * torch::randn({20}));
  auto large = leaf(1e3 * torch::randn({20}));
  LARS lars({small, large}, options);
  small.mutable_grad() = 1e4 * torch::randn({20});
  large.mutable_grad() = torch::randn({20});
  const std::vector<torch::Tensor> before = {small.detach().clone(), large.detach().clone()};
  lars.step();
  const auto moved = [](const torch::Tensor& now, const torch::Tensor& then) {
    return ((now.detach() - then).norm() / then.norm()).item<double>();
  };
  EXPECT_NEAR(moved(small, before[0]), 0.1, tolerance(torch::kFloat).norm);
  EXPECT_NEAR(moved(large, before[1]), 0.1, tolerance(torch::kFloat).norm);
}

TEST(LARS, ZeroWeightsStepWithRatioOneAndZeroGradientsLeaveWeights) {
  auto zero = leaf(torch::zeros({4}));
  auto still = leaf(torch::ones({4}));
  LARS lars({zero, still}, LARSOptions(0.1).weight_decay(0).always_adapt(true));
  zero.mutable_grad() = torch::ones({4});
  still.mutable_grad() = torch::zeros({4});
  lars.step();
  EXPECT_TRUE(torch::allclose(zero, torch::full({4}, -0.1)));
  EXPECT_TRUE(torch::equal(still, torch::ones({4})));
}

TEST(LARS, WithoutDecayAndMomentumIsSGDAndKeepsNoState) {
  auto w = leaf(torch::ones({4}));
  LARS lars({w}, LARSOptions(0.1).weight_decay(0).momentum(0));
  w.mutable_grad() = torch::ones({4});
  lars.step();
  EXPECT_TRUE(torch::allclose(w, torch::full({4}, 0.9)));
  EXPECT_TRUE(lars.state().empty());
}

TEST(LARS, ParametersWithoutGradientStayAsTheyAre) {
  auto often = leaf(torch::ones({3}));
  auto seldom = leaf(torch::ones({3}));
  const auto options = LARSOptions(0.5).trust_coefficient(0.1);
  LARS lars({often, seldom}, options);
  lars.step();  // no gradient at all
  EXPECT_TRUE(lars.state().empty());
  Twin twin_often(often, options);
  Twin twin_seldom(seldom, options);
  torch::manual_seed(1);
  for (int t = 0; t < 9; ++t) {
    often.mutable_grad() = torch::randn({3});
    twin_often.step(often.grad());
    seldom.mutable_grad() = t % 3 == 2 ? torch::randn({3}) : torch::Tensor();
    if (seldom.grad().defined()) twin_seldom.step(seldom.grad());
    lars.step();
  }
  EXPECT_TRUE(close(often.to(torch::kDouble), twin_often.w, torch::kFloat));
  EXPECT_TRUE(close(seldom.to(torch::kDouble), twin_seldom.w, torch::kFloat));
}

TEST(LARS, StepDoesNotWaitForTheDevice) {
  auto w = leaf(torch::randn({6, 8}));
  LARS lars({w}, LARSOptions(0.1).trust_clip(true).nesterov(true));
  w.mutable_grad() = torch::randn({6, 8});
  EXPECT_EQ(device_reads([&] { lars.step(); }), 0);
}

TEST(LARS, RefusesSparseGradientsBeforeItChangesAnything) {
  auto dense = leaf(torch::ones({4}));
  auto sparse = leaf(torch::ones({4}));
  LARS lars({dense, sparse}, 0.1);
  dense.mutable_grad() = torch::ones({4});
  sparse.mutable_grad() = torch::ones({4}).to_sparse();
  expect_refusal(
      [&] { lars.step(); },
      "lawn::LARS: expected dense gradients, got a Sparse one for parameter 1 of group 0");
  EXPECT_TRUE(torch::equal(dense, torch::ones({4})));
  EXPECT_TRUE(lars.state().empty());
}

TEST(LARS, RefusesOptionsOutOfRange) {
  const auto refuse = [](const LARSOptions& options, const std::string& message) {
    auto w = leaf(torch::ones({2}));
    expect_refusal([&] { LARS lars({w}, options); }, message);
    std::vector<OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<torch::Tensor>{w}, own(options));
    expect_refusal([&] { LARS lars(groups, 0.1); }, message);
    LARS lars({w}, 0.1);
    auto other = leaf(torch::ones({2}));
    expect_refusal([&] { lars.add_param_group(OptimizerParamGroup({other}, own(options))); },
                   message);
    EXPECT_EQ(lars.param_groups().size(), 1U);
  };
  refuse(LARSOptions(-1), "lawn::LARS: lr must be finite and >= 0, got -1");
  refuse(LARSOptions(1).momentum(1), "lawn::LARS: momentum must be in [0, 1), got 1");
  refuse(LARSOptions(1).weight_decay(-2), "weight_decay must be finite and >= 0, got -2");
  refuse(LARSOptions(1).trust_coefficient(0), "trust_coefficient must be finite and > 0, got 0");
  refuse(LARSOptions(1).eps(-1), "lawn::LARS: eps must be finite and >= 0, got -1");
  refuse(LARSOptions(1).momentum(0).nesterov(true), "nesterov needs a momentum > 0, got 0");
}

TEST(LARS, RefusesTheOptionsOfAnotherOptimizerAndComplexParameters) {
  auto w = leaf(torch::ones({2}));
  LARS lars({w}, 0.1);
  auto other = leaf(torch::ones({2}));
  expect_refusal(
      [&] {
        lars.add_param_group(
            OptimizerParamGroup({other}, std::make_unique<torch::optim::AdamOptions>(0.1)));
      },
      "lawn::LARS: expected each parameter group to have the options of lawn::LARS");
  auto complex = leaf(torch::ones({2}, torch::kComplexFloat));
  LARS on_complex({complex}, 0.1);
  complex.mutable_grad() = torch::ones_like(complex);
  expect_refusal([&] { on_complex.step(); }, "expected parameters of floating point, got Complex");
}

TEST(LARS, GroupsKeepTheOptionsTheyBring) {
  std::vector<torch::Tensor> w;
  for (int i = 0; i < 4; ++i) w.push_back(leaf(torch::ones({2})));
  std::vector<OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<torch::Tensor>{w[0]}, own(LARSOptions(0.25).weight_decay(0)));
  groups.emplace_back(std::vector<torch::Tensor>{w[1]});
  LARS lars(groups, LARSOptions(0.75));
  lars.add_param_group(OptimizerParamGroup({w[2]}, own(LARSOptions(0.5).always_adapt(true))));
  lars.add_param_group(OptimizerParamGroup({w[3]}));
  const auto options = [&](std::size_t g) {
    return static_cast<const LARSOptions&>(lars.param_groups()[g].options());
  };
  EXPECT_TRUE(options(0) == LARSOptions(0.25).weight_decay(0));
  EXPECT_TRUE(options(1) == LARSOptions(0.75));
  EXPECT_TRUE(options(2) == LARSOptions(0.5).always_adapt(true));
  EXPECT_TRUE(options(3) == LARSOptions(0.75));
}

TEST(LARS, SavedLoadedAndContinuedEqualsUninterruptedBitForBit) {
  const auto make = [](GoldenProblem& problem) {
    std::vector<OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<torch::Tensor>{problem.weights[0], problem.weights[1]},
                        own(LARSOptions(0.5).trust_coefficient(0.05).eps(1e-5).nesterov(true)));
    groups.emplace_back(
        std::vector<torch::Tensor>{problem.weights[2], problem.weights[3], problem.weights[4]},
        own(LARSOptions(0.02).weight_decay(0).trust_clip(true).always_adapt(true).momentum(0.5)));
    return LARS(groups, 0.1);
  };
  const auto train = [](LARS& lars, GoldenProblem& problem, int64_t from, int64_t to) {
    for (int64_t t = from; t < to; ++t) {
      problem.set_gradients(t);
      lars.step();
    }
  };
  GoldenProblem straight;
  auto whole = make(straight);
  train(whole, straight, 0, 10);

  GoldenProblem problem;
  auto before = make(problem);
  train(before, problem, 0, 4);
  std::stringstream file;
  torch::save(before, file);
  LARS after(
      std::vector<OptimizerParamGroup>{
          OptimizerParamGroup({problem.weights[0], problem.weights[1]}),
          OptimizerParamGroup({problem.weights[2], problem.weights[3], problem.weights[4]})},
      0.1);
  torch::load(after, file);
  for (std::size_t g = 0; g < 2; ++g) {
    EXPECT_TRUE(static_cast<const LARSOptions&>(after.param_groups()[g].options()) ==
                static_cast<const LARSOptions&>(before.param_groups()[g].options()));
  }
  for (const auto& weight : problem.weights) {
    void* key = weight.unsafeGetTensorImpl();
    EXPECT_TRUE(static_cast<const LARSParamState&>(*after.state().at(key)) ==
                static_cast<const LARSParamState&>(*before.state().at(key)));
  }
  train(after, problem, 4, 10);
  EXPECT_TRUE(torch::equal(problem.values(), straight.values()));
}

TEST(LARS, StepReturnsTheLossOfItsClosureAndMakesGradientsInIt) {
  auto w = leaf(torch::ones({3}));
  LARS lars({w}, 0.1);
  EXPECT_FALSE(lars.step().defined());
  const torch::NoGradGuard no_grad;
  const auto loss = lars.step([&] {
    auto value = (w * w).sum();
    value.backward();
    return value;
  });
  EXPECT_EQ(loss.item<float>(), 3);
  EXPECT_LT(w.sum().item<float>(), 3);
}

TEST(LARS, OptionsAndStatesCompareByValue) {
  EXPECT_TRUE(LARSOptions(0.1) == LARSOptions(0.1));
  for (const auto& other :
       {LARSOptions(0.2), LARSOptions(0.1).momentum(0), LARSOptions(0.1).weight_decay(1),
        LARSOptions(0.1).trust_coefficient(1), LARSOptions(0.1).eps(1),
        LARSOptions(0.1).nesterov(true), LARSOptions(0.1).trust_clip(true),
        LARSOptions(0.1).always_adapt(true)}) {
    EXPECT_FALSE(LARSOptions(0.1) == other);
  }
  const auto ones = torch::ones({2});
  EXPECT_TRUE(LARSParamState() == LARSParamState());
  EXPECT_TRUE(LARSParamState().momentum_buffer(ones) ==
              LARSParamState().momentum_buffer(ones.clone()));
  EXPECT_FALSE(LARSParamState().momentum_buffer(ones) == LARSParamState());
  EXPECT_FALSE(LARSParamState().momentum_buffer(ones) ==
               LARSParamState().momentum_buffer(2 * ones));
}

}  // namespace
