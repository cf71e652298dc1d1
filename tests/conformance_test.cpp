// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <functional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/support/refusal.h"
#include "tests/support/rows.h"
#include "tests/support/tolerance.h"
#include "tests/support/warnings.h"

/// What every optimizer must do under LAWN: one row each in tests/support/rows.h.
namespace {

using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::Phase;
using lawn::testing::close;
using lawn::testing::expect_equal;
using lawn::testing::Problem;
using lawn::testing::tolerance;

template <class Row>
class Conformance : public ::testing::Test {
 protected:
  using Base = typename Row::Opt;
  using Wrapped = LAWN<Base>;

  static Wrapped wrap(Problem& problem, LAWNOptions options) {
    return Wrapped(Row::make(problem.groups()), problem.weights(), std::move(options));
  }

  static LAWNOptions free_steps(int64_t steps) { return Row::lawn().free_steps(steps); }

  /// Steps [from, to), with a closure, which every optimizer takes.
  static void train(torch::optim::Optimizer& optimizer, Problem& problem, int64_t from,
                    int64_t to) {
    for (int64_t t = from; t < to; ++t) optimizer.step([&] { return problem.backward(t); });
  }
};

TYPED_TEST_SUITE(Conformance, lawn::testing::Rows);

TYPED_TEST(Conformance, FreePhaseEqualsTheBaseOptimizerBitForBit) {
  Problem plain;
  Problem wrapped;
  auto base = TypeParam::make(plain.groups());
  auto lawn = this->wrap(wrapped, this->free_steps(100));
  for (int64_t t = 0; t < 20; ++t) {
    this->train(base, plain, t, t + 1);
    this->train(lawn, wrapped, t, t + 1);
    expect_equal(wrapped.values(), plain.values(), "step " + std::to_string(t));
  }
  EXPECT_EQ(lawn.phase(), Phase::kFree);
  EXPECT_EQ(lawn.steps(), 20);
}

/// Design.md, 1, written plainly around the base optimizer: weight decay is off for the constrained
/// tensors in the constrained phase because their group says so.
/// @param scale  of the radii
template <class Row>
void expect_twin(torch::ScalarType dtype, double scale = 1) {
  Problem problem(dtype);
  Problem twin(dtype);
  twin.model->to(torch::kDouble);
  twin.x = twin.x.to(torch::kDouble);
  LAWN<typename Row::Opt> lawn(Row::make(problem.groups()), problem.weights(),
                               Row::lawn().radius_scale(scale));

  lawn::testing::Groups groups;
  const std::vector<torch::Tensor> weights = twin.weights().parameters();
  auto undecayed = Row::undecayed();
  if (undecayed) {
    std::vector<torch::Tensor> biases;
    for (const auto& p : twin.model->parameters()) {
      if (p.dim() == 1) biases.push_back(p);
    }
    groups.emplace_back(weights);
    groups.emplace_back(biases);
  } else {
    groups = twin.groups();
  }
  auto base = Row::make(groups);
  // Not through the constructor: LibTorch 2.15 takes a 0 there for "not given" and puts its
  // default.
  if (undecayed) base.param_groups()[0].set_options(std::move(undecayed));
  std::vector<double> radius;
  for (const auto& w : weights) radius.push_back(scale * w.norm().template item<double>());

  for (int64_t t = 0; t < Row::kTwinSteps; ++t) {
    lawn.step([&] { return problem.backward(t); });
    base.step([&] {
      auto loss = twin.backward(t);
      for (const auto& w : weights) {
        auto g = w.grad();
        const double c =
            (g * w).sum().template item<double>() / (w * w).sum().template item<double>();
        g.copy_(g - c * w.detach());
      }
      return loss;
    });
    const torch::NoGradGuard no_grad;
    for (size_t i = 0; i < weights.size(); ++i) {
      weights[i].mul_(radius[i] / weights[i].norm().template item<double>());
    }
    const auto actual = problem.values();
    const auto expected = twin.values();
    for (size_t i = 0; i < actual.size(); ++i) {
      const double error =
          (actual[i].to(torch::kDouble) - expected[i]).abs().max().template item<double>();
      const double largest = expected[i].abs().max().template item<double>();
      ASSERT_LE(error, lawn::testing::tolerance(dtype).trajectory * largest)
          << c10::toString(dtype) << ", step " << t << ", parameter " << i;
    }
  }
}

TYPED_TEST(Conformance, ConstrainedPhaseEqualsAPlainFloat64Twin) {
  expect_twin<TypeParam>(torch::kDouble);
  expect_twin<TypeParam>(torch::kFloat);
}

TYPED_TEST(Conformance, ScaledRadiiEqualAPlainFloat64Twin) {
  expect_twin<TypeParam>(torch::kDouble, 0.5);
  expect_twin<TypeParam>(torch::kFloat, 0.5);
}

TYPED_TEST(Conformance, KeepsEachNormAtItsRadiusAcrossTheSwitch) {
  Problem problem;
  auto lawn = this->wrap(problem, this->free_steps(5));
  this->train(lawn, problem, 0, 5);
  std::vector<double> captured;
  for (const auto& w : problem.weights().parameters()) {
    captured.push_back(w.to(torch::kDouble).norm().template item<double>());
  }
  EXPECT_EQ(lawn.phase(), Phase::kFree);
  this->train(lawn, problem, 5, 40);
  EXPECT_EQ(lawn.phase(), Phase::kConstrained);
  const auto weights = problem.weights().parameters();
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_NEAR(weights[i].to(torch::kDouble).norm().template item<double>() / captured[i], 1,
                lawn::testing::tolerance(torch::kFloat).norm);
  }
}

