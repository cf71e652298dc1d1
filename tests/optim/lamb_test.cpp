// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/clip_grad_norm.h>
#include <lawn/optim/lamb.h>

#include "tests/capture/device_reads.h"
#include "tests/optim/golden/problem.h"
#include "tests/optim/golden/timm.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::LAMB;
using lawn::LAMBOptions;
using lawn::LAMBParamState;
using lawn::testing::close;
using lawn::testing::device_reads;
using lawn::testing::expect_refusal;
using lawn::testing::GoldenProblem;
using torch::optim::OptimizerParamGroup;

std::unique_ptr<LAMBOptions> own(const LAMBOptions& options) {
  return std::make_unique<LAMBOptions>(options);
}

torch::Tensor leaf(const torch::Tensor& values) {
  return values.detach().clone().set_requires_grad(true);
}

/// LAMB as the paper writes it, for one tensor, in float64.
struct Twin {
  Twin(const torch::Tensor& start, LAMBOptions given)
      : options(std::move(given)), w(start.detach().to(torch::kDouble).clone()) {
    m = torch::zeros_like(w);
    v = torch::zeros_like(w);
  }

  void step(const torch::Tensor& gradient) {
    const auto g = gradient.to(torch::kDouble);
    const auto [beta1, beta2] = options.betas();
    ++t;
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    auto m_hat = m;
    auto v_hat = v;
    if (options.bias_correction()) {
      m_hat = m / (1 - std::pow(beta1, t));
      v_hat = v / (1 - std::pow(beta2, t));
    }
    const auto u = m_hat / (v_hat.sqrt() + options.eps()) + options.weight_decay() * w;
    double ratio = 1;
    if (options.weight_decay() != 0 || options.always_adapt()) {
      const double w_norm = w.norm().item<double>();
      const double u_norm = u.norm().item<double>();
      if (w_norm > 0 && u_norm > 0) ratio = w_norm / u_norm;
      ratio = std::min(ratio, options.max_trust_ratio());
    }
    w = w - options.lr() * ratio * u;
  }

  LAMBOptions options;
  torch::Tensor w, m, v;
  int t = 0;
};

class LAMBOn : public ::testing::TestWithParam<torch::ScalarType> {
 protected:
  void SetUp() override { torch::manual_seed(3); }

  torch::Tensor random(torch::IntArrayRef sizes) {
    return torch::randn(sizes).to(GetParam()).contiguous();
  }
};

