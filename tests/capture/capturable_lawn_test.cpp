// SPDX-License-Identifier: Apache-2.0
//
// LAWN whose phase is on the device, against LAWN with it on the host.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lawn/lawn.h>

#include "tests/capture/capturable.h"
#include "tests/capture/through_the_switch.h"
#include "tests/folded/folding.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::Phase;
using lawn::ZeroNorm;
using lawn::testing::Apart;
using lawn::testing::difference;
using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::expect_same_through_the_switch;
using lawn::testing::make_weights;
using lawn::testing::PretendedCapture;
using lawn::testing::selection;
using lawn::testing::set_rates;
using lawn::testing::tolerance;
using Tensors = std::vector<torch::Tensor>;

Tensors copies(const Tensors& tensors) {
  Tensors all;
  for (const auto& tensor : tensors) all.push_back(tensor.detach().clone());
  return all;
}

LAWNOptions lawn_options(int64_t free_steps) {
  return LAWNOptions().free_steps(free_steps).zero_norm(ZeroNorm::kLeaveFree);
}

TEST(CapturableLAWN, GoesThroughTheSwitchLikeTheHosts) {
  using torch::optim::AdamOptions;
  using torch::optim::AdamWOptions;
  using torch::optim::SGDOptions;
  const auto lawn = lawn_options(4);
  expect_same_through_the_switch<lawn::FusedAdam>(AdamOptions(0.01).weight_decay(0.1), lawn);
  expect_same_through_the_switch<lawn::FusedAdam>(AdamOptions(0.01).amsgrad(true), lawn);
  expect_same_through_the_switch<lawn::FusedAdamW>(AdamWOptions(0.01).weight_decay(0.1), lawn);
  expect_same_through_the_switch<lawn::FusedSGD>(SGDOptions(0.1), lawn);
  expect_same_through_the_switch<lawn::FusedSGD>(
      SGDOptions(0.1).momentum(0.9).dampening(0.25).weight_decay(0.01), lawn);
  expect_same_through_the_switch<lawn::FusedAdagrad>(
      torch::optim::AdagradOptions(0.1).weight_decay(0.1), lawn);
}

TEST(CapturableLAWN, GoesThroughTheSwitchAfterStepsOnTheHost) {
  const auto options = torch::optim::AdamOptions(0.01);
  for (const int64_t free_steps : {0, 1, 2, 4}) {
    SCOPED_TRACE(free_steps);
    expect_same_through_the_switch<lawn::FusedAdam>(options, lawn_options(free_steps),
                                                    torch::kFloat, 2);
  }
  expect_same_through_the_switch<lawn::FusedAdam>(options, lawn_options(0));
}

TEST(CapturableLAWN, GoesThroughTheSwitchToScaledRadii) {
  using lawn::Granularity;
  for (const double scale : {0.5, 3.0}) {
    for (const auto granularity : {Granularity::kLayer, Granularity::kOutputUnit}) {
      SCOPED_TRACE(scale);
      const auto lawn = lawn_options(3).radius_scale(scale).granularity(granularity);
      expect_same_through_the_switch<lawn::FusedAdam>(
          torch::optim::AdamOptions(0.01).weight_decay(0.1), lawn);
      expect_same_through_the_switch<lawn::FusedAdamW>(
          torch::optim::AdamWOptions(0.01).weight_decay(0.1), lawn);
      expect_same_through_the_switch<lawn::FusedSGD>(
          torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.01), lawn);
      expect_same_through_the_switch<lawn::FusedAdagrad>(
          torch::optim::AdagradOptions(0.1).weight_decay(0.1), lawn);
    }
  }
  expect_same_through_the_switch<lawn::FusedAdam>(torch::optim::AdamOptions(0.01),
                                                  lawn_options(3).radius_scale(0.5), torch::kHalf);
}

TEST(CapturableLAWN, LeavesFreeWhatCannotBeAScaledRadius) {
  const auto a = make_weights(torch::kHalf);
  LAWN<lawn::FusedAdam> optimizer(lawn::FusedAdam(a, 0.01), selection(a),
                                  lawn_options(1).radius_scale(1e6));
  optimizer.make_capturable();
  for (int64_t step = 0; step < 3; ++step) {
    lawn::testing::set_gradients(a, step);
    optimizer.step();
  }
  EXPECT_EQ(optimizer.report().layers[0].note, "left free");
  EXPECT_LT(a[0].norm().item<double>(), 20);
}