TYPED_TEST(Conformance, SavedLoadedAndContinuedEqualsUninterruptedBitForBit) {
  constexpr int64_t kSwitch = 6;
  constexpr int64_t kEnd = 12;
  for (const int64_t stop : {int64_t{3}, kSwitch, int64_t{9}}) {
    Problem straight;
    auto whole = this->wrap(straight, this->free_steps(kSwitch));
    this->train(whole, straight, 0, kEnd);

    Problem first;
    auto before = this->wrap(first, this->free_steps(kSwitch));
    this->train(before, first, 0, stop);
    std::stringstream model_file;
    std::stringstream optimizer_file;
    torch::save(first.model, model_file);
    torch::save(before, optimizer_file);

    Problem second(torch::kFloat, /*seed=*/5);  // other weights, to be overwritten
    second.x = first.x;
    second.y = first.y;
    auto after = this->wrap(second, this->free_steps(kSwitch));
    this->train(after, second, 0, 2);  // a used optimizer loads like a new one
    torch::load(second.model, model_file);
    torch::load(after, optimizer_file);
    EXPECT_EQ(after.steps(), stop);
    EXPECT_EQ(after.phase(), before.phase());
    this->train(after, second, stop, kEnd);
    expect_equal(second.values(), straight.values(), "stopped after " + std::to_string(stop));
  }
}

TYPED_TEST(Conformance, ClosureAndPlainStepAreTheSame) {
  if constexpr (std::is_same_v<typename TypeParam::Opt, torch::optim::LBFGS>) {
    Problem problem;
    auto lawn = this->wrap(problem, this->free_steps(3));
    problem.backward(0);
    lawn::testing::expect_refusal([&] { lawn.step(); }, "expected a closure, which L-BFGS");
    EXPECT_EQ(lawn.steps(), 0);
  } else {
    Problem with;
    Problem without;
    auto a = this->wrap(with, this->free_steps(3));
    auto b = this->wrap(without, this->free_steps(3));
    for (int64_t t = 0; t < 8; ++t) {
      const auto loss = a.step([&] { return with.backward(t); });
      const auto expected = without.backward(t);
      b.step();
      EXPECT_TRUE(torch::equal(loss, expected));
    }
    expect_equal(with.values(), without.values(), "after 8 steps");
  }
}

TYPED_TEST(Conformance, SchedulersReachTheBaseOptimizer) {
  Problem problem;
  auto lawn = this->wrap(problem, this->free_steps(2));
  torch::optim::StepLR schedule(lawn, /*step_size=*/1, /*gamma=*/0.5);
  const double before = lawn.param_groups().front().options().get_lr();
  this->train(lawn, problem, 0, 3);
  schedule.step();
  schedule.step();
  EXPECT_DOUBLE_EQ(lawn.param_groups().front().options().get_lr(), before * 0.5);
  for (auto& group : lawn.param_groups()) group.options().set_lr(0);
  const auto weights = problem.values();
  this->train(lawn, problem, 3, 4);
  for (size_t i = 0; i < weights.size(); ++i) {  // but for the rounding of the rescaling
    EXPECT_TRUE(torch::allclose(problem.values()[i], weights[i], 1e-6, 1e-7));
  }
}