TEST_P(LAMBOn, EqualsAPlainTwinInEveryGroup) {
  const bool wide = GetParam() == torch::kDouble || GetParam() == torch::kFloat;
  const int steps = wide ? 60 : 15;
  const std::vector<LAMBOptions> each = {
      LAMBOptions(0.01),
      LAMBOptions(0.02).weight_decay(0),
      LAMBOptions(0.03).weight_decay(0).always_adapt(true),
      LAMBOptions(0.01).betas({0.5, 0.9}).eps(1e-3).weight_decay(0.5).bias_correction(false),
      LAMBOptions(0.02).max_trust_ratio(1),
      LAMBOptions(0.02).max_trust_ratio(0.25).always_adapt(true).weight_decay(0),
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
  LAMB lamb(groups);
  for (int t = 0; t < steps; ++t) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      weights[i].mutable_grad() = torch::randn_like(weights[i]) + 0.3;
      twins[i].step(weights[i].grad());
    }
    const auto gradient = weights[0].grad().clone();
    lamb.step();
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

TEST_P(LAMBOn, KeepsMomentsInTheDtypeOfSums) {
  auto w = leaf(random({4}));
  LAMB lamb({w});
  w.mutable_grad() = torch::ones_like(w);
  lamb.step();
  const auto& state = static_cast<const LAMBParamState&>(*lamb.state().at(w.unsafeGetTensorImpl()));
  const auto expected = GetParam() == torch::kDouble ? torch::kDouble : torch::kFloat;
  EXPECT_EQ(state.exp_avg().scalar_type(), expected);
  EXPECT_EQ(state.exp_avg_sq().scalar_type(), expected);
  EXPECT_EQ(w.scalar_type(), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Dtypes, LAMBOn,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16,
                                           torch::kHalf),
                         lawn::testing::dtype_name);

void expect_golden(const std::string& name, const LAMBOptions& options, double tolerance = 1e-12,
                   double max_grad_norm = std::numeric_limits<double>::infinity()) {
  GoldenProblem problem;
  LAMB lamb(problem.weights, options);
  for (int64_t t = 0; t < GoldenProblem::kSteps; ++t) {
    problem.set_gradients(t);
    lawn::clip_grad_norm_(problem.weights, max_grad_norm);
    lamb.step();
  }
  const auto expected = torch::tensor(lawn::testing::timm_golden().at(name), torch::kDouble);
  EXPECT_LE((problem.values() - expected).abs().max().item<double>(), tolerance) << name;
}

TEST(LAMB, GivesTheNumbersOfTimm) {
  expect_golden("lamb", LAMBOptions(0.02));
  expect_golden("lamb, large decay, other betas and eps",
                LAMBOptions(0.02).weight_decay(0.3).betas({0.7, 0.95}).eps(1e-3));
  expect_golden("lamb, no bias correction", LAMBOptions(0.02).bias_correction(false));
  expect_golden("lamb, trust_clip", LAMBOptions(0.02).weight_decay(0.1).max_trust_ratio(1));
  expect_golden("lamb, no decay", LAMBOptions(0.02).weight_decay(0));
  expect_golden("lamb, no decay, always_adapt",
                LAMBOptions(0.02).weight_decay(0).always_adapt(true));
}

TEST(LAMB, AfterClipGradNormGivesTheNumbersOfTimmsMaxGradNorm) {
  // timm divides by the norm without the 1e-6 of clip_grad_norm_.
  expect_golden("lamb, max_grad_norm", LAMBOptions(0.02), 1e-6, /*max_grad_norm=*/1);
}

TEST(LAMB, MovesEachWeightByTheLearningRateTimesItsNorm) {
  torch::manual_seed(0);
  auto small = leaf(1e-3 * torch::randn({20}));
  auto large = leaf(1e3 * torch::randn({20}));
  LAMB lamb({small, large}, LAMBOptions(0.1));
  for (auto* w : {&small, &large}) {
    const auto before = w->detach().clone();
    small.mutable_grad() = torch::randn({20});
    large.mutable_grad() = torch::randn({20});
    lamb.step();
    EXPECT_NEAR((w->detach() - before).norm().item<double>() / before.norm().item<double>(), 0.1,
                1e-6);
  }
}

TEST(LAMB, ZeroWeightsStepWithRatioOneAndZeroGradientsLeaveWeights) {
  auto zero = leaf(torch::zeros({4}));
  auto still = leaf(torch::ones({4}));
  LAMB lamb({zero, still}, LAMBOptions(0.1).weight_decay(0).always_adapt(true));
  zero.mutable_grad() = torch::ones({4});
  still.mutable_grad() = torch::zeros({4});
  lamb.step();
  EXPECT_TRUE(torch::allclose(zero, torch::full({4}, -0.1)));
  EXPECT_TRUE(torch::equal(still, torch::ones({4})));
}

TEST(LAMB, ParametersWithoutGradientStayAndCountTheirOwnSteps) {
  auto often = leaf(torch::ones({3}));
  auto seldom = leaf(torch::ones({3}));
  const LAMBOptions options(0.05);
  LAMB lamb({often, seldom}, options);
  lamb.step();  // no gradient at all
  EXPECT_TRUE(lamb.state().empty());
  Twin twin_often(often, options);
  Twin twin_seldom(seldom, options);
  torch::manual_seed(1);
  for (int t = 0; t < 9; ++t) {
    often.mutable_grad() = torch::randn({3});
    twin_often.step(often.grad());
    seldom.mutable_grad() = t % 3 == 2 ? torch::randn({3}) : torch::Tensor();
    if (seldom.grad().defined()) twin_seldom.step(seldom.grad());
    lamb.step();
  }
  EXPECT_TRUE(close(often.to(torch::kDouble), twin_often.w, torch::kFloat));
  EXPECT_TRUE(close(seldom.to(torch::kDouble), twin_seldom.w, torch::kFloat));
}

TEST(LAMB, StateInAnotherOrderOfMemoryIsSteppedToTheSameNumbersWithoutWaiting) {
  torch::manual_seed(4);
  for (const bool bias_correction : {true, false}) {
    const auto options = LAMBOptions(0.02).max_trust_ratio(1.5).bias_correction(bias_correction);
    auto fused = leaf(torch::randn({6, 8}, torch::kDouble));
    auto other = leaf(fused);
    LAMB fused_lamb({fused}, options);
    LAMB other_lamb({other}, options);
    for (int t = 0; t < 8; ++t) {
      fused.mutable_grad() = torch::randn({6, 8}, torch::kDouble);
      other.mutable_grad() = fused.grad().clone();
      fused_lamb.step();
      // LibTorch's fused function reads the step counts, on the CPU alone.
      const int reads = device_reads([&] { other_lamb.step(); });
      EXPECT_TRUE(t == 0 || reads == 0) << reads;
      auto& state =
          static_cast<LAMBParamState&>(*other_lamb.state().at(other.unsafeGetTensorImpl()));
      state.exp_avg(state.exp_avg().t().contiguous().t());
    }
    EXPECT_TRUE(torch::allclose(other, fused, 1e-12, 1e-14));
  }
}

TEST(LAMB, RefusesSparseGradientsBeforeItChangesAnything) {
  auto dense = leaf(torch::ones({4}));
  auto sparse = leaf(torch::ones({4}));
  LAMB lamb({dense, sparse});
  dense.mutable_grad() = torch::ones({4});
  sparse.mutable_grad() = torch::ones({4}).to_sparse();
  expect_refusal(
      [&] { lamb.step(); },
      "lawn::LAMB: expected dense gradients, got a Sparse one for parameter 1 of group 0");
  EXPECT_TRUE(torch::equal(dense, torch::ones({4})));
  EXPECT_TRUE(lamb.state().empty());
}

TEST(LAMB, RefusesOptionsOutOfRange) {
  const auto refuse = [](const LAMBOptions& options, const std::string& message) {
    auto w = leaf(torch::ones({2}));
    expect_refusal([&] { LAMB lamb({w}, options); }, message);
    std::vector<OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<torch::Tensor>{w}, own(options));
    expect_refusal([&] { LAMB lamb(groups); }, message);
    LAMB lamb({w});
    auto other = leaf(torch::ones({2}));
    expect_refusal([&] { lamb.add_param_group(OptimizerParamGroup({other}, own(options))); },
                   message);
    EXPECT_EQ(lamb.param_groups().size(), 1U);
  };
  refuse(LAMBOptions(-1), "lawn::LAMB: lr must be finite and >= 0, got -1");
  refuse(LAMBOptions().betas({0.9, 1}), "lawn::LAMB: betas must be in [0, 1), got 0.9 and 1");
  refuse(LAMBOptions().betas({-0.1, 0.5}), "betas must be in [0, 1), got -0.1 and 0.5");
  refuse(LAMBOptions().eps(0), "lawn::LAMB: eps must be finite and > 0, got 0");
  refuse(LAMBOptions().weight_decay(-2), "weight_decay must be finite and >= 0, got -2");
  refuse(LAMBOptions().max_trust_ratio(0), "max_trust_ratio must be > 0, got 0");
}

