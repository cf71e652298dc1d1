// SPDX-License-Identifier: Apache-2.0

#include <optional>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/decorator/base_optimizer.h>
#include <lawn/optim/lamb_options.h>
#include <lawn/optim/lars_options.h>

#include "tests/support/own_optimizer.h"

namespace {

namespace optim = torch::optim;
using lawn::detail::decorator::coupled_weight_decay;
using lawn::detail::decorator::first_moments;

TEST(BaseOptimizer, KnowsWhichWeightDecayIsCoupled) {
  EXPECT_EQ(coupled_weight_decay(optim::SGDOptions(1).weight_decay(0.1)), 0.1);
  EXPECT_EQ(coupled_weight_decay(optim::AdamOptions().weight_decay(0.2)), 0.2);
  EXPECT_EQ(coupled_weight_decay(optim::RMSpropOptions().weight_decay(0.3)), 0.3);
  EXPECT_EQ(coupled_weight_decay(optim::AdagradOptions().weight_decay(0.4)), 0.4);
  EXPECT_EQ(coupled_weight_decay(optim::AdamWOptions().weight_decay(0.5)), 0.0);
  EXPECT_EQ(coupled_weight_decay(optim::LBFGSOptions()), 0.0);
  EXPECT_EQ(coupled_weight_decay(lawn::LAMBOptions().weight_decay(0.5)), 0.0);
  EXPECT_EQ(coupled_weight_decay(lawn::LARSOptions(1).weight_decay(0.7)), 0.7);
  EXPECT_EQ(coupled_weight_decay(lawn::testing::SignMomentumOptions().decay(0.6)), std::nullopt);
}

TEST(BaseOptimizer, RecognisesOptionsDerivedFromLibTorchs) {
  struct FusedOptions : optim::AdamOptions {};
  FusedOptions options;
  options.weight_decay(0.25);
  EXPECT_EQ(coupled_weight_decay(options), 0.25);
}

TEST(BaseOptimizer, FindsTheFirstMomentsOfEachState) {
  const auto moment = torch::ones({2});
  const auto only = [&](auto&& state) {
    const auto found = first_moments(state);
    return found && found->size() == 1 && found->front().is_same(moment);
  };
  EXPECT_TRUE(only(optim::SGDParamState().momentum_buffer(moment)));
  EXPECT_TRUE(only(optim::AdamParamState().exp_avg(moment)));
  EXPECT_TRUE(only(optim::AdamWParamState().exp_avg(moment)));
  EXPECT_TRUE(only(optim::RMSpropParamState().momentum_buffer(moment)));
  EXPECT_TRUE(only(lawn::LAMBParamState().exp_avg(moment)));
  EXPECT_TRUE(only(lawn::LARSParamState().momentum_buffer(moment)));
  optim::RMSpropParamState without_momentum;
  EXPECT_TRUE(first_moments(without_momentum)->empty());
  optim::AdagradParamState adagrad;
  EXPECT_TRUE(first_moments(adagrad)->empty());
  optim::LBFGSParamState lbfgs;
  EXPECT_TRUE(first_moments(lbfgs)->empty());
  lawn::testing::SignMomentumState own;
  EXPECT_FALSE(first_moments(own).has_value());
}

TEST(BaseOptimizer, ResetsTheStateOfTheChosenParametersAlone) {
  auto chosen = torch::ones({2}, torch::requires_grad());
  auto other = torch::ones({2}, torch::requires_grad());
  chosen.mutable_grad() = torch::ones({2});
  other.mutable_grad() = torch::ones({2});
  optim::Adam adam({chosen, other}, optim::AdamOptions(0.1));
  adam.step();
  lawn::detail::decorator::reset_state(adam, {chosen});
  EXPECT_EQ(adam.state().count(chosen.unsafeGetTensorImpl()), 0U);
  EXPECT_EQ(adam.state().count(other.unsafeGetTensorImpl()), 1U);

  optim::Adagrad adagrad({chosen, other},
                         optim::AdagradOptions(0.1).initial_accumulator_value(0.5));
  adagrad.step();
  lawn::detail::decorator::reset_state(adagrad, {chosen});
  const auto sum = [&](const torch::Tensor& parameter) {
    return static_cast<const optim::AdagradParamState&>(
               *adagrad.state().at(parameter.unsafeGetTensorImpl()))
        .sum();
  };
  EXPECT_TRUE(torch::equal(sum(chosen), torch::full({2}, 0.5)));
  EXPECT_TRUE(torch::equal(sum(other), torch::full({2}, 1.5)));
  adagrad.step();  // and it goes on
}

TEST(BaseOptimizer, KeepsForgottenStateAliveForAStepThatRefersToIt) {
  auto w = torch::ones({2}, torch::requires_grad());
  w.mutable_grad() = torch::ones({2});
  optim::Adam adam({w}, optim::AdamOptions(0.1));
  adam.step();
  const auto& state =
      static_cast<const optim::AdamParamState&>(*adam.state().at(w.unsafeGetTensorImpl()));
  const auto forgotten = lawn::detail::decorator::reset_state(adam, {w});
  EXPECT_TRUE(adam.state().empty());
  ASSERT_EQ(forgotten.size(), 1U);
  EXPECT_EQ(state.step(), 1);
}

/// A problem for L-BFGS.
struct Valley {
  explicit Valley(const torch::Tensor& start) : w(start.clone().set_requires_grad(true)) {}

  /// @param iterations  of each step
  optim::LBFGS make(int64_t iterations) const {
    return optim::LBFGS({w}, optim::LBFGSOptions(0.3).max_iter(iterations).max_eval(100));
  }

  torch::Tensor backward() const {
    w.mutable_grad() = torch::Tensor();
    auto loss = (w * w * torch::tensor({1.0, 3.0, 9.0})).sum() + w.pow(4).sum();
    loss.backward();
    return loss;
  }

  torch::Tensor w;
};

TEST(BaseOptimizer, LBFGSSearchesAnewFromTheEvaluationInWhichItsStateIsReset) {
  constexpr int64_t kIterations = 4;
  for (const int64_t when : {0, 1, 2, 3}) {  // evaluations of a step: one at first, then one a turn
    Valley valley(torch::tensor({3.0, -2.0, 0.5}));
    auto lbfgs = valley.make(kIterations);
    lbfgs.step([&] { return valley.backward(); });
    torch::Tensor start;
    int64_t evaluation = 0;
    lbfgs.step([&] {
      if (evaluation++ == when) {
        start = valley.w.detach().clone();
        lawn::detail::decorator::reset_state(lbfgs, {valley.w});
      }
      return valley.backward();
    });
    ASSERT_EQ(evaluation, kIterations);
    lbfgs.step([&] { return valley.backward(); });

    Valley anew(start);  // with what is left of that step, and a whole one
    auto fresh = anew.make(kIterations - when);
    fresh.step([&] { return anew.backward(); });
    static_cast<optim::LBFGSOptions&>(fresh.param_groups().front().options()).max_iter(kIterations);
    fresh.step([&] { return anew.backward(); });
    EXPECT_TRUE(torch::equal(valley.w, anew.w)) << when;
  }
}

}  // namespace
