// SPDX-License-Identifier: Apache-2.0
//
// Fused optimizers whose learning rates and step counts are on the device, against the same with
// them on the host. Here both are the CPU; how a graph replays them is in capturable_gpu_test.cpp.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lawn/capture/stream.h>
#include <lawn/lawn.h>

#include "tests/capture/capturable.h"
#include "tests/capture/device_reads.h"
#include "tests/optim/fused_pairs.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::copies;
using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::PretendedCapture;
using lawn::testing::set_rates;
using lawn::testing::Tensors;

/// Gradients of step `step`: without one for parameter 0 in the first two, and for parameter 1 in
/// every third.
void set_some_gradients(const Tensors& parameters, int64_t step) {
  lawn::testing::set_pulling_gradients(parameters, step);
  if (step < 2) parameters[0].mutable_grad() = torch::Tensor();
  if (step % 3 == 2) parameters[1].mutable_grad() = torch::Tensor();
}

template <class Pair>
class Capturable : public ::testing::Test {
 protected:
  using Fused = typename Pair::Fused;

  /// Two groups of the same parameters, with options of their own.
  template <class Options>
  static Fused in_two_groups(const Tensors& parameters, const Options& options) {
    Fused fused(Tensors(parameters.begin(), parameters.begin() + 3), options);
    torch::optim::OptimizerParamGroup second(Tensors(parameters.begin() + 3, parameters.end()));
    second.set_options(std::make_unique<Options>(options));
    fused.add_param_group(second);
    return fused;
  }

  /// Equal parameters, and an optimizer of each: one with its numbers on the device, one with them
  /// on the host.
  struct Twins {
    Tensors a;
    Tensors b;
    Fused device;
    Fused host;
  };

  template <class Options>
  static Twins twins(const Options& options, torch::ScalarType dtype = torch::kFloat) {
    torch::manual_seed(3);
    const auto a = lawn::testing::parameters(dtype);
    const auto b = copies(a);
    Twins made{a, b, in_two_groups(a, options), in_two_groups(b, options)};
    made.device.make_capturable();
    return made;
  }
};

TYPED_TEST_SUITE(Capturable, lawn::testing::FusedPairs);

TYPED_TEST(Capturable, GivesTheBitsOfTheHostsNumbers) {
  for (const auto dtype : {torch::kFloat, torch::kDouble}) {
    for (const auto& options : TypeParam::options()) {
      auto [a, b, device, host] = TestFixture::twins(options, dtype);
      EXPECT_TRUE(device.capturable());
      EXPECT_FALSE(host.capturable());
      for (int64_t step = 0; step < 12; ++step) {
        set_some_gradients(a, step);
        set_some_gradients(b, step);
        set_rates(device, step);
        set_rates(host, step);
        device.step();
        host.step();
        expect_equal(a, b, "step " + std::to_string(step));
      }
    }
  }
}

TYPED_TEST(Capturable, GoesOnFromStepsOnTheHostAndSavesForThem) {
  const auto options = TypeParam::options().back();
  torch::manual_seed(3);
  const auto a = lawn::testing::parameters(torch::kFloat);
  const auto b = copies(a);
  auto device = TestFixture::in_two_groups(a, options);
  auto host = TestFixture::in_two_groups(b, options);
  const auto both = [&](auto& one, auto& other, int64_t from, int64_t to) {
    for (int64_t step = from; step < to; ++step) {
      set_some_gradients(a, step);
      set_some_gradients(b, step);
      one.step();
      other.step();
    }
  };
  both(device, host, 0, 4);
  device.make_capturable();
  both(device, host, 4, 8);
  expect_equal(a, b, "from the host to the device");

  std::stringstream of_device;
  std::stringstream of_host;
  torch::save(device, of_device);
  torch::save(host, of_host);
  auto from_device = TestFixture::in_two_groups(b, options);
  auto from_host = TestFixture::in_two_groups(a, options);
  from_host.make_capturable();
  // Counts of its own, which the checkpoint's have to replace.
  both(from_host, from_device, 0, 2);
  {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < a.size(); ++i) a[i].copy_(b[i]);
  }
  torch::load(from_device, of_device);
  torch::load(from_host, of_host);
  both(from_host, from_device, 8, 12);
  expect_equal(a, b, "after loading");
}

