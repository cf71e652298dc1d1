// SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels of the folded steps with their numbers in memory, as a captured step has them,
// on the host: against plain loops over float64 that get the numbers by value.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include <lawn/sphere/usable_radii.h>

#include "tests/support/cuda_emulation/folded.cuh"

namespace {

using lawn::detail::folded::DeviceAdam;
using lawn::detail::folded::DeviceSGD;
using lawn::detail::folded::kPreparedBytes;
using lawn::detail::folded::OnDevice;

/// What lies on the device: a step's numbers and LAWN's clock.
struct Memory {
  double lr = 0.25;
  float step_count = 3;
  std::array<int64_t, 2> clock = {5, 7};
  double radius_scale = 1;

  OnDevice at() const { return {&lr, &step_count, clock.data(), radius_scale}; }
};

using DeviceStep = std::variant<DeviceAdam, DeviceSGD>;

struct NamedDevice {
  const char* name;
  DeviceStep step;
};

const NamedDevice kDeviceSteps[] = {{"Adam", DeviceAdam{0.5, 0.75, 0.01, 0, {}}},
                                    {"AdamW", DeviceAdam{0.5, 0.75, 0.01, 0.5, {}}},
                                    {"SGD", DeviceSGD{0, 0.5, false, false, {}}},
                                    {"Momentum", DeviceSGD{0.75, 0.25, false, false, {}}},
                                    {"FirstNesterov", DeviceSGD{0.75, 0, true, true, {}}}};

/// The same step with the numbers by value.
Step by_value(const DeviceStep& step, const Memory& memory) {
  if (const auto* sgd = std::get_if<DeviceSGD>(&step)) {
    return SGD{memory.lr, sgd->momentum, sgd->dampening, sgd->nesterov, sgd->first};
  }
  const auto& adam = std::get<DeviceAdam>(step);
  const double t = memory.step_count;
  return Adam{adam.beta1,
              adam.beta2,
              adam.eps,
              memory.lr / (1 - std::pow(adam.beta1, t)),
              std::sqrt(1 - std::pow(adam.beta2, t)),
              1 - memory.lr * adam.decoupled_decay};
}

class CapturableKernels : public FoldedKernels {
 protected:
  /// Steps all layers with the numbers in `memory`.
  /// @return how many launches it took
  static int run_on_device(const std::vector<Stepped>& layers, DeviceStep step,
                           const Memory& memory, const Limits* limits = nullptr) {
    namespace cuda = lawn::detail::folded::cuda;
    std::vector<lawn::detail::folded::FlatLayer> flats;
    for (const Stepped& stepped : layers) {
      lawn::detail::folded::FlatLayer flat{lawn::sphere::flatten(stepped.layer), nullptr, nullptr};
      if (stepped.first_moment.defined()) flat.first_moment = stepped.first_moment.data_ptr();
      if (stepped.second_moment.defined()) flat.second_moment = stepped.second_moment.data_ptr();
      flats.push_back(flat);
    }
    const auto count = static_cast<int64_t>(flats.size());
    const auto& entries = cuda::kEntries;
    const auto bytes = static_cast<std::size_t>(
        kPreparedBytes + (limits == nullptr ? entries.workspace_bytes(flats.data(), count)
                                            : cuda::workspace_bytes(flats.data(), count, *limits)));
    const std::unique_ptr<char[]> workspace(new char[bytes]);
    std::memset(workspace.get(), 0xff, bytes);

    const int before = Machine::get().launches;
    const char* error = nullptr;
    if (auto* adam = std::get_if<DeviceAdam>(&step)) {
      adam->at = memory.at();
      error = limits == nullptr
                  ? entries.device_adam(flats.data(), count, *adam, workspace.get(), nullptr)
                  : cuda::launch_step_on_device<cuda::AdamStep>(
                        flats.data(), count, Adam{adam->beta1, adam->beta2, adam->eps, 1, 1, 1},
                        adam->decoupled_decay, adam->at, workspace.get(), nullptr, *limits);
    } else {
      auto& sgd = std::get<DeviceSGD>(step);
      sgd.at = memory.at();
      EXPECT_EQ(limits, nullptr);
      error = entries.device_sgd(flats.data(), count, sgd, workspace.get(), nullptr);
    }
    EXPECT_EQ(error, nullptr) << error;
    return Machine::get().launches - before;
  }