TEST(CapturableLAWN, KeepsItsScaleAfterLoading) {
  const auto a = make_weights(torch::kFloat);
  const auto make = [&] {
    LAWN<lawn::FusedAdam> made(lawn::FusedAdam(a, 0.01), selection(a),
                               lawn_options(2).radius_scale(0.5));
    made.make_capturable();
    return made;
  };
  auto first = make();
  lawn::testing::set_gradients(a, 0);
  first.step();
  std::stringstream file;
  torch::save(first, file);
  auto second = make();
  torch::load(second, file);
  lawn::testing::set_gradients(a, 1);
  second.step();
  const double norm = a[0].norm().item<double>();
  lawn::testing::set_gradients(a, 2);
  second.step();
  EXPECT_NEAR(*second.report().layers[0].radius / norm, 0.5, tolerance(torch::kFloat).step);
}

TEST(CapturableLAWN, BringsWeightsToScaledRadiiWhenSwitchedByHand) {
  const auto a = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> optimizer(lawn::FusedAdam(a, 0.01), selection(a),
                                  LAWNOptions().free_steps(LAWNOptions::kNever).radius_scale(0.5));
  optimizer.make_capturable();
  const double norm = a[0].norm().item<double>();
  optimizer.constrain();
  EXPECT_NEAR(a[0].norm().item<double>() / norm, 0.5, tolerance(torch::kFloat).step);
}

TEST(CapturableLAWN, GoesThroughTheSwitchInEveryDtype) {
  for (const auto dtype : {torch::kDouble, torch::kBFloat16, torch::kHalf}) {
    SCOPED_TRACE(c10::toString(dtype));
    expect_same_through_the_switch<lawn::FusedAdam>(torch::optim::AdamOptions(0.01),
                                                    lawn_options(3), dtype);
  }
}

TEST(CapturableLAWN, LeavesUnitsWithoutAUsableNormFree) {
  const auto options = lawn_options(3).granularity(lawn::Granularity::kOutputUnit);
  const auto spoil = [](const Tensors& weights) {
    const torch::NoGradGuard no_grad;
    weights[0][2].fill_(std::numeric_limits<float>::infinity());
  };
  const auto a = make_weights(torch::kFloat);
  spoil(a);
  LAWN<lawn::FusedAdam> optimizer(lawn::FusedAdam(a, 0.01), selection(a), options);
  optimizer.make_capturable();
  for (int64_t step = 0; step < 6; ++step) {
    lawn::testing::set_gradients(a, step);
    optimizer.step();
  }
  EXPECT_EQ(optimizer.report().layers[0].note, "weight is not finite, some units left free");
  EXPECT_TRUE(torch::isfinite(a[0][1]).all().item<bool>());
  expect_same_through_the_switch<lawn::FusedAdam>(torch::optim::AdamOptions(0.01), options);
}

TEST(CapturableLAWN, TakesTheRadiusOfALayerWithoutAGradientToo) {
  const auto a = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> optimizer(lawn::FusedAdam(a, 0.01), selection(a), lawn_options(1));
  optimizer.make_capturable();
  for (int64_t step = 0; step < 3; ++step) {
    lawn::testing::set_gradients(a, step);
    a[1].mutable_grad() = torch::Tensor();
    optimizer.step();
  }
  const auto report = optimizer.report();
  EXPECT_NEAR(*report.layers[1].radius, a[1].norm().item<double>(), 1e-2);
  EXPECT_GT(*report.layers[1].radius, 0);
}

TEST(CapturableLAWN, GivesTheBitsOfTheHostsNumbersOnceConstrained) {
  const auto a = make_weights(torch::kFloat);
  const auto b = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> device(lawn::FusedAdam(a, 0.01), selection(a), LAWNOptions());
  LAWN<lawn::FusedAdam> host(lawn::FusedAdam(b, 0.01), selection(b), LAWNOptions());
  for (int64_t step = 0; step < 6; ++step) {
    if (step == 1) device.make_capturable();  // ZeroNorm::kError has had its say
    lawn::testing::set_gradients(a, step);
    lawn::testing::set_gradients(b, step);
    device.step();
    host.step();
    expect_equal(a, b, "step " + std::to_string(step));
  }
}