TYPED_TEST(Capturable, StepsInACaptureByTheRatesThatWereUploaded) {
  auto [a, b, device, host] = TestFixture::twins(TypeParam::options().back());
  for (int64_t step = 0; step < 6; ++step) {
    lawn::testing::set_pulling_gradients(a, step);
    lawn::testing::set_pulling_gradients(b, step);
    set_rates(host, step);
    set_rates(device, step);
    if (step < 2) {
      device.step();
    } else {
      device.upload_learning_rates();
      const PretendedCapture capture;
      set_rates(device, 1000);
      device.step();
    }
    host.step();
    expect_equal(a, b, "step " + std::to_string(step));
  }
}

TYPED_TEST(Capturable, StartsAnewOnWhatLosesItsState) {
  auto [a, b, device, host] = TestFixture::twins(TypeParam::options().back());
  for (int64_t step = 0; step < 6; ++step) {
    lawn::testing::set_pulling_gradients(a, step);
    lawn::testing::set_pulling_gradients(b, step);
    if (step == 3) {
      if constexpr (!std::is_same_v<TypeParam,
                                    lawn::testing::AdagradPair>) {  // its own is for good
        device.state().erase(a[1].unsafeGetTensorImpl());
        host.state().erase(b[1].unsafeGetTensorImpl());
      }
    }
    device.step();
    host.step();
    expect_equal(a, b, "step " + std::to_string(step));
  }
}

/// The addresses of all that the optimizer keeps.
std::vector<const void*> addresses(torch::optim::Optimizer& optimizer, const Tensors& parameters) {
  std::vector<const void*> all;
  for (const auto& parameter : parameters) {
    const auto found = optimizer.state().find(parameter.unsafeGetTensorImpl());
    if (found == optimizer.state().end()) continue;
    auto moments = lawn::detail::decorator::first_moments(*found->second).value();
    if (auto* adagrad = dynamic_cast<torch::optim::AdagradParamState*>(found->second.get())) {
      moments.push_back(adagrad->sum());
    }
    if (auto* adam = dynamic_cast<torch::optim::AdamParamState*>(found->second.get())) {
      moments.push_back(adam->exp_avg_sq());
    }
    for (const auto& moment : moments) all.push_back(moment.data_ptr());
  }
  return all;
}

TYPED_TEST(Capturable, StepsInACaptureAfterAResetAsANewOptimizerDoes) {
  for (const auto& options : TypeParam::options()) {
    if constexpr (std::is_same_v<TypeParam, lawn::testing::SGDPair>) {
      if (options.dampening() != 0) continue;  // refused, below
    }
    auto twins = TestFixture::twins(options);
    const Tensors& a = twins.a;
    const Tensors& b = twins.b;
    auto& device = twins.device;
    for (int64_t step = 0; step < 4; ++step) {
      lawn::testing::set_pulling_gradients(a, step);
      device.step();
    }
    const auto before = addresses(device, a);
    EXPECT_EQ(lawn::testing::device_reads([&] { lawn::reset_state(device); }), 0);
    {
      const torch::NoGradGuard no_grad;
      for (std::size_t i = 0; i < a.size(); ++i) b[i].copy_(a[i]);
    }
    for (int64_t step = 4; step < 8; ++step) {
      lawn::testing::set_pulling_gradients(a, step);
      lawn::testing::set_pulling_gradients(b, step);
      {
        const PretendedCapture capture;  // in which no state is made and no count
        device.step();
      }
      twins.host.step();
      expect_equal(a, b, "step " + std::to_string(step));
    }
    EXPECT_EQ(addresses(device, a), before);
  }
}

TYPED_TEST(Capturable, ForgetsAGroupOrWhatCountsForItselfAlone) {
  auto twins = TestFixture::twins(TypeParam::options()[1]);
  const Tensors& a = twins.a;
  const Tensors& b = twins.b;
  auto& device = twins.device;
  auto& host = twins.host;
  const auto both = [&](int64_t from, int64_t to) {
    for (int64_t step = from; step < to; ++step) {
      set_some_gradients(a, step);
      set_some_gradients(b, step);
      device.step();
      host.step();
      expect_equal(a, b, "step " + std::to_string(step));
    }
  };
  both(0, 4);
  lawn::reset_state(device, {a[3], a[4]});  // the second group
  lawn::reset_state(host, {b[3], b[4]});
  both(4, 6);
  lawn::reset_state(device, {a[0]});  // without a gradient in the first steps
  lawn::reset_state(host, {b[0]});
  both(6, 9);
}