TEST(LAMB, RefusesTheOptionsOfAnotherOptimizerAndComplexParameters) {
  auto w = leaf(torch::ones({2}));
  LAMB lamb({w});
  auto other = leaf(torch::ones({2}));
  expect_refusal(
      [&] {
        lamb.add_param_group(
            OptimizerParamGroup({other}, std::make_unique<torch::optim::AdamOptions>(0.1)));
      },
      "lawn::LAMB: expected each parameter group to have the options of lawn::LAMB");
  auto complex = leaf(torch::ones({2}, torch::kComplexFloat));
  LAMB on_complex({complex});
  complex.mutable_grad() = torch::ones_like(complex);
  expect_refusal([&] { on_complex.step(); }, "expected parameters of floating point, got Complex");
}

TEST(LAMB, GroupsKeepTheOptionsTheyBring) {
  std::vector<torch::Tensor> w;
  for (int i = 0; i < 4; ++i) w.push_back(leaf(torch::ones({2})));
  std::vector<OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<torch::Tensor>{w[0]}, own(LAMBOptions(0.25).weight_decay(0)));
  groups.emplace_back(std::vector<torch::Tensor>{w[1]});
  LAMB lamb(groups, LAMBOptions(0.75));
  lamb.add_param_group(OptimizerParamGroup({w[2]}, own(LAMBOptions(0.5).always_adapt(true))));
  lamb.add_param_group(OptimizerParamGroup({w[3]}));
  const auto options = [&](std::size_t g) {
    return static_cast<const LAMBOptions&>(lamb.param_groups()[g].options());
  };
  EXPECT_TRUE(options(0) == LAMBOptions(0.25).weight_decay(0));
  EXPECT_TRUE(options(1) == LAMBOptions(0.75));
  EXPECT_TRUE(options(2) == LAMBOptions(0.5).always_adapt(true));
  EXPECT_TRUE(options(3) == LAMBOptions(0.75));
}

