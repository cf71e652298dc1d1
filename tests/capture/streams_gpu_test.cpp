// SPDX-License-Identifier: Apache-2.0
//
// Parameters that were made on another stream than the one that steps them.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/support/gpu.h"

// Where the program links the CUDA runtime, which LibTorch's CUDA headers call, too.
#if defined(LAWN_CUDA_RUNTIME)

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/cuda/Sleep.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstddef>
#include <cstdint>

#include <lawn/lawn.h>

#include "tests/support/tolerance.h"

namespace {

/// About a tenth of a second of a GPU's time.
constexpr int64_t kLongCycles = 200'000'000;
constexpr int kWarmups = 3;
constexpr int kSteps = 12;

class ParametersOfAnotherStream : public lawn::testing::Gpu {
 protected:
  /// Its last change is under way when this returns.
  static torch::nn::Sequential make_late() {
    torch::manual_seed(11);
    torch::nn::Sequential model(torch::nn::Linear(40, 300), torch::nn::ReLU(),
                                torch::nn::Linear(300, 10));
    model->to(device());
    const torch::NoGradGuard no_grad;
    at::cuda::sleep(kLongCycles);
    for (auto& parameter : model->parameters()) parameter.mul_(1.5);
    return model;
  }

  /// Numbers on the device, free for half of the steps.
  static lawn::LAWN<lawn::FusedAdam> make_optimizer(torch::nn::Sequential& model) {
    lawn::LAWN optimizer(
        lawn::FusedAdam(model->parameters(), 0.01), lawn::select_all_weights(*model),
        lawn::LAWNOptions().free_steps(kSteps / 2).zero_norm(lawn::ZeroNorm::kLeaveFree));
    optimizer.make_capturable();
    return optimizer;
  }

  static void backward(torch::nn::Sequential& model, const torch::Tensor& batch) {
    model->forward(batch).square().mean().backward();
  }

  static void expect_close(torch::nn::Sequential& a, torch::nn::Sequential& b) {
    torch::cuda::synchronize();
    for (std::size_t i = 0; i < a->parameters().size(); ++i) {
      const auto expected = b->parameters()[i];
      const auto error = (a->parameters()[i] - expected).abs().max() / expected.abs().max();
      EXPECT_LE(error.item<double>(), lawn::testing::tolerance(torch::kFloat).trajectory) << i;
    }
  }

  /// `steps` eager steps of a model that was made on the stream that steps it.
  static torch::nn::Sequential stepped_on_one_stream(const torch::Tensor& batch) {
    auto model = make_late();
    auto optimizer = make_optimizer(model);
    for (int step = 0; step < kSteps; ++step) {
      optimizer.zero_grad();
      backward(model, batch);
      optimizer.step();
    }
    return model;
  }
};

TEST_F(ParametersOfAnotherStream, AreSteppedWhereTheStepsWaitForThem) {
  const auto batch = torch::randn({16, 40}, device());
  auto expected = stepped_on_one_stream(batch);
  torch::cuda::synchronize();
  const auto made_on = c10::cuda::getStreamFromPool();
  const auto stepped_on = c10::cuda::getStreamFromPool();
  ASSERT_NE(made_on, stepped_on);
  torch::nn::Sequential model = nullptr;
  {
    const c10::cuda::CUDAStreamGuard guard(made_on);
    model = make_late();
  }
  at::cuda::CUDAEvent made;
  made.record(made_on);
  made.block(stepped_on);
  const c10::cuda::CUDAStreamGuard guard(stepped_on);
  auto optimizer = make_optimizer(model);
  for (int step = 0; step < kSteps; ++step) {
    optimizer.zero_grad();
    backward(model, batch);
    optimizer.step();
  }
  EXPECT_EQ(optimizer.phase(), lawn::Phase::kConstrained);
  expect_close(model, expected);
}

TEST_F(ParametersOfAnotherStream, AreSteppedInAGraph) {
  const auto batch = torch::randn({16, 40}, device());
  auto expected = stepped_on_one_stream(batch);
  torch::cuda::synchronize();
  const auto made_on = c10::cuda::getStreamFromPool();
  const auto stepped_on = c10::cuda::getStreamFromPool();
  torch::nn::Sequential model = nullptr;
  {
    const c10::cuda::CUDAStreamGuard guard(made_on);
    model = make_late();
  }
  auto optimizer = [&] {  // its numbers are written on the stream that made the parameters, too
    const c10::cuda::CUDAStreamGuard guard(made_on);
    return make_optimizer(model);
  }();
  at::cuda::CUDAEvent made;
  made.record(made_on);
  made.block(stepped_on);
  const c10::cuda::CUDAStreamGuard guard(stepped_on);
  int step = 0;
  for (; step < kWarmups; ++step) {
    optimizer.zero_grad();
    backward(model, batch);
    optimizer.step();
  }
  optimizer.zero_grad();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  backward(model, batch);
  optimizer.step();
  graph.capture_end();
  for (; step < kSteps; ++step) {
    optimizer.upload_learning_rates();
    graph.replay();
  }
  EXPECT_EQ(optimizer.steps(), kSteps);
  expect_close(model, expected);
}

}  // namespace

#else

/// So that the program says why it is skipped.
TEST(ParametersOfAnotherStream, NeedTheCUDARuntime) {
  GTEST_SKIP() << "built without nvcc: there is no CUDA runtime to link";
}

#endif
