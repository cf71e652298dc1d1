// SPDX-License-Identifier: Apache-2.0

#include <cmath>
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
using lawn::testing::expect_equal;
using lawn::testing::Problem;

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
template <class Row>
void expect_twin(torch::ScalarType dtype) {
  Problem problem(dtype);
  Problem twin(dtype);
  twin.model->to(torch::kDouble);
  twin.x = twin.x.to(torch::kDouble);
  LAWN<typename Row::Opt> lawn(Row::make(problem.groups()), problem.weights(), Row::lawn());

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
  for (const auto& w : weights) radius.push_back(w.norm().template item<double>());

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
      const double scale = expected[i].abs().max().template item<double>();
      ASSERT_LE(error, lawn::testing::tolerance(dtype).trajectory * scale)
          << c10::toString(dtype) << ", step " << t << ", parameter " << i;
    }
  }
}

TYPED_TEST(Conformance, ConstrainedPhaseEqualsAPlainFloat64Twin) {
  expect_twin<TypeParam>(torch::kDouble);
  expect_twin<TypeParam>(torch::kFloat);
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
    lawn::testing::expect_refusal([&] { lawn.step(); }, "LBFGS requires a closure function");
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
  static constexpr const char* kName = "test::Counting";
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
  if constexpr (lawn::detail::kFolds<Opt>) {  // folded alone, but not around another decorator
    for (size_t i = 0; i < alone.values().size(); ++i) {
      EXPECT_TRUE(torch::allclose(inner.values()[i], alone.values()[i], 1e-5, 1e-6)) << i;
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
          EXPECT_EQ(found, lawn.state().end());
        }
      } else if (found != lawn.state().end()) {
        auto moments = TypeParam::lawn().first_moments()
                           ? TypeParam::lawn().first_moments()(*found->second)
                           : lawn::detail::first_moments(*found->second).value();
        for (const auto& m : moments) {
          const double along = (m * w.detach()).sum().template item<double>();
          EXPECT_NEAR(along, 0, 1e-5 * (m.norm() * w.detach().norm()).template item<double>());
        }
      }
    }
    this->train(lawn, problem, 4, 6);
    EXPECT_LE(lawn.report().layers.front().norm_error.value(), 1e-6);
  }
}

}  // namespace