TEST(CapturableLAWN, SavesAndLoadsOnBothSidesOfTheSwitch) {
  for (const int64_t saved_after : {2, 6}) {
    for (const bool into_device : {false, true}) {
      SCOPED_TRACE(std::to_string(saved_after) + (into_device ? " into device" : " into host"));
      const auto a = make_weights(torch::kFloat);
      const auto make = [&](bool capturable) {
        LAWN<lawn::FusedAdam> made(lawn::FusedAdam(a, 0.01), selection(a), lawn_options(4));
        if (capturable) made.make_capturable();
        return made;
      };
      const auto steps = [&](auto& optimizer, int64_t from, int64_t to) {
        for (int64_t step = from; step < to; ++step) {
          lawn::testing::set_gradients(a, step);
          optimizer.step();
        }
      };
      auto first = make(!into_device);
      steps(first, 0, saved_after);
      std::stringstream file;
      torch::save(first, file);
      const auto saved = copies(a);
      steps(first, saved_after, 9);
      const auto expected = copies(a);

      auto second = make(into_device);
      steps(second, 0, 5);  // what it has of its own must go
      {
        const torch::NoGradGuard no_grad;
        for (std::size_t i = 0; i < a.size(); ++i) a[i].copy_(saved[i]);
      }
      torch::load(second, file);
      EXPECT_EQ(second.steps(), saved_after);
      EXPECT_EQ(second.phase(), saved_after == 2 ? Phase::kFree : Phase::kConstrained);
      EXPECT_EQ(second.report().layers[0].radius.has_value(), saved_after != 2);
      steps(second, saved_after, 9);
      EXPECT_EQ(second.steps(), 9);
      for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_LE(difference(a[i], expected[i]), tolerance(torch::kFloat).step * 10) << i;
      }
    }
  }
}

TEST(CapturableLAWN, SwitchesAtOnceWhereTheCheckpointIsPastTheSwitch) {
  const auto a = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> longer(lawn::FusedAdam(a, 0.01), selection(a), lawn_options(9));
  LAWN<lawn::FusedAdam> shorter(lawn::FusedAdam(a, 0.01), selection(a), lawn_options(2));
  shorter.make_capturable();
  for (int64_t step = 0; step < 5; ++step) {
    lawn::testing::set_gradients(a, step);
    longer.step();
  }
  std::stringstream file;
  torch::save(longer, file);
  torch::load(shorter, file);
  EXPECT_EQ(shorter.phase(), Phase::kFree);
  lawn::testing::set_gradients(a, 5);
  shorter.step();
  EXPECT_EQ(shorter.phase(), Phase::kConstrained);
  EXPECT_GT(*shorter.report().layers[0].radius, 0);
}

TEST(CapturableLAWN, SwitchesByHandWithOptionsThatACaptureCannotHave) {
  const auto options = LAWNOptions()
                           .free_steps(LAWNOptions::kNever)
                           .radius(lawn::Radius::kGiven)
                           .radii({1, 2, 3, 4, 5})
                           .state_at_switch(lawn::StateAtSwitch::kProject);
  const auto a = make_weights(torch::kFloat);
  const auto b = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> device(lawn::FusedAdam(a, 0.01), selection(a), options);
  LAWN<lawn::FusedAdam> host(lawn::FusedAdam(b, 0.01), selection(b), options);
  device.make_capturable();
  for (int64_t step = 0; step < 6; ++step) {
    lawn::testing::set_gradients(a, step);
    lawn::testing::set_gradients(b, step);
    if (step == 3) {
      EXPECT_EQ(device.phase(), Phase::kFree);
      device.constrain();
      host.constrain();
      EXPECT_EQ(device.phase(), Phase::kConstrained);
    }
    device.step();
    host.step();
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_LE(difference(a[i], b[i]), tolerance(torch::kFloat).step * 10) << step << ", " << i;
    }
  }
  EXPECT_NEAR(a[1].norm().item<double>(), 2, tolerance(torch::kFloat).step);
}

TEST(CapturableLAWN, DoesNotSwitchAgainAfterASwitchByHand) {
  const auto a = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> optimizer(lawn::FusedAdam(a, 0.1), selection(a), lawn_options(4));
  optimizer.make_capturable();
  const auto step = [&](int64_t number) {
    lawn::testing::set_gradients(a, number);
    optimizer.step();
  };
  for (int64_t number = 0; number < 2; ++number) step(number);
  optimizer.constrain();
  const double radius = *optimizer.report().layers[0].radius;
  {
    const torch::NoGradGuard no_grad;
    a[0].mul_(2);
  }
  for (int64_t number = 2; number < 8; ++number) {
    step(number);
    if (number == 2) a[0].detach().mul_(2);
  }
  EXPECT_EQ(*optimizer.report().layers[0].radius, radius);
  EXPECT_NEAR(a[0].norm().item<double>(), radius, radius * tolerance(torch::kFloat).step);
}

