// SPDX-License-Identifier: Apache-2.0

#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/support/decorator_rows.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

/// What every decorator must do around every kind of optimizer: one row each in
/// tests/support/decorator_rows.h.
namespace {

using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::Groups;

/// Two weights of one shape and a free one, whose gradients the test gives.
struct Weights {
  Weights() {
    torch::manual_seed(3);
    for (int i = 0; i < 3; ++i) all.push_back(torch::randn({4, 4}).requires_grad_(true));
  }

  Groups groups() const { return {torch::optim::OptimizerParamGroup(all)}; }
  lawn::Subnetwork held() const { return lawn::select({all[0], all[1]}); }

  std::vector<torch::Tensor> values() const {
    std::vector<torch::Tensor> copies;
    for (const auto& weight : all) copies.push_back(weight.detach().clone());
    return copies;
  }

  std::vector<torch::Tensor> gradients() const {
    std::vector<torch::Tensor> copies;
    for (const auto& weight : all) copies.push_back(weight.grad().clone());
    return copies;
  }

  std::vector<torch::Tensor> all;
};

/// The gradient of a step, one for all weights, from numbers that no optimizer sees as special.
torch::Tensor gradient_of(int64_t step) {
  return torch::arange(16, torch::kFloat).view({4, 4}).add(static_cast<double>(step)).sin();
}

template <class Row>
class DecoratorConformance : public ::testing::Test {
 protected:
  using Decorated = typename Row::Decorated;

  /// Five steps whose gradients `give(weights, gradient)` hands out.
  template <class Give>
  static void train(torch::optim::Optimizer& optimizer, Weights& weights, const Give& give) {
    for (int64_t t = 0; t < 5; ++t) {
      optimizer.step([&] {
        give(weights, gradient_of(t));
        return torch::tensor(1.0f);
      });
    }
  }

  /// Each weight gets a gradient of its own.
  static void give_copies(Weights& weights, const torch::Tensor& gradient) {
    for (auto& weight : weights.all) weight.mutable_grad() = gradient.clone();
  }

