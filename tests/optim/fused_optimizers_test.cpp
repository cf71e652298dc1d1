// SPDX-License-Identifier: Apache-2.0
//
// The fused optimizers are LibTorch's own to rounding. What they cannot fuse is in
// fused_fallback_test.cpp.

#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/decorator/base_optimizer.h>

#include "tests/optim/fused_pairs.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::copies;
using lawn::testing::expect_close;
using lawn::testing::Group;
using lawn::testing::parameters;
using lawn::testing::step_both;
using lawn::testing::Tensors;
using lawn::testing::tolerance;

template <class Pair>
class FusedOptimizers : public ::testing::Test {
 protected:
  using Fused = typename Pair::Fused;
  using Plain = typename Pair::Plain;

  void SetUp() override { torch::manual_seed(3); }

  /// With every term of the update in it, but amsgrad.
  static auto options() { return Pair::options().at(Pair::options().size() > 2 ? 2 : 1); }

  static std::unique_ptr<torch::optim::OptimizerOptions> options_with_lr(double lr) {
    auto changed = std::make_unique<std::decay_t<decltype(options())>>(options());
    changed->lr(lr);
    return changed;
  }
};

TYPED_TEST_SUITE(FusedOptimizers, lawn::testing::FusedPairs);

TYPED_TEST(FusedOptimizers, EqualTheUnfusedOverAThousandSteps) {
  lawn::testing::expect_same_trajectories<TypeParam>(torch::kDouble);
  lawn::testing::expect_same_trajectories<TypeParam>(torch::kFloat);
}

TYPED_TEST(FusedOptimizers, FollowFloat64InEachDtype) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    torch::manual_seed(3);
    const auto a = parameters(dtype);
    Tensors b;
    for (const auto& p : a) b.push_back(p.detach().to(torch::kDouble).requires_grad_());
    typename TypeParam::Fused fused(a, TypeParam::options().front());
    typename TypeParam::Plain plain(b, TypeParam::options().front());
    step_both(fused, a, plain, b, 0, 30);
    expect_close(a, b, tolerance(dtype).trajectory, c10::toString(dtype));
  }
}

TEST(FusedSGD, KeepsItsBuffersWhileTheMomentumIsZero) {
  torch::manual_seed(3);
  const auto a = parameters(torch::kDouble);
  const auto b = copies(a);
  const auto options = torch::optim::SGDOptions(0.1).momentum(0.9);
  lawn::FusedSGD fused(a, options);
  torch::optim::SGD plain(b, options);
  for (const double momentum : {0.9, 0.0, 0.5}) {
    for (torch::optim::Optimizer* optimizer :
         std::initializer_list<torch::optim::Optimizer*>{&fused, &plain}) {
      static_cast<torch::optim::SGDOptions&>(optimizer->param_groups()[0].options())
          .momentum(momentum);
    }
    step_both(fused, a, plain, b, 0, 5);
    expect_close(a, b, tolerance(torch::kDouble).trajectory, std::to_string(momentum));
  }
}

TYPED_TEST(FusedOptimizers, FollowGroupsSchedulesAndLateGradients) {
  const auto a = parameters(torch::kDouble);
  const auto b = copies(a);
  const auto groups = [&](const Tensors& p) {
    std::vector<Group> all;
    all.emplace_back(Tensors{p[0], p[1]});
    all.emplace_back(Tensors{p[2], p[3], p[4]}, this->options_with_lr(0.007));
    return all;
  };
  typename TypeParam::Fused fused(groups(a), this->options());
  typename TypeParam::Plain plain(groups(b), this->options());
  torch::optim::StepLR fused_schedule(fused, /*step_size=*/4, /*gamma=*/0.5);
  torch::optim::StepLR plain_schedule(plain, /*step_size=*/4, /*gamma=*/0.5);
  const auto never = a[3].detach().clone();
  for (int64_t t = 0; t < 12; ++t) {
    for (const auto& p : {a, b}) {
      lawn::testing::set_pulling_gradients(p, t);
      if (t < 5) p[2].mutable_grad().reset();       // its step count lags behind from here on
      if (t % 3 == 1) p[1].mutable_grad().reset();  // and this one's falls behind with time
      p[3].mutable_grad().reset();
    }
    fused.step();
    plain.step();
    fused_schedule.step();
    plain_schedule.step();
  }
  expect_close(a, b, tolerance(torch::kDouble).trajectory, "after 12 steps");
  EXPECT_TRUE(torch::equal(a[3], never));
  EXPECT_EQ(fused.state().size(), plain.state().size());
}