  /// Steps all layers, and a twin of each, which at the switch takes its radii first.
  /// @return how many launches it took
  static int step_on_device_and_compare(const std::vector<Stepped>& layers, const DeviceStep& step,
                                        const Memory& memory, const Limits* limits = nullptr) {
    std::vector<Stepped> twins;
    for (const Stepped& stepped : layers) {
      twins.push_back(twin_of(stepped));
      if (memory.clock[0] != memory.clock[1] || !stepped.layer.gradient.defined()) continue;
      const auto& layer = stepped.layer;
      const auto norms = lawn::sphere::aten::norm(twins.back().layer);
      twins.back().layer.radius.copy_(lawn::sphere::usable_radii(
          norms.to(layer.radius.scalar_type()), memory.radius_scale, layer.weight.scalar_type(),
          static_cast<double>(layer.weight.numel() / layer.radius.numel())));
    }
    const int launches = run_on_device(layers, step, memory, limits);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto& [layer, first_moment, second_moment] = layers[i];
      const auto type = layer.weight.scalar_type();
      const auto what = "layer " + std::to_string(i) + " of " +
                        std::to_string(layer.weight.numel()) + ' ' + c10::toString(type) + ", ";
      step_twin(twins[i], by_value(step, memory));
      expect_near(layer.weight, twins[i].layer.weight, type, what + "weight");
      expect_near(first_moment, twins[i].first_moment, type, what + "first moment");
      expect_near(second_moment, twins[i].second_moment, type, what + "second moment");
      expect_near(layer.radius, twins[i].layer.radius, layer.radius.scalar_type(), what + "radius");
    }
    return launches;
  }

  /// Layers that lie in every worker.
  static std::vector<Stepped> make_all(const DeviceStep& step, torch::ScalarType type,
                                       double decay = 0) {
    const Step kind = by_value(step, Memory());
    std::vector<Stepped> layers;
    for (const int64_t numel :
         {int64_t{31}, int64_t{33}, kBlockSphere, kBlockSphere + 1, 3 * kChunk + 17, 5 * kChunk}) {
      layers.push_back(make_stepped(kind, type, 1, numel, {1, 1, 1, 1}, decay));
    }
    for (const int64_t spheres : {3, 40}) {
      layers.push_back(make_stepped(kind, type, spheres, 50, {}, decay));
    }
    layers.push_back(make_stepped(kind, type, 2, kBlockSphere + 5, {}, decay));
    return layers;
  }

  static void free_all(const std::vector<Stepped>& layers) {
    for (const auto& stepped : layers) stepped.layer.radius.zero_();
  }
};

class CapturableStep
    : public CapturableKernels,
      public ::testing::WithParamInterface<std::tuple<NamedDevice, torch::ScalarType>> {
 protected:
  static const DeviceStep& step() { return std::get<0>(GetParam()).step; }
  static torch::ScalarType type() { return std::get<1>(GetParam()); }
};

TEST_P(CapturableStep, EqualsTheTwinAfterTheSwitch) {
  Memory memory;
  memory.clock = {8, 7};
  EXPECT_EQ(step_on_device_and_compare(make_all(step(), type()), step(), memory), 4);
}

TEST_P(CapturableStep, EqualsTheTwinBeforeTheSwitchAndTakesNoRadii) {
  const auto layers = make_all(step(), type(), 0.25);
  free_all(layers);
  step_on_device_and_compare(layers, step(), Memory());
  for (const auto& stepped : layers) {
    EXPECT_TRUE(torch::equal(stepped.layer.radius, torch::zeros_like(stepped.layer.radius)));
  }
}

TEST_P(CapturableStep, TakesTheRadiiAtTheSwitch) {
  const auto layers = make_all(step(), type(), 0.25);
  free_all(layers);
  Memory memory;
  memory.clock = {7, 7};
  EXPECT_EQ(step_on_device_and_compare(layers, step(), memory), 4);
  for (const auto& stepped : layers) {
    EXPECT_TRUE((stepped.layer.radius > 0).all().item<bool>());
  }
}

TEST_P(CapturableStep, LeavesFreeAtTheSwitchWhatHasNoUsableNorm) {
  const Step kind = by_value(step(), Memory());
  for (const int64_t numel : {int64_t{40}, kBlockSphere + 1}) {
    std::vector<Stepped> layers;
    for (const int64_t spheres : {1, 3}) {
      layers.push_back(make_stepped(kind, type(), spheres, numel, {}, 0.5));
      layers.back().layer.weight.zero_();
      layers.push_back(make_stepped(kind, type(), spheres, numel, {}, 0.5));
      layers.back().layer.weight.view({-1})[1] = std::numeric_limits<double>::infinity();
      layers.push_back(make_stepped(kind, type(), spheres, numel, {}, 0.5));
      layers.push_back(make_stepped(kind, type(), spheres, numel, {}, 0.5));
      layers.back().layer.gradient = torch::Tensor();
    }
    free_all(layers);
    Memory memory;
    memory.clock = {7, 7};
    step_on_device_and_compare(layers, step(), memory);
    EXPECT_EQ(layers[0].layer.radius.item<double>(), 0);
    EXPECT_EQ(layers[1].layer.radius.item<double>(), 0);
    EXPECT_GT(layers[2].layer.radius.item<double>(), 0);
    EXPECT_EQ(layers[3].layer.radius.item<double>(), 0) << "a layer without a gradient is not read";
  }
}

