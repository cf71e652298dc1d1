// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/support/refusal.h"
#include "tests/support/rows.h"

/// What `reset_state` refuses, and what it leaves; that the step after it is a first one is a row of
/// tests/conformance_test.cpp.
namespace {

using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::Phase;
using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::Problem;
using torch::optim::Adam;
using torch::optim::AdamOptions;

template <class Optimizer>
void train(Optimizer& optimizer, Problem& problem, int64_t from, int64_t to) {
  for (int64_t t = from; t < to; ++t) optimizer.step([&] { return problem.backward(t); });
}

const torch::optim::AdamParamState* state_of(const torch::optim::Optimizer& optimizer,
                                             const torch::Tensor& parameter) {
  const auto found = optimizer.state().find(parameter.unsafeGetTensorImpl());
  if (found == optimizer.state().end()) return nullptr;
  return &static_cast<const torch::optim::AdamParamState&>(*found->second);
}

TEST(ResetState, ForgetsThatOfTheChosenParametersAlone) {
  Problem problem;
  const auto parameters = problem.model->parameters();
  Adam adam(parameters, AdamOptions(0.01));
  train(adam, problem, 0, 3);
  const auto moment = state_of(adam, parameters[1])->exp_avg().clone();
  lawn::reset_state(adam, {parameters[0], parameters[2]});
  EXPECT_EQ(state_of(adam, parameters[0]), nullptr);
  EXPECT_EQ(state_of(adam, parameters[2]), nullptr);
  EXPECT_EQ(state_of(adam, parameters[1])->step(), 3);
  EXPECT_TRUE(torch::equal(state_of(adam, parameters[1])->exp_avg(), moment));
  train(adam, problem, 3, 4);
  EXPECT_EQ(state_of(adam, parameters[0])->step(), 1);
  EXPECT_EQ(state_of(adam, parameters[1])->step(), 4);
}

TEST(ResetState, LeavesWeightsGradientsGroupsAndOptions) {
  Problem problem;
  Adam adam(problem.model->parameters(), AdamOptions(0.01));
  train(adam, problem, 0, 3);
  const auto values = problem.values();
  const auto gradient = problem.model->parameters()[0].grad().clone();
  const auto* options = &adam.param_groups().front().options();
  lawn::reset_state(adam);
  EXPECT_TRUE(adam.state().empty());
  expect_equal(problem.values(), values, "weights");
  EXPECT_TRUE(torch::equal(problem.model->parameters()[0].grad(), gradient));
  EXPECT_EQ(&adam.param_groups().front().options(), options);
}

TEST(ResetState, LeavesLAWNsPhaseStepsAndRadii) {
  Problem problem;
  LAWN optimizer(lawn::FusedAdam(problem.model->parameters(), 0.01), problem.weights(),
                 LAWNOptions().free_steps(2));
  train(optimizer, problem, 0, 1);
  lawn::reset_state(optimizer);
  EXPECT_EQ(optimizer.phase(), Phase::kFree);
  EXPECT_EQ(optimizer.steps(), 1);
  train(optimizer, problem, 1, 5);
  const auto before = optimizer.report();
  lawn::reset_state(optimizer);
  EXPECT_TRUE(optimizer.state().empty());
  const auto after = optimizer.report();
  EXPECT_EQ(after.phase, Phase::kConstrained);
  EXPECT_EQ(after.steps, 5);
  for (std::size_t i = 0; i < before.layers.size(); ++i) {
    EXPECT_EQ(after.layers[i].radius, before.layers[i].radius);
  }
  train(optimizer, problem, 5, 7);
  EXPECT_EQ(optimizer.report().layers[0].radius, before.layers[0].radius);
  EXPECT_EQ(state_of(optimizer, problem.model->parameters()[0])->step(), 2);
}

TEST(ResetState, TakesParametersThatWereNeverStepped) {
  Problem problem;
  Adam adam(problem.model->parameters(), AdamOptions(0.01));
  lawn::reset_state(adam);
  lawn::reset_state(adam, {});
  train(adam, problem, 0, 1);
  lawn::reset_state(adam, {});
  EXPECT_EQ(adam.state().size(), 4U);
}

TEST(ResetState, TakesAllOfLBFGSAndNoneOfItsParametersAlone) {
  Problem problem;
  auto lbfgs = lawn::testing::LBFGS::make(problem.groups());
  const auto parameters = problem.model->parameters();
  expect_refusal(
      [&] { lawn::reset_state(lbfgs, {parameters[0]}); },
      "expected all 4 parameters of L-BFGS, which keeps one state for all of them, got 1");
  train(lbfgs, problem, 0, 2);
  const auto& state = static_cast<const torch::optim::LBFGSParamState&>(
      *lbfgs.state().at(parameters[0].unsafeGetTensorImpl()));
  const auto iterations = state.n_iter();
  expect_refusal([&] { lawn::reset_state(lbfgs, {parameters[0], parameters[3]}); }, "got 2");
  EXPECT_EQ(state.n_iter(), iterations) << "nothing was changed";
  lawn::reset_state(lbfgs, {});
  EXPECT_EQ(state.n_iter(), iterations);
  lawn::reset_state(lbfgs, {parameters[3], parameters[1], parameters[0], parameters[2]});
  EXPECT_EQ(state.n_iter(), 0);
}

TEST(ResetStateRefuses, AParameterThatTheOptimizerDoesNotHold) {
  Problem problem;
  const auto parameters = problem.model->parameters();
  Adam adam(parameters, AdamOptions(0.01));
  train(adam, problem, 0, 1);
  expect_refusal(
      [&] {
        lawn::reset_state(adam, {parameters[0], torch::ones({2, 3}), parameters[1]});
      },
      "lawn::reset_state: expected parameters that the optimizer holds, got a tensor of shape "
      "[2, 3] in place 1 of the list that it does not hold");
  expect_refusal(
      [&] {
        lawn::reset_state(adam, {parameters[0], torch::Tensor()});
      },
      "got an undefined tensor in place 1 of the list");
  EXPECT_EQ(adam.state().size(), 4U) << "nothing was changed";
}

}  // namespace