template <class Row>
class ConformanceOfGroups : public Conformance<Row> {};

TYPED_TEST_SUITE(ConformanceOfGroups, lawn::testing::RowsOfGroups);

TYPED_TEST(ConformanceOfGroups, GroupAddedLaterIsSteppedFreely) {
  Problem problem;
  auto lawn = this->wrap(problem, this->free_steps(1));
  auto extra = torch::ones({4}, torch::requires_grad());
  lawn.add_param_group(torch::optim::OptimizerParamGroup({extra}));
  torch::optim::StepLR schedule(lawn, 1, 0.5);
  for (int64_t t = 0; t < 4; ++t) {
    lawn.step([&] {
      auto loss = problem.backward(t);
      extra.mutable_grad() = 2 * extra.detach();
      return loss;
    });
    schedule.step();
  }
  EXPECT_LT(extra.detach().norm().template item<double>(), 2.0);
  EXPECT_LE(lawn.report().layers.front().norm_error.value(), 1e-6);
  std::stringstream file;
  torch::save(lawn, file);
  torch::load(lawn, file);
  EXPECT_EQ(lawn.param_groups().size(), 2U);
}

TYPED_TEST(Conformance, StepsAfterAResetAreTheFirstOfANewOptimizerBitForBit) {
  Problem problem;
  auto base = TypeParam::make(problem.groups());
  this->train(base, problem, 0, 5);
  lawn::reset_state(base);
  Problem other;
  {
    const torch::NoGradGuard no_grad;
    const auto values = problem.values();
    for (size_t i = 0; i < values.size(); ++i) other.model->parameters()[i].copy_(values[i]);
  }
  auto fresh = TypeParam::make(other.groups());
  for (int64_t t = 5; t < 8; ++t) {
    this->train(base, problem, t, t + 1);
    this->train(fresh, other, t, t + 1);
    expect_equal(problem.values(), other.values(), "step " + std::to_string(t));
  }
}

TYPED_TEST(Conformance, UsersOptionsAreNeverChanged) {
  const auto state = [](const torch::optim::Optimizer& optimizer) {
    torch::serialize::OutputArchive archive;
    optimizer.param_groups().front().options().serialize(archive);
    std::ostringstream text;
    archive.save_to(text);
    return text.str();
  };
  Problem problem;
  auto lawn = this->wrap(problem, this->free_steps(1));
  const auto* address = &lawn.param_groups().front().options();
  const auto before = state(lawn);
  std::string within;
  for (int64_t t = 0; t < 4; ++t) {
    lawn.step([&] {
      within = state(lawn);
      return problem.backward(t);
    });
    EXPECT_EQ(within, before);
  }
  EXPECT_EQ(state(lawn), before);
  EXPECT_EQ(&lawn.param_groups().front().options(), address);
}

TYPED_TEST(Conformance, CheckpointsGoFromAndToTheBaseOptimizer) {
  Problem problem;
  auto lawn = this->wrap(problem, this->free_steps(2));
  this->train(lawn, problem, 0, 4);
  std::stringstream decorated;
  torch::save(lawn, decorated);

  Problem plain;
  auto base = TypeParam::make(plain.groups());
  torch::load(base, decorated);
  std::stringstream undecorated;
  torch::save(base, undecorated);

  auto again = this->wrap(plain, this->free_steps(2));
  this->train(again, plain, 0, 1);
  const lawn::testing::CapturedWarnings warnings;
  torch::load(again, undecorated);
  EXPECT_NE(warnings.text().find("written by an optimizer without this decorator"),
            std::string::npos);
  EXPECT_EQ(again.steps(), 1) << "a plain checkpoint says nothing of LAWN's own state";
  EXPECT_EQ(again.state().size(), lawn.state().size());
}

/// Counts its calls; changes nothing.
struct CountingRule {
  static constexpr const char* kWho = "test::Counting";
  int64_t before = 0;
  int64_t after = 0;
  void before_step(torch::optim::Optimizer& /*optimizer*/) { ++before; }
  void after_step(torch::optim::Optimizer& /*optimizer*/) { ++after; }
  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("after", c10::IValue(after));
  }
  void load(torch::serialize::InputArchive& archive, const torch::optim::Optimizer& /*optimizer*/) {
    c10::IValue value;
    archive.read("after", value);
    after = value.toInt();
  }
};

