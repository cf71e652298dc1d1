// SPDX-License-Identifier: Apache-2.0

#include <memory>
#include <string>
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
  lawn::testing::expect_refusal(
      [&] { make(unknown); }, "unknown optimizer 'adm'; expected one of sgd adam adamw fused-sgd");
}

/// The weight after three steps on one gradient.
at::Tensor trained(const StepperOptions& options) {
  const auto weight = torch::ones({3}, torch::requires_grad());
  const auto stepper = examples::make_stepper({weight}, lawn::select({weight}), options);
  for (int64_t step = 0; step < 3; ++step) {
    weight.mutable_grad() = torch::tensor({1.0F, -2.0F, 0.5F});
    stepper->optimizer().step();
    stepper->advance_schedule();
  }
  return weight.detach();
}

TEST_F(Steppers, OfferAFusedTwinOfEachOptimizer) {
  for (const std::string name : {"sgd", "adam", "adamw"}) {
    for (const bool with_lawn : {false, true}) {
      auto plain = options();
      plain.optimizer = name;
      plain.weight_decay = 0.1;
      plain.lawn = with_lawn;
      auto fused = plain;
      fused.optimizer = "fused-" + name;
      EXPECT_TRUE(torch::allclose(trained(fused), trained(plain), 1e-5)) << name;
      const auto stepper = make(fused);
      const auto& optimizer = stepper->optimizer();
      EXPECT_TRUE(dynamic_cast<const lawn::FusedSGD*>(&optimizer) != nullptr ||
                  dynamic_cast<const lawn::FusedAdam*>(&optimizer) != nullptr ||
                  dynamic_cast<const lawn::FusedAdamW*>(&optimizer) != nullptr)
          << name;
    }
  }
}

}  // namespace