TEST_P(CapturableStep, TakesScaledRadiiAtTheSwitch) {
  for (const double scale : {0.5, 3.0}) {
    const auto layers = make_all(step(), type(), 0.25);
    free_all(layers);
    std::vector<torch::Tensor> norms;
    for (const auto& stepped : layers) norms.push_back(lawn::sphere::aten::norm(stepped.layer));
    Memory memory;
    memory.clock = {7, 7};
    memory.radius_scale = scale;
    EXPECT_EQ(step_on_device_and_compare(layers, step(), memory), 4);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto& layer = layers[i].layer;
      EXPECT_TRUE(torch::allclose(layer.radius, scale * norms[i], 1e-5)) << i;
      EXPECT_TRUE(torch::allclose(lawn::sphere::aten::norm(layer), scale * norms[i],
                                  tolerance(type()).norm))
          << i << ": the step ends on the scaled sphere";
    }
    memory.clock = {8, 7};
    memory.radius_scale = 1e9;  // of no effect after the switch
    if (!std::holds_alternative<DeviceSGD>(step()) || !std::get<DeviceSGD>(step()).first) {
      step_on_device_and_compare(layers, step(), memory);
    }
  }
}

TEST_P(CapturableStep, LeavesFreeAtTheSwitchWhatCannotBeAScaledRadius) {
  const auto expect_free = [&](double weights, double scale) {
    const auto layers = make_all(step(), type(), 0.25);
    free_all(layers);
    for (const auto& stepped : layers) stepped.layer.weight.mul_(weights);
    Memory memory;
    memory.clock = {7, 7};
    memory.radius_scale = scale;
    step_on_device_and_compare(layers, step(), memory);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      EXPECT_EQ(layers[i].layer.radius.abs().max().item<double>(), 0) << i << ", " << scale;
    }
  };
  switch (type()) {
    case torch::kDouble:
      expect_free(1, 1.7e308);
      expect_free(1e-3, 1e-323);
      break;
    case torch::kHalf:
      expect_free(1, 1e6);
      expect_free(1e-3, 1e-9);
      break;
    default:
      expect_free(1, 1e39);
      expect_free(1e-3, 1e-46);
  }
}

TEST_P(CapturableStep, FollowsTheMemoryFromStepToStep) {
  const auto layers = make_all(step(), type());
  free_all(layers);
  Memory memory;
  const bool is_first =
      std::holds_alternative<DeviceSGD>(step()) && std::get<DeviceSGD>(step()).first;
  for (int i = 0; i < (is_first ? 1 : 4); ++i) {
    step_on_device_and_compare(layers, step(), memory);
    memory.lr *= 0.5;
    memory.step_count += 1;
    memory.clock[0] += 1;
  }
}