template <class Opt>
struct Counting : lawn::Decorator<Opt, CountingRule> {
  explicit Counting(Opt&& optimizer)
      : lawn::Decorator<Opt, CountingRule>(std::move(optimizer), CountingRule()) {}
  const CountingRule& rule() const { return this->rule_; }
};

TYPED_TEST(Conformance, NestsWithAnotherDecoratorEitherWayRound) {
  using Opt = typename TypeParam::Opt;
  Problem alone;
  Problem inner;
  Problem outer;
  auto lawn = this->wrap(alone, this->free_steps(2));
  LAWN<Counting<Opt>> around(Counting<Opt>(TypeParam::make(inner.groups())), inner.weights(),
                             this->free_steps(2));
  Counting<LAWN<Opt>> within(this->wrap(outer, this->free_steps(2)));
  this->train(lawn, alone, 0, 5);
  this->train(around, inner, 0, 5);
  this->train(within, outer, 0, 5);
  if constexpr (lawn::detail::folded::kFoldsInto<
                    Opt>) {  // folded alone, but not around another decorator
    for (size_t i = 0; i < alone.values().size(); ++i) {
      EXPECT_TRUE(close(inner.values()[i], alone.values()[i])) << i;
    }
  } else {
    expect_equal(inner.values(), alone.values(), "LAWN around");
  }
  expect_equal(outer.values(), alone.values(), "LAWN within");
  EXPECT_EQ(around.rule().after, 5);
  EXPECT_GE(around.rule().before, 5);
  EXPECT_EQ(within.rule().after, 5);

  std::stringstream file;
  torch::save(around, file);
  Problem fresh;
  LAWN<Counting<Opt>> loaded(Counting<Opt>(TypeParam::make(fresh.groups())), fresh.weights(),
                             this->free_steps(2));
  torch::load(loaded, file);
  EXPECT_EQ(loaded.rule().after, 5);
  EXPECT_EQ(loaded.steps(), 5);

  file.seekg(0);
  Counting<LAWN<Opt>> other_order(this->wrap(fresh, this->free_steps(2)));
  lawn::testing::expect_refusal([&] { torch::load(other_order, file); },
                                "nest them as they were saved");
  EXPECT_EQ(other_order.rule().after, 0);
}

TYPED_TEST(Conformance, StateAtTheSwitchIsKeptResetOrProjected) {
  using lawn::StateAtSwitch;
  for (const auto choice : {StateAtSwitch::kReset, StateAtSwitch::kProject}) {
    Problem problem;
    auto options = this->free_steps(LAWNOptions::kNever);
    auto lawn = this->wrap(problem, options.state_at_switch(choice));
    this->train(lawn, problem, 0, 4);
    lawn.constrain();
    for (const auto& w : problem.weights().parameters()) {
      const auto found = lawn.state().find(w.unsafeGetTensorImpl());
      if (choice == StateAtSwitch::kReset) {
        if constexpr (std::is_base_of_v<torch::optim::Adagrad, typename TypeParam::Opt>) {
          const auto& state = static_cast<torch::optim::AdagradParamState&>(*found->second);
          EXPECT_EQ(state.step(), 0);
          EXPECT_EQ(state.sum().abs().max().template item<double>(), 0);
        } else {
          if (found == lawn.state().end()) continue;
          const auto* lbfgs = dynamic_cast<torch::optim::LBFGSParamState*>(found->second.get());
          ASSERT_NE(lbfgs, nullptr);
          EXPECT_EQ(lbfgs->n_iter(), 0);
        }
      } else if (found != lawn.state().end()) {
        auto moments = TypeParam::lawn().first_moments()
                           ? TypeParam::lawn().first_moments()(*found->second)
                           : lawn::detail::decorator::first_moments(*found->second).value();
        for (const auto& m : moments) {
          const double along = (m * w.detach()).sum().template item<double>();
          EXPECT_NEAR(along, 0,
                      tolerance(torch::kFloat).step *
                          (m.norm() * w.detach().norm()).template item<double>());
        }
      }
    }
    this->train(lawn, problem, 4, 6);
    EXPECT_LE(lawn.report().layers.front().norm_error.value(), 1e-6);
  }
}

