// SPDX-License-Identifier: Apache-2.0
//
// LAWN folded into the step of a fused optimizer, against LAWN around the same optimizer.

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <sstream>
#include <string>
#include <vector>

#include <lawn/lawn.h>

#include "tests/folded/folding.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::testing::Apart;
using lawn::testing::difference;
using lawn::testing::expect_folded_equals_apart;
using lawn::testing::make_weights;
using lawn::testing::selection;
using lawn::testing::set_gradients;

static_assert(lawn::detail::folded::kFoldsInto<lawn::FusedSGD> &&
                  lawn::detail::folded::kFoldsInto<lawn::FusedAdam> &&
                  lawn::detail::folded::kFoldsInto<lawn::FusedAdamW>,
              "LAWN folds into these");
static_assert(!lawn::detail::folded::kFoldsInto<Apart<lawn::FusedAdam>> &&
                  !lawn::detail::folded::kFoldsInto<LAWN<lawn::FusedAdam>> &&
                  !lawn::detail::folded::kFoldsInto<torch::optim::Adam>,
              "and into no other");

TEST(Folding, EqualsLAWNAroundSGD) {
  using torch::optim::SGDOptions;
  expect_folded_equals_apart<lawn::FusedSGD>(SGDOptions(0.1));
  expect_folded_equals_apart<lawn::FusedSGD>(SGDOptions(0.1).weight_decay(0.01));
  expect_folded_equals_apart<lawn::FusedSGD>(SGDOptions(0.1).momentum(0.9).weight_decay(0.01));
  expect_folded_equals_apart<lawn::FusedSGD>(SGDOptions(0.1).momentum(0.9).dampening(0.25));
  expect_folded_equals_apart<lawn::FusedSGD>(
      SGDOptions(0.1).momentum(0.9).nesterov(true).weight_decay(0.01));
}

TEST(Folding, EqualsLAWNAroundAdamAndAdamW) {
  using torch::optim::AdamOptions;
  using torch::optim::AdamWOptions;
  expect_folded_equals_apart<lawn::FusedAdam>(AdamOptions(0.01));
  expect_folded_equals_apart<lawn::FusedAdam>(
      AdamOptions(0.01).betas({0.8, 0.95}).eps(1e-3).weight_decay(0.1));
  expect_folded_equals_apart<lawn::FusedAdamW>(AdamWOptions(0.01).weight_decay(0.1));
}

TEST(Folding, EqualsLAWNInEveryDtype) {
  for (const auto dtype : {torch::kDouble, torch::kBFloat16, torch::kHalf}) {
    SCOPED_TRACE(c10::toString(dtype));
    expect_folded_equals_apart<lawn::FusedAdam>(torch::optim::AdamOptions(0.01), dtype);
    if (dtype == torch::kDouble) {
      expect_folded_equals_apart<lawn::FusedSGD>(torch::optim::SGDOptions(0.1).momentum(0.9),
                                                 dtype);
    }
  }
}

TEST(Folding, EqualsLAWNWhereOptionsChangeBetweenSteps) {
  lawn::testing::expect_folded_equals_apart_where_options_change(torch::kCPU);
}

TEST(Folding, EqualsLAWNPerOutputUnitWithFreeUnits) {
  const auto options = LAWNOptions()
                           .granularity(lawn::Granularity::kOutputUnit)
                           .zero_norm(lawn::ZeroNorm::kLeaveFree)
                           .radius(lawn::Radius::kCaptured);
  expect_folded_equals_apart<lawn::FusedAdam>(torch::optim::AdamOptions(0.01).weight_decay(0.1),
                                              torch::kFloat, options);
  expect_folded_equals_apart<lawn::FusedSGD>(
      torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.1), torch::kFloat, options);
}

TEST(Folding, EqualsLAWNWithScaledRadii) {
  for (const double scale : {0.5, 3.0}) {
    for (const auto radius : {lawn::Radius::kCaptured, lawn::Radius::kInitial}) {
      SCOPED_TRACE(scale);
      const auto options = LAWNOptions().radius_scale(scale).radius(radius);
      expect_folded_equals_apart<lawn::FusedSGD>(
          torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.01), torch::kFloat, options);
      expect_folded_equals_apart<lawn::FusedAdam>(torch::optim::AdamOptions(0.01).weight_decay(0.1),
                                                  torch::kFloat, options);
      expect_folded_equals_apart<lawn::FusedAdamW>(
          torch::optim::AdamWOptions(0.01).weight_decay(0.1), torch::kFloat, options);
    }
  }
  expect_folded_equals_apart<lawn::FusedAdam>(
      torch::optim::AdamOptions(0.01), torch::kHalf,
      LAWNOptions().radius_scale(0.5).granularity(lawn::Granularity::kOutputUnit));
}

TEST(Folding, LeavesAmsgradToLAWNAround) {
  const auto weights = make_weights(torch::kFloat);
  const auto apart_weights = make_weights(torch::kFloat);
  const auto options = torch::optim::AdamOptions(0.01).amsgrad(true);
  LAWN<lawn::FusedAdam> folded(lawn::FusedAdam(weights, options), selection(weights),
                               LAWNOptions().free_steps(0));
  LAWN<Apart<lawn::FusedAdam>> apart(Apart<lawn::FusedAdam>(apart_weights, options),
                                     selection(apart_weights), LAWNOptions().free_steps(0));
  for (int64_t step = 0; step < 3; ++step) {
    set_gradients(weights, step);
    set_gradients(apart_weights, step);
    folded.step();
    apart.step();
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_TRUE(torch::equal(weights[i], apart_weights[i])) << i;
    }
  }
}