std::string device_step_name(const ::testing::TestParamInfo<CapturableStep::ParamType>& info) {
  return std::string(std::get<0>(info.param).name) + c10::toString(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, CapturableStep,
                         ::testing::Combine(::testing::ValuesIn(kDeviceSteps),
                                            ::testing::Values(torch::kDouble, torch::kFloat,
                                                              torch::kBFloat16, torch::kHalf)),
                         device_step_name);

TEST_F(CapturableKernels, TakeTwoLaunchesWhereABlockHoldsEachSphere) {
  for (const auto& [name, step] : kDeviceSteps) {
    const Step kind = by_value(step, Memory());
    EXPECT_EQ(step_on_device_and_compare({make_stepped(kind, torch::kFloat, 1, kBlockSphere)}, step,
                                         Memory()),
              2)
        << name;
    EXPECT_EQ(run_on_device({}, step, Memory()), 0) << name;
  }
}

TEST_F(CapturableKernels, TakeNoRadiiWithoutAClock) {
  const DeviceAdam adam{0.5, 0.75, 0.01, 0, {}};
  const auto stepped = make_stepped(by_value(adam, Memory()), torch::kFloat, 1, 100);
  stepped.layer.radius.zero_();
  const Memory memory;
  lawn::detail::folded::FlatLayer flat{lawn::sphere::flatten(stepped.layer),
                                       stepped.first_moment.data_ptr(),
                                       stepped.second_moment.data_ptr()};
  auto step = adam;
  step.at = {&memory.lr, &memory.step_count, nullptr};
  alignas(16) std::array<char, kPreparedBytes> workspace{};
  EXPECT_EQ(
      lawn::detail::folded::cuda::kEntries.device_adam(&flat, 1, step, workspace.data(), nullptr),
      nullptr);
  EXPECT_EQ(stepped.layer.radius.item<float>(), 0);
}

TEST_F(CapturableKernels, GiveTheSameBitsInEveryOrderOfThreadsAndBlocks) {
  Limits limits;
  limits.warp_sphere = 64;
  limits.block_sphere = 256;
  limits.chunk = 64;
  limits.many_spheres = 8;
  const DeviceStep adam = kDeviceSteps[1].step;
  const auto make = [&] {
    torch::manual_seed(4);
    std::vector<Stepped> layers;
    for (const int64_t numel : {10, 250, 700}) {
      for (const int64_t spheres : {1, 5}) {
        layers.push_back(
            make_stepped(by_value(adam, Memory()), torch::kFloat, spheres, numel, {}, 0.25));
      }
    }
    return layers;
  };
  Memory memory;
  memory.clock = {8, 7};
  const auto expected = make();
  run_step(expected, by_value(adam, memory), &limits);
  std::vector<torch::Tensor> weights;
  std::vector<torch::Tensor> radii;
  for (unsigned run_index = 0; run_index < 4; ++run_index) {
    Machine::get().order_for_run(run_index);
    const auto layers = make();
    run_on_device(layers, adam, memory, &limits);
    const auto switching = make();
    free_all(switching);
    Memory at_switch;
    at_switch.clock = {7, 7};
    run_on_device(switching, adam, at_switch, &limits);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto& weight = layers[i].layer.weight;
      if (run_index == 0) {
        // Its threads share the elements otherwise, and so add the squares in another order.
        expect_near(weight, expected[i].layer.weight.to(torch::kDouble),
                    tolerance(torch::kFloat).norm, weight, "by value, " + std::to_string(i));
        weights.push_back(weight);
        radii.push_back(switching[i].layer.radius);
      }
      EXPECT_TRUE(torch::equal(weight, weights[i])) << run_index << ", " << i;
      EXPECT_TRUE(torch::equal(switching[i].layer.radius, radii[i])) << run_index << ", " << i;
    }
  }
}

TEST_F(CapturableKernels, TellWhetherAStreamIsCapturing) {
  const auto& entries = lawn::sphere::cuda::kEntries;
  Runtime& runtime = Runtime::get();
  EXPECT_FALSE(entries.is_capturing(nullptr));
  runtime.capturing = true;
  EXPECT_TRUE(entries.is_capturing(nullptr));
  runtime.capturing = false;
  runtime.capture_error = cudaErrorStreamCaptureImplicit;  // of the default stream beside a capture
  EXPECT_TRUE(entries.is_capturing(nullptr));
  for (const auto error : {cudaErrorInvalidValue, cudaErrorInsufficientDriver}) {
    runtime.capture_error = error;
    EXPECT_FALSE(entries.is_capturing(nullptr)) << "a step says more of it than a refusal would";
  }
}

TEST_F(CapturableKernels, ReportWhatCudaRefuses) {
  const auto stepped = make_stepped(kSteps[0].step, torch::kFloat, 1, kBlockSphere + 1);
  lawn::detail::folded::FlatLayer flat{lawn::sphere::flatten(stepped.layer),
                                       stepped.first_moment.data_ptr(),
                                       stepped.second_moment.data_ptr()};
  const Memory memory;
  const DeviceAdam adam{0.5, 0.75, 0.01, 0, memory.at()};
  std::vector<char> workspace(static_cast<std::size_t>(
      kPreparedBytes + lawn::detail::folded::cuda::kEntries.workspace_bytes(&flat, 1)));
  const auto step = [&] {
    const char* error =
        lawn::detail::folded::cuda::kEntries.device_adam(&flat, 1, adam, workspace.data(), nullptr);
    return std::string(error == nullptr ? "none" : error);
  };
  Runtime& runtime = Runtime::get();
  runtime.device = 6;
  runtime.function_error = cudaErrorInvalidValue;
  EXPECT_EQ(step(), "emulated error");
  runtime.function_error = cudaSuccess;
  runtime.loads = 0;
  runtime.launch_error = cudaErrorInvalidValue;
  EXPECT_EQ(step(), "emulated error");
  EXPECT_EQ(runtime.loads,
            7);  // two kernels of Adam, one of rescaling, for each length of list; one
  runtime.launch_error = cudaSuccess;
  EXPECT_EQ(step(), "none");
  EXPECT_EQ(runtime.loads, 7);
}

}  // namespace
