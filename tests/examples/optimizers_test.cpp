// SPDX-License-Identifier: Apache-2.0

#include <memory>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "examples/support/optimizers.h"
#include "tests/support/refusal.h"

namespace {

using examples::StepperOptions;

class Steppers : public testing::Test {
 protected:
  std::unique_ptr<examples::Stepper> make(const StepperOptions& options) const {
    return examples::make_stepper({weight_}, lawn::select({weight_}), options);
  }

  static std::vector<double> rates(examples::Stepper& stepper) {
    std::vector<double> all;
    for (int64_t step = 0; step < kSteps; ++step) {
      all.push_back(stepper.learning_rate());
      stepper.optimizer().step();
      stepper.advance_schedule();
    }
    return all;
  }

  static StepperOptions options() {
    StepperOptions chosen;
    chosen.total_steps = kSteps;
    chosen.free_steps = 8;
    chosen.warmup_steps = 3;
    return chosen;
  }

  static constexpr int64_t kSteps = 20;
  at::Tensor weight_ = torch::ones({3}, torch::requires_grad());
};

TEST_F(Steppers, GiveThePlainOptimizerLAWNsScheduleAsAControl) {
  auto plain = options();
  auto control = options();
  auto with_lawn = options();
  control.two_part_schedule = true;
  with_lawn.lawn = true;
  const auto lawn_rates = rates(*make(with_lawn));
  EXPECT_EQ(rates(*make(control)), lawn_rates);
  EXPECT_NE(rates(*make(plain)), lawn_rates);
  EXPECT_FALSE(make(control)->constrained());
}

TEST_F(Steppers, RefuseAnUnknownOptimizer) {
  auto unknown = options();
  unknown.optimizer = "adm";
  lawn::testing::expect_refusal([&] { make(unknown); },
                                "unknown optimizer 'adm'; expected sgd, adam or adamw");
}

}  // namespace