TYPED_TEST(Conformance, ResetWithinTheStepEqualsTheSwitchByHandBitForBit) {
  for (const int64_t free_steps : {0, 2}) {
    Problem within;
    Problem by_hand;
    auto switching = this->wrap(
        within, this->free_steps(free_steps).state_at_switch(lawn::StateAtSwitch::kReset));
    auto waiting = this->wrap(
        by_hand,
        this->free_steps(LAWNOptions::kNever).state_at_switch(lawn::StateAtSwitch::kReset));
    this->train(switching, within, 0, 5);
    this->train(waiting, by_hand, 0, free_steps);
    waiting.constrain();
    this->train(waiting, by_hand, free_steps, 5);
    expect_equal(within.values(), by_hand.values(), std::to_string(free_steps) + " free steps");
  }
}

TYPED_TEST(Conformance, ConstrainInAClosureEqualsTheSwitchBeforeTheStep) {
  Problem within;
  Problem before;
  const auto options = [] {
    return TestFixture::free_steps(LAWNOptions::kNever)
        .state_at_switch(lawn::StateAtSwitch::kReset);
  };
  auto one = this->wrap(within, options());
  auto other = this->wrap(before, options());
  this->train(one, within, 0, 2);
  this->train(other, before, 0, 2);
  other.constrain();
  for (int64_t t = 2; t < 5; ++t) {
    one.step([&] {
      one.constrain();
      return within.backward(t);
    });
  }
  this->train(other, before, 2, 5);
  expect_equal(within.values(), before.values(), "after 5 steps");
}

TYPED_TEST(Conformance, FirstStepAfterOneThatThrewIsAsIfThatHadNotBeen) {
  Problem problem;
  Problem twin;
  const auto options = [] { return TestFixture::free_steps(1).angular_steps(true); };
  auto lawn = this->wrap(problem, options());
  auto other = this->wrap(twin, options());
  this->train(lawn, problem, 0, 3);
  this->train(other, twin, 0, 3);
  const auto weight = problem.weights().parameters().front();
  EXPECT_ANY_THROW(lawn.step([&]() -> torch::Tensor {
    problem.backward(3);
    weight.mutable_grad() = weight.detach().to_sparse();
    return torch::tensor(1.0f);
  }));
  this->train(lawn, problem, 3, 5);
  this->train(other, twin, 3, 5);
  expect_equal(problem.values(), twin.values(), "after 5 steps");
  EXPECT_EQ(lawn.report().layers.front().angular_step, other.report().layers.front().angular_step);
}

/// Two weights of the given values under LAWN around a row's optimizer.
template <class Row>
void expect_as_with_own_gradients(const std::function<void(std::vector<torch::Tensor>&)>& give) {
  const auto weights = [] {
    torch::manual_seed(2);
    std::vector<torch::Tensor> all{torch::randn({4, 4}), torch::randn({4, 4})};
    for (auto& w : all) w.requires_grad_(true);
    return all;
  };
  auto one = weights();
  auto other = weights();
  const auto wrap = [](const std::vector<torch::Tensor>& all) {
    return LAWN<typename Row::Opt>(Row::make({torch::optim::OptimizerParamGroup(all)}),
                                   lawn::select(all), Row::lawn().free_steps(2));
  };
  auto optimizer = wrap(one);
  auto twin = wrap(other);
  for (int64_t t = 0; t < 5; ++t) {
    optimizer.step([&] {
      give(one);
      return torch::tensor(1.0f);
    });
    twin.step([&] {
      give(other);
      for (auto& w : other) w.mutable_grad() = w.grad().clone().contiguous();
      return torch::tensor(1.0f);
    });
  }
  expect_equal(one, other, "after 5 steps");
}

TYPED_TEST(Conformance, StepsASharedGradientAsIfEachWeightHadItsOwn) {
  expect_as_with_own_gradients<TypeParam>([](std::vector<torch::Tensor>& weights) {
    const auto shared = torch::arange(16, torch::kFloat).view({4, 4}).sin();
    for (auto& w : weights) w.mutable_grad() = shared;
  });
}

TYPED_TEST(Conformance, StepsAnExpandedGradientAsOneOfItsOwnMemory) {
  expect_as_with_own_gradients<TypeParam>([](std::vector<torch::Tensor>& weights) {
    for (auto& w : weights) w.mutable_grad() = torch::tensor(0.5f).expand({4, 4});
  });
}

TYPED_TEST(Conformance, TakesNoWeightTwice) {
  auto w = torch::ones({2, 2}, torch::requires_grad());
  auto other = torch::ones({2, 2}, torch::requires_grad());
  const auto make = [&](const std::vector<torch::Tensor>& held) {
    LAWN<typename TypeParam::Opt>(TypeParam::make({torch::optim::OptimizerParamGroup(held)}),
                                  lawn::select({w}), TypeParam::lawn());
  };
  lawn::testing::expect_refusal([&] { make({w, other, w}); }, "lawn::unique_parameters(*model)");
  make({w, other});
}