TYPED_TEST(FusedOptimizers, ExchangeCheckpointsWithTheUnfused) {
  for (const bool fused_first : {true, false}) {
    const auto a = parameters(torch::kFloat);
    const auto b = copies(a);
    typename TypeParam::Fused fused(a, this->options());
    typename TypeParam::Plain plain(b, this->options());
    step_both(fused, a, plain, b, 0, 10);

    std::stringstream file;
    const auto c = copies(fused_first ? a : b);
    typename TypeParam::Fused next_fused(c, this->options());
    typename TypeParam::Plain next_plain(c, this->options());
    if (fused_first) {
      torch::save(fused, file);
      torch::load(next_plain, file);
      step_both(next_plain, c, fused, a, 10, 20);
      expect_close(c, a, tolerance(torch::kFloat).trajectory, "the unfused continues");
    } else {
      torch::save(plain, file);
      torch::load(next_fused, file);
      step_both(next_fused, c, plain, b, 10, 20);
      expect_close(c, b, tolerance(torch::kFloat).trajectory, "the fused continues");
    }
  }
}

TYPED_TEST(FusedOptimizers, LeaveTheSameStateAsTheUnfused) {
  const auto saved = [](const torch::optim::Optimizer& optimizer, const torch::Tensor& parameter) {
    torch::serialize::OutputArchive out;
    optimizer.state().at(parameter.unsafeGetTensorImpl())->serialize(out);
    std::stringstream stream;
    out.save_to(stream);
    torch::serialize::InputArchive in;
    in.load_from(stream);
    std::map<std::string, torch::Tensor> tensors;
    for (const auto& key : in.keys()) {
      c10::IValue value;
      in.read(key, value);
      tensors[key] = value.isTensor() ? value.toTensor() : torch::tensor(value.toInt());
    }
    return tensors;
  };
  for (const auto& options : TypeParam::options()) {
    const auto a = parameters(torch::kDouble);
    const auto b = copies(a);
    typename TypeParam::Fused fused(a, options);
    typename TypeParam::Plain plain(b, options);
    step_both(fused, a, plain, b, 0, 3);
    ASSERT_EQ(fused.state().size(), plain.state().size());
    for (size_t i = 0; i < a.size() && !plain.state().empty(); ++i) {
      const auto actual = saved(fused, a[i]);
      const auto expected = saved(plain, b[i]);
      ASSERT_EQ(actual.size(), expected.size());
      for (const auto& [key, tensor] : expected) {
        ASSERT_EQ(actual.count(key), 1U) << key;
        expect_close({actual.at(key)}, {tensor}, 1e-9, key);
        EXPECT_EQ(actual.at(key).strides(), tensor.strides()) << key;
        EXPECT_FALSE(actual.at(key).requires_grad()) << key;
      }
    }
  }
}

/// Calls of ATen functions by name, in this thread, while it lives.
class Calls {
 public:
  Calls() {
    counts().clear();
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback([](const at::RecordFunction& function)
                                       -> std::unique_ptr<at::ObserverContext> {
          ++counts()[function.name()];
          return nullptr;
        }).scopes({at::RecordScope::FUNCTION}));
  }
  ~Calls() { at::removeCallback(handle_); }
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;

  int64_t of(const std::string& name) const { return counts()[name]; }

 private:
  static std::map<std::string, int64_t>& counts() {
    static std::map<std::string, int64_t> all;
    return all;
  }
  at::CallbackHandle handle_{};
};