  /// That `give` trains as gradients of the same values do that each weight has for itself: with
  /// the same bits, or where sums are taken in another order, to `tolerance`.
  template <class Give>
  static void expect_as_with_copies(const Give& give, double tolerance = 0) {
    Weights one;
    Weights other;
    auto optimizer = Row::make(one.groups(), one.held());
    auto twin = Row::make(other.groups(), other.held());
    train(optimizer, one, give);
    train(twin, other, [&](Weights& weights, const torch::Tensor& gradient) {
      give(weights, gradient);
      for (auto& weight : weights.all) weight.mutable_grad() = weight.grad().clone().contiguous();
    });
    for (size_t i = 0; i < one.all.size(); ++i) {
      const auto difference = (one.values()[i] - other.values()[i]).abs().max();
      EXPECT_LE(difference.template item<double>(), tolerance) << "weight " << i;
    }
  }
};

TYPED_TEST_SUITE_P(DecoratorConformance);

TYPED_TEST_P(DecoratorConformance, TrainsASharedGradientAsIfEachWeightHadItsOwn) {
  this->expect_as_with_copies([](Weights& weights, const torch::Tensor& gradient) {
    const auto shared = gradient.clone();
    for (auto& weight : weights.all) weight.mutable_grad() = shared;
  });
}

TYPED_TEST_P(DecoratorConformance, TrainsTwoViewsOfOneGradientAsIfEachWeightHadItsOwn) {
  this->expect_as_with_copies([](Weights& weights, const torch::Tensor& gradient) {
    const auto memory = torch::cat({gradient.flatten(), gradient.flatten()});
    weights.all[0].mutable_grad() = memory.slice(0, 0, 16).view({4, 4});
    weights.all[1].mutable_grad() = memory.slice(0, 4, 20).view({4, 4});
    weights.all[2].mutable_grad() = memory.slice(0, 16, 32).view({4, 4});
  });
}

TYPED_TEST_P(DecoratorConformance, LeavesTheGradientOfAFreeWeightThatSharesItAsItWas) {
  Weights weights;
  auto optimizer = TypeParam::make(weights.groups(), weights.held());
  const auto before = gradient_of(0);
  optimizer.step([&] {
    const auto shared = before.clone();
    for (auto& weight : weights.all) weight.mutable_grad() = shared;
    return torch::tensor(1.0f);
  });
  EXPECT_TRUE(torch::equal(weights.all[2].grad(), before));
}

TYPED_TEST_P(DecoratorConformance, TrainsAnExpandedGradientAsOneOfItsOwnMemory) {
  const auto give = [](Weights& weights, const torch::Tensor& expanded) {
    weights.all[0].mutable_grad() = expanded;
    weights.all[1].mutable_grad() = expanded;
    weights.all[2].mutable_grad() = torch::ones({4, 4});
  };
  const double tolerance = lawn::testing::tolerance(torch::kFloat).step;
  // L-BFGS itself takes none.
  if (std::is_same_v<typename TypeParam::Opt, torch::optim::LBFGS>) return;
  this->expect_as_with_copies(
      [&](Weights& weights, const torch::Tensor& gradient) {
        give(weights, gradient[0][0].expand({4, 4}));
      },
      tolerance);
  this->expect_as_with_copies(
      [&](Weights& weights, const torch::Tensor& gradient) {
        give(weights, gradient[0].expand({4, 4}));
      },
      tolerance);
}

TYPED_TEST_P(DecoratorConformance, TrainsAGradientInAnotherOrderOfMemory) {
  // L-BFGS itself takes none.
  if (std::is_same_v<typename TypeParam::Opt, torch::optim::LBFGS>) return;
  this->expect_as_with_copies(
      [](Weights& weights, const torch::Tensor& gradient) {
        for (auto& weight : weights.all) weight.mutable_grad() = gradient.t().contiguous().t();
      },
      lawn::testing::tolerance(torch::kFloat).step);
}

TYPED_TEST_P(DecoratorConformance, RefusesAWeightThatIsHeldTwice) {
  Weights weights;
  weights.all[2] = weights.all[1];
  expect_refusal([&] { TypeParam::make(weights.groups(), weights.held()); },
                 "lawn::unique_parameters(*model)");
}

TYPED_TEST_P(DecoratorConformance, RefusesAWeightThatComesASecondTimeLaterOn) {
  Weights weights;
  auto optimizer = TypeParam::make(weights.groups(), weights.held());
  this->give_copies(weights, gradient_of(0));
  const auto before = weights.values();
  const auto gradients = weights.gradients();
  const auto step = [&] { optimizer.step([&] { return torch::tensor(1.0f); }); };

  optimizer.param_groups().front().params().push_back(weights.all[1]);
  expect_refusal(step, "lawn::unique_parameters(*model)");
  expect_equal(weights.values(), before, "refused");
  expect_equal(weights.gradients(), gradients, "refused");
  optimizer.param_groups().front().params().pop_back();

  const auto groups = optimizer.param_groups().size();
  expect_refusal(
      [&] { optimizer.add_param_group(torch::optim::OptimizerParamGroup({weights.all[0]})); },
      "lawn::unique_parameters(*model)");
  EXPECT_EQ(optimizer.param_groups().size(), groups);
  step();
}

TYPED_TEST_P(DecoratorConformance, RefusesAWeightThatWasTakenOutOfTheGroups) {
  Weights weights;
  auto optimizer = TypeParam::make(weights.groups(), weights.held());
  this->give_copies(weights, gradient_of(0));
  const auto before = weights.values();
  const auto gradients = weights.gradients();
  auto& held = optimizer.param_groups().front().params();
  held.erase(held.begin() + 1);
  expect_refusal([&] { optimizer.step([&] { return torch::tensor(1.0f); }); },
                 "parameter 1 which it does not hold; it was taken out of the groups");
  expect_equal(weights.values(), before, "refused");
  expect_equal(weights.gradients(), gradients, "refused");
}

TYPED_TEST_P(DecoratorConformance, RefusesAWeightWhoseShapeHasChanged) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{{8, 4}, {16, 4}, {2, 8}, {2, 2}}) {
    Weights weights;
    auto optimizer = TypeParam::make(weights.groups(), weights.held());
    this->train(optimizer, weights, this->give_copies);
    weights.all[1].set_data(torch::ones(shape));
    weights.all[1].mutable_grad() = torch::ones(shape);
    const auto before = weights.values();
    const auto gradients = weights.gradients();
    expect_refusal([&] { optimizer.step([&] { return torch::tensor(1.0f); }); },
                   "expected parameter 1 to have the shape [4, 4]");
    expect_equal(weights.values(), before, "refused");
    expect_equal(weights.gradients(), gradients, "refused");
  }
}

