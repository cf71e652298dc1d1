// SPDX-License-Identifier: Apache-2.0
//
// GradScaler and clip_grad_norm_ on a GPU and on CPU and GPU at once, against float64 on the CPU.
// Neither needs lawn's kernels.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <lawn/clip_grad_norm.h>
#include <lawn/grad_scaler.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::GradScaler;
using lawn::GradScalerOptions;
using lawn::testing::expect_refusal;
using lawn::testing::tolerance;
using Tensors = std::vector<torch::Tensor>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kScale = 1024;
constexpr torch::ScalarType kDtypes[] = {torch::kDouble, torch::kFloat, torch::kBFloat16,
                                         torch::kHalf};
const torch::Device kCpu = torch::kCPU;
const torch::Device kGpu(torch::kCUDA, 0);

class AmpOnAGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU that LibTorch can use";
    torch::manual_seed(7);
  }

  /// A parameter with a gradient.
  static torch::Tensor parameter(torch::Device device, torch::ScalarType dtype, int64_t size) {
    const auto like = torch::TensorOptions(device).dtype(dtype);
    auto made = torch::randn({size}, like).requires_grad_();
    made.mutable_grad() = torch::randn({size}, like);
    return made;
  }

  /// Work that keeps the GPU busy for a while, so that a copy from it that nobody waits for is late.
  static void keep_busy() {
    auto matrix = torch::randn({4096, 4096}, kGpu);
    for (int i = 0; i < 20; ++i) matrix = torch::mm(matrix, matrix).mul_(1e-3);
  }

  static Tensors gradients_of(const Tensors& parameters) {
    Tensors all;
    for (const auto& p : parameters) {
      all.push_back(p.grad().to(kCpu, torch::kDouble, /*non_blocking=*/false, /*copy=*/true));
    }
    return all;
  }

  static Tensors values_of(const Tensors& parameters) {
    Tensors all;
    for (const auto& p : parameters) {
      all.push_back(p.detach().to(kCpu, torch::kDouble, /*non_blocking=*/false, /*copy=*/true));
    }
    return all;
  }

  static void expect_near(const Tensors& actual, const Tensors& expected, const Tensors& like) {
    for (std::size_t i = 0; i < actual.size(); ++i) {
      const double error = (actual[i] - expected[i]).abs().max().item<double>();
      const double bound = tolerance(like[i].scalar_type()).step;
      EXPECT_LE(error, bound * expected[i].abs().max().item<double>())
          << i << ", " << like[i].scalar_type() << " on " << like[i].device();
    }
  }

  static void expect_same(const Tensors& actual, const Tensors& expected) {
    for (std::size_t i = 0; i < actual.size(); ++i) {
      EXPECT_TRUE(torch::equal(actual[i], expected[i])) << i;
    }
  }

  /// Unscales, steps and updates, with the scale on `device`.
  /// @return whether the optimizer has stepped
  static bool iterate(GradScaler& scaler, const Tensors& parameters, torch::Device device,
                      double lr) {
    torch::optim::SGD sgd(parameters, torch::optim::SGDOptions(lr));
    static_cast<void>(scaler.scale(torch::zeros({}, device)));
    const bool stepped = scaler.step(sgd);
    scaler.update();
    return stepped;
  }
};

TEST_F(AmpOnAGpu, UnscalesAndStepsForGradientsOfFloatAndDouble) {
  for (const auto& scale_on : {kGpu, kCpu}) {
    const Tensors parameters{parameter(kGpu, torch::kFloat, 1000),
                             parameter(kGpu, torch::kDouble, 300)};
    const Tensors before = values_of(parameters);
    Tensors expected = gradients_of(parameters);
    GradScaler scaler(GradScalerOptions().init_scale(kScale));
    keep_busy();
    EXPECT_TRUE(iterate(scaler, parameters, scale_on, 1));
    for (auto& gradient : expected) gradient.div_(kScale);
    expect_near(gradients_of(parameters), expected, parameters);
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = before[i] - expected[i];
    expect_near(values_of(parameters), expected, parameters);
  }
}

TEST_F(AmpOnAGpu, RefusesBFloat16AndHalfBeforeAnythingIsChanged) {
  const auto expect_refused = [](torch::ScalarType dtype, const std::string& message) {
    const Tensors parameters{parameter(kGpu, torch::kFloat, 100), parameter(kGpu, dtype, 100),
                             parameter(kCpu, torch::kFloat, 100)};
    const Tensors gradients = gradients_of(parameters);
    torch::optim::SGD sgd(parameters, torch::optim::SGDOptions(1));
    GradScaler scaler(GradScalerOptions().init_scale(kScale));
    static_cast<void>(scaler.scale(torch::zeros({}, kGpu)));
    expect_refusal([&] { scaler.unscale_(sgd); }, message);
    expect_same(gradients_of(parameters), gradients);
    expect_refusal([&] { scaler.step(sgd); }, message);
    expect_same(gradients_of(parameters), gradients);
  };
  expect_refused(torch::kBFloat16, "got BFloat16 on cuda:0");
  expect_refused(torch::kHalf, "attempting to unscale FP16 gradients");
}