TYPED_TEST(FusedOptimizers, CallTheirFunctionOnceForEachGroupAndDtype) {
  auto a = parameters(torch::kFloat);
  const auto doubles = parameters(torch::kDouble);
  a.insert(a.begin() + 2, doubles.begin(), doubles.end());
  const auto more = parameters(torch::kFloat);
  std::vector<Group> groups;
  groups.emplace_back(a);
  groups.emplace_back(more, this->options_with_lr(0.1));
  typename TypeParam::Fused fused(groups, this->options());
  for (int64_t t = 0; t < 2; ++t) {
    lawn::testing::set_pulling_gradients(a, t);
    lawn::testing::set_pulling_gradients(more, t);
    if (t == 0) fused.step();  // makes the state
  }
  const Calls calls;
  fused.step();
  EXPECT_EQ(calls.of(TypeParam::kFunction), 3);
  for (const char* other : {"mul_", "add_", "addcmul_", "addcdiv_", "sqrt", "clone", "copy_"}) {
    EXPECT_EQ(calls.of(std::string("aten::") + other), 0) << other;
  }
  EXPECT_LE(calls.of("aten::full"), 3) << "one step count for each list";
}

TYPED_TEST(FusedOptimizers, LeaveTheGradientsAndBumpTheVersionsOfTheParameters) {
  const auto a = parameters(torch::kFloat);
  typename TypeParam::Fused fused(a, this->options());
  lawn::testing::set_pulling_gradients(a, 0);
  Tensors gradients;
  for (const auto& p : a) gradients.push_back(p.grad().clone());
  const auto stale = (a[0] * a[0]).sum();
  fused.step();
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(torch::equal(a[i].grad(), gradients[i]));
  lawn::testing::expect_refusal([&] { stale.backward(); }, "modified by an inplace operation");
}

TYPED_TEST(FusedOptimizers, EvaluateAClosureWithGradients) {
  const auto a = parameters(torch::kFloat);
  typename TypeParam::Fused fused(a, this->options());
  const auto before = a[0].detach().clone();
  const torch::NoGradGuard no_grad;
  const auto loss = fused.step([&] {
    auto sum = a[0].square().sum();
    sum.backward();
    return sum;
  });
  EXPECT_TRUE(torch::allclose(loss, before.square().sum()));
  EXPECT_FALSE(torch::equal(a[0], before));
}

TYPED_TEST(FusedOptimizers, StartAnewAfterAReset) {
  const auto a = parameters(torch::kDouble);
  const auto b = copies(a);
  typename TypeParam::Fused fused(a, this->options());
  typename TypeParam::Plain plain(b, this->options());
  step_both(fused, a, plain, b, 0, 4);
  lawn::detail::decorator::reset_state(fused, {a[0], a[3]});
  lawn::detail::decorator::reset_state(plain, {b[0], b[3]});
  step_both(fused, a, plain, b, 4, 8);
  expect_close(a, b, tolerance(torch::kDouble).trajectory, "after the reset");
  EXPECT_EQ(lawn::detail::decorator::coupled_weight_decay(fused.param_groups()[0].options()),
            lawn::detail::decorator::coupled_weight_decay(plain.param_groups()[0].options()));
  for (size_t i = 0; i < a.size(); ++i) {
    const auto actual =
        lawn::detail::decorator::first_moments(*fused.state().at(a[i].unsafeGetTensorImpl()))
            .value();
    const auto expected =
        lawn::detail::decorator::first_moments(*plain.state().at(b[i].unsafeGetTensorImpl()))
            .value();
    expect_close(actual, expected, 1e-9, "first moments");
  }
}

TYPED_TEST(FusedOptimizers, TakeGroupsAfterTheirConstruction) {
  auto a = parameters(torch::kFloat);
  typename TypeParam::Fused fused(a, this->options());
  const auto later = parameters(torch::kFloat);
  const auto before = later[0].detach().clone();
  fused.add_param_group(Group(later));
  lawn::testing::set_pulling_gradients(later, 0);
  fused.step();
  EXPECT_FALSE(torch::equal(later[0], before));
}

TYPED_TEST(FusedOptimizers, RefuseAGroupWithAnotherOptimizersOptions) {
  const auto a = parameters(torch::kFloat);
  const auto before = a[0].detach().clone();
  typename TypeParam::Fused fused({Group({a[0]}), Group({a[1]})}, this->options());
  fused.param_groups()[1].set_options(std::make_unique<torch::optim::LBFGSOptions>());
  lawn::testing::set_pulling_gradients(a, 0);
  lawn::testing::expect_refusal([&] { fused.step(); },
                                "expected each parameter group to have the options of lawn::Fused");
  EXPECT_TRUE(torch::equal(a[0], before)) << "the group before it was not stepped";
}

}  // namespace