TYPED_TEST(Capturable, ForgetsWhatTheHostHasCountedBeforeTheFirstStepOnTheDevice) {
  const auto options = TypeParam::options()[1];
  torch::manual_seed(3);
  const auto a = lawn::testing::parameters(torch::kFloat);
  const auto b = copies(a);
  auto device = TestFixture::in_two_groups(a, options);
  auto host = TestFixture::in_two_groups(b, options);
  for (int64_t step = 0; step < 6; ++step) {
    if (step == 3) {
      device.make_capturable();
      lawn::reset_state(device, {a[0]});
      lawn::reset_state(host, {b[0]});
    }
    lawn::testing::set_pulling_gradients(a, step);
    lawn::testing::set_pulling_gradients(b, step);
    device.step();
    host.step();
    expect_equal(a, b, "step " + std::to_string(step));
  }
}

TYPED_TEST(Capturable, RefusesToForgetWhatACapturedStepCannot) {
  auto twins = TestFixture::twins(TypeParam::options().back());
  const Tensors& a = twins.a;
  const Tensors& b = twins.b;
  auto& device = twins.device;
  auto& host = twins.host;
  for (int64_t step = 0; step < 3; ++step) {
    lawn::testing::set_pulling_gradients(a, step);
    lawn::testing::set_pulling_gradients(b, step);
    device.step();
    host.step();
  }
  {
    const PretendedCapture capture;
    expect_refusal([&] { lawn::reset_state(device); },
                   "call reset_state() between replays, not within a capture");
  }
  if constexpr (!std::is_same_v<TypeParam, lawn::testing::SGDPair>) {  // which counts nothing
    expect_refusal(
        [&] {
          lawn::reset_state(device, {a[3], a[0], a[2]});
        },
        "expected all parameters of group 0 that share a step count, got some without "
        "parameter 1");
  }
  expect_refusal(
      [&] {
        lawn::reset_state(device, {a[3], b[4]});
      },
      "in place 1 of the list that it does not hold");
  lawn::testing::set_pulling_gradients(a, 3);
  lawn::testing::set_pulling_gradients(b, 3);
  device.step();
  host.step();
  expect_equal(a, b, "nothing was changed");
}

TEST(CapturableReset, RefusesADampeningThatSparesTheFirstStep) {
  const auto a = lawn::testing::parameters(torch::kFloat);
  const auto options = torch::optim::SGDOptions(0.1).momentum(0.9).dampening(0.5);
  lawn::FusedSGD optimizer(a, options);
  lawn::testing::set_pulling_gradients(a, 0);
  optimizer.step();
  lawn::reset_state(optimizer);
  optimizer.step();
  optimizer.make_capturable();
  expect_refusal([&] { lawn::reset_state(optimizer); },
                 "expected no dampening, got some in group 0");
}

TEST(CapturableReset, RefusesADampeningAlsoWhileTheMomentumIsZero) {
  const auto a = lawn::testing::parameters(torch::kFloat);
  lawn::FusedSGD optimizer(a, torch::optim::SGDOptions(0.1).momentum(0.9).dampening(0.5));
  optimizer.make_capturable();
  lawn::testing::set_pulling_gradients(a, 0);
  optimizer.step();
  static_cast<torch::optim::SGDOptions&>(optimizer.param_groups()[0].options()).momentum(0);
  expect_refusal([&] { lawn::reset_state(optimizer); },
                 "expected no dampening, got some in group 0");
}

TYPED_TEST(Capturable, StepsParametersWithoutElements) {
  auto full = torch::ones({3}).requires_grad_();
  auto empty = torch::zeros({0, 3}).requires_grad_();
  typename TypeParam::Fused optimizer(Tensors{empty, full}, TypeParam::options().front());
  optimizer.make_capturable();
  for (auto& parameter : {empty, full}) parameter.mutable_grad() = torch::ones_like(parameter);
  for (int step = 0; step < 2; ++step) optimizer.step();
  EXPECT_TRUE(full.lt(1).all().template item<bool>());
}

