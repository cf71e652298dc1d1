// SPDX-License-Identifier: Apache-2.0

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "examples/apps/support/ablation.h"
#include "examples/apps/support/optimizers.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::tolerance;

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

TEST_F(Steppers, EndTheirDecayAtTheFinalFactor) {
  for (const bool with_lawn : {false, true}) {
    auto chosen = options();
    chosen.lawn = with_lawn;
    chosen.final_factor = 0.2;
    const auto stepper = make(chosen);
    rates(*stepper);
    EXPECT_NEAR(stepper->learning_rate(), 0.2 * chosen.learning_rate,
                tolerance(torch::kDouble).step);
  }
}

TEST_F(Steppers, LeaveBiasesAndScalesOutOfTheDecayWhereTheyAreTold) {
  const auto matrix = torch::ones({2, 2}, torch::requires_grad());
  const auto bias = torch::ones({2}, torch::requires_grad());
  for (const std::string& name : examples::kOptimizers) {
    auto chosen = options();
    chosen.optimizer = name;
    chosen.weight_decay = 0.5;
    chosen.decay_vectors = false;
    const auto stepper = examples::make_stepper({bias, matrix}, lawn::select({matrix}), chosen);
    ASSERT_EQ(stepper->optimizer().param_groups().size(), 2U) << name;
    EXPECT_TRUE(stepper->optimizer().param_groups()[0].params()[0].is_same(matrix)) << name;
    const torch::NoGradGuard no_grad;
    matrix.fill_(1);
    bias.fill_(1);
    matrix.mutable_grad() = torch::zeros({2, 2});
    bias.mutable_grad() = torch::zeros({2});
    stepper->optimizer().step();
    EXPECT_LT(matrix.max().item<double>(), 1) << name;
    EXPECT_TRUE(torch::equal(bias, torch::ones({2}))) << name;
  }
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

/// The weights after ten steps down a bowl that is not centred at 0, LAWN's switch among them.
std::vector<at::Tensor> trained_by(torch::optim::Optimizer& optimizer,
                                   const std::vector<at::Tensor>& weights) {
  for (int64_t step = 0; step < 10; ++step) {
    optimizer.zero_grad();
    at::Tensor loss = torch::zeros({});
    for (const auto& weight : weights) loss = loss + (weight - 3).square().sum();
    loss.backward();
    optimizer.step();
  }
  return weights;
}

std::vector<at::Tensor> two_weights() {
  torch::manual_seed(4);
  return {torch::randn({5, 3}).requires_grad_(), torch::randn({7}).requires_grad_()};
}

constexpr int64_t kFreeSteps = 4;

template <class Opt, class Options>
void expect_equal_without_ablation(const Options& options) {
  const auto expected = two_weights();
  lawn::LAWN whole(Opt(expected, options), lawn::select(expected),
                   lawn::LAWNOptions().free_steps(kFreeSteps));
  trained_by(whole, expected);
  const auto actual = two_weights();
  examples::AblatedLAWN<Opt> ablated(Opt(actual, options), lawn::select(actual), kFreeSteps, {});
  trained_by(ablated, actual);
  for (size_t index = 0; index < expected.size(); ++index) {
    EXPECT_TRUE(torch::equal(actual[index], expected[index])) << index;
  }
}

TEST(AblatedLAWN, IsLAWNBitForBitWhereNothingIsMissing) {
  expect_equal_without_ablation<torch::optim::Adam>(torch::optim::AdamOptions(0.05));
  expect_equal_without_ablation<torch::optim::SGD>(torch::optim::SGDOptions(0.05).momentum(0.9));
}

TEST(AblatedLAWN, LeavesOutTheRescalingOrTheProjection) {
  const auto weights = two_weights();
  examples::AblatedLAWN<torch::optim::SGD> unscaled(
      torch::optim::SGD(weights, torch::optim::SGDOptions(0.05)), lawn::select(weights), 0,
      {/*projection=*/true, /*rescaling=*/false});
  const double before = weights[0].norm().item<double>();
  weights[0].mutable_grad() = torch::ones_like(weights[0]);
  const at::Tensor gradient = weights[0].grad();
  unscaled.step();
  EXPECT_GT(weights[0].norm().item<double>(), before + 1e-3);  // a tangent step leads outwards
  EXPECT_LT(gradient.sum().item<double>(), 15);                // it was projected

  const auto others = two_weights();
  examples::AblatedLAWN<torch::optim::SGD> unprojected(
      torch::optim::SGD(others, torch::optim::SGDOptions(0.05)), lawn::select(others), 0,
      {/*projection=*/false, /*rescaling=*/true});
  others[0].mutable_grad() = torch::ones_like(others[0]);
  const at::Tensor stepped = others[0].detach() - 0.05;
  unprojected.step();
  EXPECT_TRUE(torch::equal(others[0].grad(), torch::ones_like(others[0])));
  EXPECT_TRUE(torch::allclose(others[0], stepped * (before / stepped.norm())));
}

TEST_F(Steppers, AblateLAWNAndSwitchWhenItDoes) {
  auto chosen = options();
  chosen.lawn = true;
  for (const std::string part : {"projection", "rescaling"}) {
    chosen.ablate = part;
    const auto stepper = make(chosen);
    for (int64_t step = 0; step <= chosen.free_steps; ++step) {
      EXPECT_FALSE(stepper->constrained()) << step;
      weight_.mutable_grad() = torch::tensor({1.0F, -2.0F, 0.5F});
      stepper->optimizer().step();
    }
    EXPECT_TRUE(stepper->constrained());
  }
  chosen.free_steps = 0;
  chosen.optimizer = "sgd";  // Adam's first steps see signs alone
  const auto trained_without = [&](const std::string& part) {
    chosen.ablate = part;
    return trained(chosen);
  };
  const auto whole = trained_without("none");
  const auto unprojected = trained_without("projection");
  const auto unscaled = trained_without("rescaling");
  EXPECT_FALSE(torch::equal(whole, unprojected));
  EXPECT_FALSE(torch::equal(whole, unscaled));
  EXPECT_FALSE(torch::equal(unprojected, unscaled));
}

TEST_F(Steppers, RefuseToAblateAnUnknownPartOrBesideWeightDecay) {
  auto chosen = options();
  chosen.lawn = true;
  chosen.ablate = "warmup";
  lawn::testing::expect_refusal(
      [&] { make(chosen); }, "unknown part of LAWN 'warmup'; expected one of none projection resc");
  chosen.ablate = "rescaling";
  chosen.weight_decay = 0.1;
  lawn::testing::expect_refusal([&] { make(chosen); },
                                "LAWN without its rescaling: expected no weight decay, got 0.1");
}

TEST_F(Steppers, SaveAndLoadAnAblatedLAWNOnBothSidesOfItsSwitch) {
  auto chosen = options();
  chosen.lawn = true;
  chosen.ablate = "projection";
  chosen.free_steps = 2;
  const auto steps = [](examples::Stepper& stepper, const at::Tensor& weight, int64_t count) {
    for (int64_t step = 0; step < count; ++step) {
      weight.mutable_grad() = weight.detach() - 2;
      stepper.optimizer().step();
      stepper.advance_schedule();
    }
  };
  for (const int64_t stop : {1, 4}) {
    const auto whole = torch::ones({3}, torch::requires_grad());
    const auto uninterrupted = examples::make_stepper({whole}, lawn::select({whole}), chosen);
    steps(*uninterrupted, whole, 6);

    const auto first = torch::ones({3}, torch::requires_grad());
    const auto interrupted = examples::make_stepper({first}, lawn::select({first}), chosen);
    steps(*interrupted, first, stop);
    TemporaryFolder folder;
    lawn::Checkpoint saved;
    interrupted->add_to(saved);
    saved.save(folder.path() / "run.pt");
    const auto second = first.detach().clone().requires_grad_();
    const auto resumed = examples::make_stepper({second}, lawn::select({second}), chosen);
    lawn::Checkpoint loaded;
    resumed->add_to(loaded);
    loaded.load(folder.path() / "run.pt");
    EXPECT_EQ(resumed->constrained(), stop > 2);
    steps(*resumed, second, 6 - stop);
    EXPECT_TRUE(torch::equal(second, whole)) << stop;
  }
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