TEST(CapturableLAWN, KeepsPhaseStepsAndRadiiWhenTheStateIsReset) {
  const auto a = make_weights(torch::kFloat);
  const auto b = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> device(lawn::FusedAdam(a, 0.01), selection(a), lawn_options(2));
  LAWN<lawn::FusedAdam> host(lawn::FusedAdam(b, 0.01), selection(b), lawn_options(2));
  device.make_capturable();
  for (int64_t step = 0; step < 8; ++step) {
    if (step == 1 || step == 5) {  // in both phases
      const auto before = device.report();
      lawn::reset_state(device);
      lawn::reset_state(host);
      const auto after = device.report();
      EXPECT_EQ(after.phase, before.phase);
      EXPECT_EQ(after.steps, step);
      EXPECT_EQ(after.layers[0].radius, before.layers[0].radius);
    }
    lawn::testing::set_gradients(a, step);
    lawn::testing::set_gradients(b, step);
    device.step();
    host.step();
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_LE(difference(a[i], b[i]), tolerance(torch::kFloat).step * 10) << step << ", " << i;
    }
  }
}

TEST(CapturableLAWN, IsMadeOfACapturableOptimizer) {
  const auto a = make_weights(torch::kFloat);
  lawn::FusedAdam adam(a, 0.01);
  adam.make_capturable();
  LAWN<lawn::FusedAdam> optimizer(std::move(adam), selection(a), lawn_options(1));
  EXPECT_TRUE(optimizer.capturable());
  for (int64_t step = 0; step < 3; ++step) {
    lawn::testing::set_gradients(a, step);
    if (step == 2) {
      const PretendedCapture capture;  // in which nothing of the phase may be the host's
      optimizer.step();
    } else {
      optimizer.step();
    }
  }
  EXPECT_EQ(optimizer.steps(), 3);
  EXPECT_EQ(optimizer.phase(), Phase::kConstrained);
}

/// Expects of `optimizer`, whose phase is on the host, that it refuses a capture and changes
/// nothing.
template <class Optimizer>
void expect_no_capture(Optimizer& optimizer, const Tensors& weights) {
  lawn::testing::set_gradients(weights, 2);
  const auto before = copies(weights);
  const auto gradient = weights[0].grad().clone();
  const int64_t steps = optimizer.steps();
  {
    const PretendedCapture capture;
    expect_refusal([&] { optimizer.step(); },
                   "lawn::LAWN: expected make_capturable() before a capture, whose replays would "
                   "otherwise stay in the present phase");
  }
  for (std::size_t i = 0; i < weights.size(); ++i) EXPECT_TRUE(weights[i].equal(before[i])) << i;
  EXPECT_TRUE(weights[0].grad().equal(gradient));
  EXPECT_EQ(optimizer.steps(), steps);
  optimizer.step();
  EXPECT_FALSE(weights[0].equal(before[0]));
}

TEST(CapturableLAWN, RefusesACaptureAsLongAsItsPhaseIsOnTheHost) {
  const auto a = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> whole(lawn::FusedAdam(a, 0.01), selection(a), lawn_options(1));
  expect_no_capture(whole, a);
  static_cast<lawn::FusedAdam&>(whole).make_capturable();  // not LAWN's
  for (int64_t step = 0; step < 2; ++step) {
    lawn::testing::set_gradients(a, step);
    whole.step();
  }
  expect_no_capture(whole, a);

  LAWN<torch::optim::SGD> other(torch::optim::SGD(a, 0.01), selection(a), lawn_options(0));
  expect_no_capture(other, a);
}

/// Moves `tensor` to a GPU that is not there: its values are lost, and nothing can be done with it.
void pretend_to_move(const torch::Tensor& tensor) {
  c10::Storage storage(c10::Storage::use_byte_size_t(), tensor.nbytes(),
                       c10::DataPtr(nullptr, torch::Device(torch::kCUDA, 0)));
  auto moved = c10::make_intrusive<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), tensor.dtype());
  moved->set_sizes_contiguous(tensor.sizes());
  tensor.set_data(torch::Tensor(std::move(moved)));
}