TYPED_TEST(Capturable, StepsGroupsThatAreAddedLater) {
  const auto options = TypeParam::options().back();
  torch::manual_seed(3);
  const auto a = lawn::testing::parameters(torch::kFloat);
  const auto b = copies(a);
  typename TypeParam::Fused device(Tensors{a[0]}, options);
  typename TypeParam::Fused host(Tensors{b[0]}, options);
  device.make_capturable();
  for (int64_t step = 0; step < 6; ++step) {
    lawn::testing::set_pulling_gradients(a, step);
    lawn::testing::set_pulling_gradients(b, step);
    if (step == 3) {
      device.add_param_group(torch::optim::OptimizerParamGroup(Tensors{a[1], a[2]}));
      host.add_param_group(torch::optim::OptimizerParamGroup(Tensors{b[1], b[2]}));
    }
    device.step();
    host.step();
    expect_equal(a, b, "step " + std::to_string(step));
  }
}

TYPED_TEST(Capturable, RefusesInACaptureWhatAReplayWouldNotDo) {
  const auto a = lawn::testing::parameters(torch::kFloat);
  const Tensors before = copies(a);
  auto optimizer = TestFixture::in_two_groups(a, TypeParam::options().back());
  lawn::testing::set_pulling_gradients(a, 0);
  {
    const PretendedCapture capture;
    expect_refusal([&] { optimizer.make_capturable(); },
                   "call make_capturable() before the capture");
    expect_refusal([&] { optimizer.step(); },
                   "expected make_capturable() before a capture, whose replays would otherwise "
                   "repeat one learning rate and one step count");
  }
  expect_equal(a, before, "after a refusal");
  EXPECT_FALSE(optimizer.capturable());
  optimizer.make_capturable();
  {
    const PretendedCapture capture;
    expect_refusal([&] { optimizer.step(); }, "expected a step before the capture");
    expect_refusal([&] { optimizer.upload_learning_rates(); }, "not within a capture");
    bool called = false;
    expect_refusal([&] { optimizer.step([&] { return called = true, torch::ones({}); }); },
                   "expected no closure in a capture");
    EXPECT_FALSE(called);
  }
  expect_equal(a, before, "after refusals");
  optimizer.step();
  const Tensors after = copies(a);
  {
    const PretendedCapture capture;
    a[1].mutable_grad() = torch::Tensor();
    if (!std::is_same_v<TypeParam, lawn::testing::SGDPair>) {  // which counts nothing
      expect_refusal([&] { optimizer.step(); }, "the same parameters had gradients");
      expect_equal(a, after, "after refusals");
    }
    optimizer.download_step_counts();
  }
}

TYPED_TEST(Capturable, RefusesWhatTheFusedFunctionDoesNotTake) {
  const auto weights = lawn::testing::parameters(torch::kFloat);
  const auto gaps = torch::randn({4, 6}).slice(1, 0, 6, 2).requires_grad_();
  typename TypeParam::Fused optimizer(Tensors{weights[0], gaps}, TypeParam::options().front());
  lawn::testing::set_pulling_gradients({weights[0], gaps}, 0);
  optimizer.make_capturable();
  const Tensors before = copies({weights[0], gaps});
  expect_refusal([&] { optimizer.step(); }, "takes, got one of shape [4, 3] in group 0");
  expect_equal({weights[0], gaps}, before, "after the refusal");
}

TEST(Capture, IsNotNoticedOnAGpuWithoutKernels) {
  const auto* kernels = std::exchange(lawn::sphere::cuda::entries, nullptr);
  EXPECT_TRUE(lawn::detail::capture::notices_captures(torch::kCPU));
  EXPECT_FALSE(lawn::detail::capture::notices_captures(torch::kCUDA));
  EXPECT_FALSE(lawn::detail::capture::is_capturing(torch::kCUDA));
  lawn::sphere::cuda::entries = kernels;
}

TEST(CapturableCounts, AreOfEachParameter) {
  const auto weights = lawn::testing::parameters(torch::kFloat);
  lawn::FusedAdam optimizer(weights, 0.01);
  optimizer.make_capturable();
  for (int64_t step = 0; step < 9; ++step) {
    set_some_gradients(weights, step);
    optimizer.step();
  }
  const auto count = [&](std::size_t i) {
    const auto& state = *optimizer.state().at(weights[i].unsafeGetTensorImpl());
    return static_cast<const torch::optim::AdamParamState&>(state).step();
  };
  optimizer.download_step_counts();
  EXPECT_EQ(count(0), 7);
  EXPECT_EQ(count(1), 6);
  EXPECT_EQ(count(2), 9);
}

}  // namespace