TEST_F(AmpOnAGpu, DividesBothDevicesGradientsByTheScale) {
  for (const auto& scale_on : {kCpu, kGpu}) {
    const Tensors parameters{
        parameter(kCpu, torch::kFloat, 1000), parameter(kGpu, torch::kFloat, 2'000'000),
        parameter(kCpu, torch::kBFloat16, 100), parameter(kGpu, torch::kDouble, 1000)};
    Tensors expected = gradients_of(parameters);
    for (auto& gradient : expected) gradient.div_(kScale);
    GradScaler scaler(GradScalerOptions().init_scale(kScale));
    keep_busy();
    EXPECT_TRUE(iterate(scaler, parameters, scale_on, 0.1));
    expect_near(gradients_of(parameters), expected, parameters);
  }
}

TEST_F(AmpOnAGpu, SkipsTheStepForAnInfiniteGradientOnEitherDevice) {
  for (const auto& scale_on : {kCpu, kGpu}) {
    for (std::size_t infinite = 0; infinite < 2; ++infinite) {
      SCOPED_TRACE("scale on " + scale_on.str() + ", gradient " + std::to_string(infinite));
      const Tensors parameters{parameter(kCpu, torch::kFloat, 1000),
                               parameter(kGpu, torch::kFloat, 2'000'000)};
      const Tensors before = values_of(parameters);
      GradScaler scaler(GradScalerOptions().init_scale(kScale));
      keep_busy();
      parameters[infinite].grad()[500] = kInfinity;
      EXPECT_FALSE(iterate(scaler, parameters, scale_on, 1));
      expect_same(values_of(parameters), before);
      EXPECT_EQ(scaler.get_scale(), kScale / 2);
      for (const auto& p : parameters) p.grad().fill_(1);
      EXPECT_TRUE(iterate(scaler, parameters, scale_on, 1));
      EXPECT_EQ(scaler.get_scale(), kScale / 2);
    }
  }
}

/// The norm is right to a float32's precision at least, and each gradient is scaled by it to the
/// precision of its own dtype.
void expect_clips(const Tensors& parameters, const Tensors& gradients, const torch::Tensor& norm,
                  const Tensors& clipped, double max_norm) {
  Tensors flat;
  for (const auto& gradient : gradients) flat.push_back(gradient.reshape({-1}));
  const double expected = torch::cat(flat).norm().item<double>();
  EXPECT_NEAR(norm.item<double>(), expected, tolerance(torch::kFloat).step * expected);
  EXPECT_EQ(norm.device(), parameters[0].device());
  const double factor = max_norm / (norm.item<double>() + 1e-6);
  for (std::size_t i = 0; i < clipped.size(); ++i) {
    const auto scaled = gradients[i] * factor;
    const double error = (clipped[i] - scaled).abs().max().item<double>();
    EXPECT_LE(error,
              tolerance(parameters[i].scalar_type()).step * scaled.abs().max().item<double>())
        << i;
  }
}

TEST_F(AmpOnAGpu, ClipsGradientsOfEveryDtype) {
  for (const auto dtype : kDtypes) {
    SCOPED_TRACE(c10::toString(dtype));
    const Tensors parameters{parameter(kGpu, dtype, 1000), parameter(kGpu, dtype, 77)};
    const Tensors gradients = gradients_of(parameters);
    const auto norm = lawn::clip_grad_norm_(parameters, 0.5);
    expect_clips(parameters, gradients, norm, gradients_of(parameters), 0.5);
  }
}

TEST_F(AmpOnAGpu, ClipsGradientsOfAllDtypesOnBothDevices) {
  for (const bool cpu_first : {false, true}) {
    SCOPED_TRACE(cpu_first ? "CPU first" : "GPU first");
    Tensors parameters;
    for (const auto dtype : kDtypes) {
      parameters.push_back(parameter(cpu_first ? kCpu : kGpu, dtype, 1000));
      parameters.push_back(parameter(cpu_first ? kGpu : kCpu, dtype, 500'000));
    }
    const Tensors gradients = gradients_of(parameters);
    keep_busy();
    for (const auto& p : parameters) p.grad().mul_(1);  // behind that work
    const auto norm = lawn::clip_grad_norm_(parameters, 0.5);
    expect_clips(parameters, gradients, norm, gradients_of(parameters), 0.5);
  }
}

}  // namespace
