// SPDX-License-Identifier: Apache-2.0
//
// Compiled with -Ofast -fno-finite-math-only: what lawn/finite_math.h asks for suffices.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>

#include <lawn/companions.h>
#include <lawn/lawn.h>
#include <lawn/subnetwork/select_by_name.h>

#include "tests/support/refusal.h"

namespace {

using lawn::testing::expect_refusal;

const std::vector<double> kNonfinite = {std::numeric_limits<double>::quiet_NaN(),
                                        std::numeric_limits<double>::infinity(),
                                        -std::numeric_limits<double>::infinity()};

torch::nn::Linear linear() { return torch::nn::Linear(torch::nn::LinearOptions(4, 3).bias(false)); }

TEST(FastMath, LeavesTheSwitchItsRefusalOfANormThatIsNotFinite) {
  for (const double value : kNonfinite) {
    auto model = linear();
    at::NoGradGuard no_grad;
    model->weight[1][2].fill_(value);
    model->weight.mutable_grad() = at::ones_like(model->weight);
    lawn::LAWN<torch::optim::SGD> optimizer(
        torch::optim::SGD(model->parameters(), torch::optim::SGDOptions(0.1)),
        lawn::select_all_weights(*model));
    expect_refusal([&] { optimizer.step(); }, "weight");
  }
}

TEST(FastMath, LeavesClippingItsErrorOfANormThatIsNotFinite) {
  for (const double value : kNonfinite) {
    auto model = linear();
    model->weight.mutable_grad() = at::full_like(model->weight, value);
    expect_refusal(
        [&] { lawn::clip_grad_norm_(model->parameters(), 1.0, 2.0, /*error_if_nonfinite=*/true); },
        "finite");
  }
}

TEST(FastMath, LeavesSchedulesAndOptionsTheirRefusals) {
  for (const double value : kNonfinite) {
    torch::optim::SGD optimizer({at::ones(3)}, torch::optim::SGDOptions(0.1));
    optimizer.param_groups()[0].options().set_lr(value);
    expect_refusal([&] { lawn::WarmupDecay(optimizer, lawn::WarmupDecayOptions().total_steps(5)); },
                   "expected a finite base rate");
    optimizer.param_groups()[0].options().set_lr(0.1);
    expect_refusal(
        [&] {
          lawn::WarmupDecay(optimizer,
                            lawn::WarmupDecayOptions().total_steps(5).final_factor(value));
        },
        "final_factor must be in [0, 1]");
  }
}

}  // namespace