TEST(LAMB, SavedLoadedAndContinuedEqualsUninterruptedBitForBit) {
  const auto make = [](GoldenProblem& problem) {
    std::vector<OptimizerParamGroup> groups;
    groups.emplace_back(std::vector<torch::Tensor>{problem.weights[0], problem.weights[1]},
                        own(LAMBOptions(0.01).betas({0.8, 0.99}).eps(1e-5).bias_correction(false)));
    groups.emplace_back(
        std::vector<torch::Tensor>{problem.weights[2], problem.weights[3], problem.weights[4]},
        own(LAMBOptions(0.02).weight_decay(0).max_trust_ratio(2).always_adapt(true)));
    return LAMB(groups);
  };
  const auto train = [](LAMB& lamb, GoldenProblem& problem, int64_t from, int64_t to) {
    for (int64_t t = from; t < to; ++t) {
      problem.set_gradients(t);
      lamb.step();
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
  LAMB after(std::vector<OptimizerParamGroup>{
      OptimizerParamGroup({problem.weights[0], problem.weights[1]}),
      OptimizerParamGroup({problem.weights[2], problem.weights[3], problem.weights[4]})});
  torch::load(after, file);
  for (std::size_t g = 0; g < 2; ++g) {
    EXPECT_TRUE(static_cast<const LAMBOptions&>(after.param_groups()[g].options()) ==
                static_cast<const LAMBOptions&>(before.param_groups()[g].options()));
  }
  for (const auto& weight : problem.weights) {
    void* key = weight.unsafeGetTensorImpl();
    EXPECT_TRUE(static_cast<const LAMBParamState&>(*after.state().at(key)) ==
                static_cast<const LAMBParamState&>(*before.state().at(key)));
  }
  train(after, problem, 4, 10);
  EXPECT_TRUE(torch::equal(problem.values(), straight.values()));
}

TEST(LAMB, StepReturnsTheLossOfItsClosureAndMakesGradientsInIt) {
  auto w = leaf(torch::ones({3}));
  LAMB lamb({w}, 0.1);
  EXPECT_FALSE(lamb.step().defined());
  const torch::NoGradGuard no_grad;
  const auto loss = lamb.step([&] {
    auto value = (w * w).sum();
    value.backward();
    return value;
  });
  EXPECT_EQ(loss.item<float>(), 3);
  EXPECT_LT(w.sum().item<float>(), 3);
}

TEST(LAMB, OptionsAndStatesCompareByValue) {
  EXPECT_TRUE(LAMBOptions(0.1) == LAMBOptions(0.1));
  for (const auto& other :
       {LAMBOptions(0.2), LAMBOptions(0.1).betas({0.9, 0.99}), LAMBOptions(0.1).eps(1),
        LAMBOptions(0.1).weight_decay(1), LAMBOptions(0.1).bias_correction(false),
        LAMBOptions(0.1).max_trust_ratio(1), LAMBOptions(0.1).always_adapt(true)}) {
    EXPECT_FALSE(LAMBOptions(0.1) == other);
  }
  const auto ones = torch::ones({2});
  EXPECT_TRUE(LAMBParamState() == LAMBParamState());
  EXPECT_TRUE(LAMBParamState().exp_avg(ones) == LAMBParamState().exp_avg(ones.clone()));
  EXPECT_FALSE(LAMBParamState().exp_avg(ones) == LAMBParamState());
  EXPECT_FALSE(LAMBParamState().step(1) == LAMBParamState());
  EXPECT_FALSE(LAMBParamState().exp_avg_sq(ones) == LAMBParamState().exp_avg_sq(2 * ones));
}

}  // namespace