TEST(Folding, StepsAFreeSphereAsTheOptimizerDoes) {
  for (const double decay : {0.0, 0.1}) {
    std::vector<torch::Tensor> weights{torch::zeros({4, 6}).requires_grad_()};
    std::vector<torch::Tensor> plain_weights{torch::zeros({4, 6}).requires_grad_()};
    const auto options = torch::optim::AdamOptions(0.01).weight_decay(decay);
    LAWN<lawn::FusedAdam> folded(lawn::FusedAdam(weights, options), lawn::select(weights),
                                 LAWNOptions().free_steps(0).zero_norm(lawn::ZeroNorm::kLeaveFree));
    lawn::FusedAdam plain(plain_weights, options);
    for (int64_t step = 0; step < 5; ++step) {
      set_gradients(weights, step);
      set_gradients(plain_weights, step);
      folded.step();
      plain.step();
    }
    EXPECT_GT(weights[0].norm().item<double>(), 0);
    EXPECT_LE(difference(weights[0], plain_weights[0]),
              lawn::testing::tolerance(torch::kFloat).norm);
  }
}

TEST(Folding, StepsParametersWhoseFirstGradientComesLate) {
  const auto weights = make_weights(torch::kFloat);
  const auto apart_weights = make_weights(torch::kFloat);
  const auto options = torch::optim::AdamOptions(0.01);
  LAWN<lawn::FusedAdam> folded(lawn::FusedAdam(weights, options), selection(weights),
                               LAWNOptions().free_steps(0));
  LAWN<Apart<lawn::FusedAdam>> apart(Apart<lawn::FusedAdam>(apart_weights, options),
                                     selection(apart_weights), LAWNOptions().free_steps(0));
  for (int64_t step = 0; step < 6; ++step) {
    for (const auto* all : {&weights, &apart_weights}) {
      set_gradients(*all, step);
      if (step < 3) (*all)[1].mutable_grad() = torch::Tensor();
    }
    folded.step();
    apart.step();
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_LE(difference(weights[i], apart_weights[i]), 1e-4) << step << ", " << i;
    }
  }
}

TEST(Folding, StepsWithAClosureAndAfterLoading) {
  const auto weights = make_weights(torch::kFloat);
  const auto make = [&] {
    return LAWN<lawn::FusedAdam>(lawn::FusedAdam(weights, torch::optim::AdamOptions(0.01)),
                                 selection(weights), LAWNOptions().free_steps(2));
  };
  auto one = make();
  int64_t evaluations = 0;
  const auto loss = [&] {
    set_gradients(weights, evaluations++);
    return torch::ones({});
  };
  for (int step = 0; step < 4; ++step) EXPECT_EQ(one.step(loss).item<double>(), 1);
  EXPECT_EQ(evaluations, 4);
  std::stringstream file;
  torch::save(one, file);
  std::vector<torch::Tensor> saved;
  for (const auto& weight : weights) saved.push_back(weight.detach().clone());
  one.step(loss);
  std::vector<torch::Tensor> expected;
  for (const auto& weight : weights) expected.push_back(weight.detach().clone());

  auto two = make();
  torch::load(two, file);
  {
    const torch::NoGradGuard no_grad;
    for (size_t i = 0; i < weights.size(); ++i) weights[i].copy_(saved[i]);
  }
  --evaluations;
  two.step(loss);
  for (size_t i = 0; i < weights.size(); ++i) EXPECT_TRUE(torch::equal(weights[i], expected[i]));
}

TEST(Folding, GivesTheSameBitsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  std::vector<std::vector<torch::Tensor>> results;
  for (const int threads : {1, 2, 16}) {
    at::set_num_threads(threads);
    const auto weights = make_weights(torch::kFloat);
    LAWN<lawn::FusedAdam> optimizer(lawn::FusedAdam(weights, torch::optim::AdamOptions(0.01)),
                                    lawn::select(weights), LAWNOptions().free_steps(0));
    for (int64_t step = 0; step < 4; ++step) {
      set_gradients(weights, step);
      optimizer.step();
    }
    results.push_back(weights);
  }
  at::set_num_threads(before);
  for (size_t run = 1; run < results.size(); ++run) {
    for (size_t i = 0; i < results[0].size(); ++i) {
      EXPECT_TRUE(torch::equal(results[run][i], results[0][i])) << run << ", " << i;
    }
  }
}

TEST(Folding, TellsAutogradThatWeightsHaveChanged) {
  const auto weights = make_weights(torch::kFloat);
  LAWN<lawn::FusedSGD> optimizer(lawn::FusedSGD(weights, torch::optim::SGDOptions(0.1)),
                                 selection(weights), LAWNOptions().free_steps(0));
  set_gradients(weights, 0);
  const auto version = weights[0]._version();
  optimizer.step();
  EXPECT_GT(weights[0]._version(), version);
}

}  // namespace
