// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/folded/dispatch.h>
#include <lawn/lawn.h>
#include <lawn/optim/lamb.h>

#include "tests/folded/folding.h"

namespace {

using lawn::LAWNOptions;
using lawn::testing::expect_folded_equals_apart;

class FoldingOnAGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU that LibTorch can use";
    if (!lawn::detail::folded::has_steps(torch::kCUDA))
      GTEST_SKIP() << "built without the CUDA kernels";
  }
};

TEST_F(FoldingOnAGpu, EqualsLAWNAroundSGD) {
  using torch::optim::SGDOptions;
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    SCOPED_TRACE(c10::toString(dtype));
    for (const auto& options : {SGDOptions(0.1), SGDOptions(0.1).momentum(0.9).weight_decay(0.01),
                                SGDOptions(0.1).momentum(0.9).dampening(0.25),
                                SGDOptions(0.1).momentum(0.9).nesterov(true)}) {
      expect_folded_equals_apart<lawn::FusedSGD>(options, dtype, {}, torch::kCUDA);
    }
  }
}

TEST_F(FoldingOnAGpu, EqualsLAWNAroundAdamAndAdamW) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    SCOPED_TRACE(c10::toString(dtype));
    expect_folded_equals_apart<lawn::FusedAdam>(torch::optim::AdamOptions(0.01).weight_decay(0.1),
                                                dtype, {}, torch::kCUDA);
    expect_folded_equals_apart<lawn::FusedAdamW>(torch::optim::AdamWOptions(0.01).weight_decay(0.1),
                                                 dtype, {}, torch::kCUDA);
  }
}

TEST_F(FoldingOnAGpu, EqualsLAWNWhereOptionsChangeBetweenSteps) {
  lawn::testing::expect_folded_equals_apart_where_options_change(torch::kCUDA);
}

TEST_F(FoldingOnAGpu, SwitchesByHandAfterTheModelHasMovedThere) {
  torch::nn::Linear model(5, 4);
  lawn::LAWN optimizer(torch::optim::SGD(model->parameters(), 0.1),
                       lawn::select_all_weights(*model),
                       LAWNOptions()
                           .free_steps(LAWNOptions::kNever)
                           .radius(lawn::Radius::kInitial)
                           .granularity(lawn::Granularity::kOutputUnit));
  model->to(torch::kCUDA);
  optimizer.constrain();
  EXPECT_EQ(optimizer.phase(), lawn::Phase::kConstrained);
  EXPECT_LE(optimizer.report().layers.front().norm_error.value(), 1e-6);
}

TEST_F(FoldingOnAGpu, ProjectsTheMomentsOfLAMBAtASwitchAfterTheModelHasMovedThere) {
  torch::nn::Linear model(5, 4);
  lawn::LAWN optimizer(lawn::LAMB(model->parameters(), lawn::LAMBOptions(0.01)),
                       lawn::select_all_weights(*model),
                       LAWNOptions().free_steps(2).state_at_switch(lawn::StateAtSwitch::kProject));
  for (int64_t step = 0; step < 4; ++step) {
    if (step == 2) model->to(torch::kCUDA);
    model->zero_grad();
    model->forward(torch::ones({3, 5}, model->weight.device())).square().mean().backward();
    optimizer.step();
  }
  EXPECT_EQ(optimizer.phase(), lawn::Phase::kConstrained);
}

TEST_F(FoldingOnAGpu, EqualsLAWNPerOutputUnit) {
  expect_folded_equals_apart<lawn::FusedAdam>(
      torch::optim::AdamOptions(0.01), torch::kFloat,
      LAWNOptions().granularity(lawn::Granularity::kOutputUnit), torch::kCUDA);
}

}  // namespace