TYPED_TEST_P(DecoratorConformance, FollowsWeightsThatAreConvertedBetweenSteps) {
  // L-BFGS itself keeps its history in the type of its first step.
  if (std::is_same_v<typename TypeParam::Opt, torch::optim::LBFGS>) return;
  Weights weights;
  auto optimizer = TypeParam::make(weights.groups(), weights.held());
  this->train(optimizer, weights, this->give_copies);
  for (auto& weight : weights.all) weight.set_data(weight.detach().to(torch::kDouble));
  const auto before = weights.values();
  this->train(optimizer, weights, [](Weights& all, const torch::Tensor& gradient) {
    for (auto& weight : all.all) weight.mutable_grad() = gradient.to(torch::kDouble);
  });
  for (size_t i = 0; i < weights.all.size(); ++i) {
    EXPECT_EQ(weights.all[i].scalar_type(), torch::kDouble);
    EXPECT_TRUE(weights.all[i].isfinite().all().template item<bool>()) << i;
    EXPECT_FALSE(torch::equal(weights.values()[i], before[i])) << i;
  }
}

TYPED_TEST_P(DecoratorConformance, KeepsItsOwnStateWhenThatOfItsOptimizerIsReset) {
  Weights one;
  Weights other;
  auto optimizer = TypeParam::make(one.groups(), one.held());
  auto twin = TypeParam::make(other.groups(), other.held());
  this->train(optimizer, one, this->give_copies);
  this->train(twin, other, this->give_copies);
  lawn::reset_state(optimizer);
  twin.state().clear();  // all that these optimizers keep, made anew in the next step
  this->train(optimizer, one, this->give_copies);
  this->train(twin, other, this->give_copies);
  expect_equal(one.values(), other.values(), "after the reset");

  lawn::testing::expect_refusal(
      [&] {
        lawn::reset_state(optimizer, {torch::ones({4, 4})});
      },
      "in place 0 of the list that it does not hold");
}

REGISTER_TYPED_TEST_SUITE_P(DecoratorConformance, TrainsASharedGradientAsIfEachWeightHadItsOwn,
                            TrainsTwoViewsOfOneGradientAsIfEachWeightHadItsOwn,
                            LeavesTheGradientOfAFreeWeightThatSharesItAsItWas,
                            TrainsAnExpandedGradientAsOneOfItsOwnMemory,
                            TrainsAGradientInAnotherOrderOfMemory, RefusesAWeightThatIsHeldTwice,
                            RefusesAWeightThatComesASecondTimeLaterOn,
                            RefusesAWeightThatWasTakenOutOfTheGroups,
                            RefusesAWeightWhoseShapeHasChanged,
                            FollowsWeightsThatAreConvertedBetweenSteps,
                            KeepsItsOwnStateWhenThatOfItsOptimizerIsReset);

/// Instances of a typed test have numbers for names.
struct Numbers {
  template <class Row>
  static std::string GetName(int number) {
    return std::to_string(number);
  }
};

using lawn::testing::BaseRows;
INSTANTIATE_TYPED_TEST_SUITE_P(LAWN, DecoratorConformance, BaseRows::Around<lawn::testing::LAWNRow>,
                               Numbers);
INSTANTIATE_TYPED_TEST_SUITE_P(Masked, DecoratorConformance,
                               BaseRows::Around<lawn::testing::MaskedRow>, Numbers);
INSTANTIATE_TYPED_TEST_SUITE_P(Centered, DecoratorConformance,
                               BaseRows::Around<lawn::testing::CenteredRow>, Numbers);
INSTANTIATE_TYPED_TEST_SUITE_P(Admm, DecoratorConformance, BaseRows::Around<lawn::testing::AdmmRow>,
                               Numbers);

}  // namespace