TEST(CapturableLAWN, RefusesAModelThatWasMovedBeforeItChangesAnything) {
  const auto a = make_weights(torch::kFloat);
  LAWN<lawn::FusedSGD> optimizer(lawn::FusedSGD(a, 0.1), selection(a), lawn_options(0));
  optimizer.make_capturable();
  lawn::testing::set_gradients(a, 0);
  const Tensors before(copies({a.begin(), a.end() - 1}));
  a.back().mutable_grad() = torch::Tensor();
  pretend_to_move(a.back());
  expect_refusal([&] { optimizer.step(); },
                 "expected the constrained tensors where they were when make_capturable() was "
                 "called, got one on cuda:0: move the model before that; nothing was changed");
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(a[i].equal(before[i])) << i;
}

TEST(CapturableLAWN, RefusesOptionsThatACaptureCannotHave) {
  const auto a = make_weights(torch::kFloat);
  const auto refused = [&](const LAWNOptions& options, const std::string& message) {
    LAWN<lawn::FusedAdam> optimizer(lawn::FusedAdam(a, 0.01), selection(a), options);
    expect_refusal([&] { optimizer.make_capturable(); }, message);
    EXPECT_FALSE(optimizer.capturable());
  };
  refused(LAWNOptions().free_steps(3), "ZeroNorm::kLeaveFree, got kError: a captured step cannot");
  refused(lawn_options(3).radius(lawn::Radius::kGiven).radii({1, 1, 1, 1, 1}),
          "expected Radius::kCaptured and StateAtSwitch::kKeep, got others");
  refused(lawn_options(3).state_at_switch(lawn::StateAtSwitch::kProject),
          "expected Radius::kCaptured and StateAtSwitch::kKeep, got others");
  for (const int64_t free_steps : {int64_t{3}, LAWNOptions::kNever}) {
    refused(lawn_options(free_steps).radius(lawn::Radius::kInitial), "got kReset or kInitial");
    refused(lawn_options(free_steps).state_at_switch(lawn::StateAtSwitch::kReset),
            "got kReset or kInitial");
    refused(lawn_options(free_steps).angular_steps(true), "angular_steps(false), got true");
  }
}

TEST(CapturableLAWN, RefusesThemAsItIsMadeOfACapturableOptimizerAndLeavesThatWhereItWas) {
  const auto a = make_weights(torch::kFloat);
  lawn::FusedAdam adam(a, 0.01);
  adam.make_capturable();
  expect_refusal([&] { LAWN(std::move(adam), selection(a), LAWNOptions().free_steps(3)); },
                 "ZeroNorm::kLeaveFree, got kError");
  ASSERT_EQ(adam.param_groups().size(), 1U);
  lawn::testing::set_gradients(a, 0);
  adam.step();
}

TEST(CapturableLAWN, RefusesACheckpointOfThePhaseThatItCouldNotLeave) {
  const auto a = make_weights(torch::kFloat);
  LAWN<lawn::FusedAdam> optimizer(
      lawn::FusedAdam(a, 0.01), selection(a),
      lawn_options(3).radius(lawn::Radius::kGiven).radii({1, 2, 3, 4, 5}));
  std::stringstream free_phase;
  torch::save(optimizer, free_phase);
  for (int64_t step = 0; step < 5; ++step) {
    lawn::testing::set_gradients(a, step);
    optimizer.step();
  }
  optimizer.make_capturable();
  std::stringstream before;
  torch::save(optimizer, before);
  expect_refusal([&] { torch::load(optimizer, free_phase); },
                 "expected Radius::kCaptured and StateAtSwitch::kKeep, got others");
  EXPECT_EQ(optimizer.phase(), Phase::kConstrained);
  EXPECT_EQ(optimizer.steps(), 5);
  torch::load(optimizer, before);
  EXPECT_EQ(*optimizer.report().layers[1].radius, 2);
}

/// Whether LAWN around `Opt` has the method.
template <class Opt, class = void>
struct HasMethod : std::false_type {};
template <class Opt>
struct HasMethod<Opt, std::void_t<decltype(std::declval<LAWN<Opt>&>().make_capturable())>>
    : std::true_type {};

static_assert(HasMethod<lawn::FusedAdam>::value && HasMethod<lawn::FusedAdamW>::value &&
                  HasMethod<lawn::FusedSGD>::value && HasMethod<lawn::FusedAdagrad>::value,
              "LAWN around these can be captured");
static_assert(!HasMethod<Apart<lawn::FusedAdam>>::value && !HasMethod<torch::optim::Adam>::value &&
                  !HasMethod<LAWN<lawn::FusedAdam>>::value,
              "of others it is not known");

}  // namespace