template <class Row>
class ConformanceOfOwn : public Conformance<Row> {};

TYPED_TEST_SUITE(ConformanceOfOwn, lawn::testing::OwnRows);

TYPED_TEST(ConformanceOfOwn, RefusesAParameterThatIsHeldTwice) {
  using lawn::testing::expect_refusal;
  using torch::optim::OptimizerParamGroup;
  auto a = torch::ones({2, 3}, torch::requires_grad());
  auto b = torch::ones({2, 3}, torch::requires_grad());
  expect_refusal(
      [&] {
        TypeParam::make({OptimizerParamGroup({a, b, a})});
      },
      "got one of shape [2, 3] as parameter 2 of group 0 that is parameter 0 of group 0, too");
  expect_refusal(
      [&] {
        TypeParam::make({OptimizerParamGroup({a}), OptimizerParamGroup({b, a})});
      },
      "got one of shape [2, 3] as parameter 1 of group 1 that is parameter 0 of group 0, too");

  auto optimizer = TypeParam::make({OptimizerParamGroup({a})});
  expect_refusal(
      [&] {
        optimizer.add_param_group(OptimizerParamGroup({b, a}));
      },
      "as a parameter of the new group that is parameter 0 of group 0, too");
  expect_refusal(
      [&] {
        optimizer.add_param_group(OptimizerParamGroup({b, b}));
      },
      "as a parameter of the new group that is in the same group, too");
  EXPECT_EQ(optimizer.param_groups().size(), 1U);

  a.mutable_grad() = torch::ones({2, 3});
  b.mutable_grad() = torch::ones({2, 3});
  optimizer.param_groups().front().params() = {a, b, b};  // past every check but the step's
  expect_refusal([&] { optimizer.step(); }, "as parameter 2 of group 0");
  EXPECT_TRUE(torch::equal(a.detach(), torch::ones({2, 3}))) << "nothing was changed";
  optimizer.param_groups().front().params() = {a};
  optimizer.step();
  EXPECT_FALSE(torch::equal(a.detach(), torch::ones({2, 3})));
}

TYPED_TEST(ConformanceOfOwn, RefusesAParameterWhoseShapeIsNotThatOfItsState) {
  using torch::optim::OptimizerParamGroup;
  for (const auto& shape : std::vector<std::vector<int64_t>>{{6}, {3, 2}, {4, 3}, {1, 3}}) {
    auto a = torch::ones({5}, torch::requires_grad());
    auto b = torch::ones({2, 3}, torch::requires_grad());
    auto optimizer = TypeParam::make({OptimizerParamGroup({a, b})});
    const auto give = [&] {
      a.mutable_grad() = torch::ones_like(a);
      b.mutable_grad() = torch::ones_like(b);
    };
    give();
    optimizer.step();
    b.set_data(torch::ones(shape));
    give();
    const auto before = a.detach().clone();
    if (optimizer.state().count(b.unsafeGetTensorImpl()) == 0) {  // none is kept without momentum
      optimizer.step();
      continue;
    }
    lawn::testing::expect_refusal([&] { optimizer.step(); },
                                  "expected parameter 1 of group 0 to keep the shape [2, 3]");
    EXPECT_TRUE(torch::equal(a.detach(), before)) << "nothing was changed";
  }
}

TYPED_TEST(ConformanceOfOwn, StateFollowsAConvertedParameter) {
  auto a = torch::ones({2, 3}, torch::requires_grad());
  auto b = torch::ones({2, 3}, torch::kDouble).requires_grad_(true);
  auto optimizer = TypeParam::make({torch::optim::OptimizerParamGroup({a})});
  auto twin = TypeParam::make({torch::optim::OptimizerParamGroup({b})});
  for (int64_t t = 0; t < 6; ++t) {
    if (t == 3) a.set_data(a.detach().to(torch::kDouble));
    const auto gradient = torch::arange(6, torch::kDouble).view({2, 3}).add(t).sin();
    a.mutable_grad() = gradient.to(a.scalar_type());
    b.mutable_grad() = gradient.clone();
    optimizer.step();
    twin.step();
  }
  EXPECT_EQ(a.scalar_type(), torch::kDouble);
  EXPECT_TRUE(close(a, b, torch::kFloat)) << a << b;
}

}  // namespace
