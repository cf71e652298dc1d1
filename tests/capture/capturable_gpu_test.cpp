// SPDX-License-Identifier: Apache-2.0
//
// Training steps captured in a CUDA graph and replayed, against eager steps.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/support/gpu.h"

// Where the program links the CUDA runtime, which LibTorch's CUDA headers call, too.
#if defined(LAWN_CUDA_RUNTIME)

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <lawn/lawn.h>

#include "tests/capture/through_the_switch.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::testing::expect_refusal;

constexpr int64_t kFreeSteps = 100;
constexpr int64_t kWarmups = 3;
constexpr int64_t kSteps = 200;
constexpr int64_t kResetAt = 150;

class CapturedStep : public lawn::testing::Gpu {
 protected:
  /// Layers of all roles in the kernels, biases and a norm's weights that are not constrained.
  static torch::nn::Sequential make_model() {
    torch::manual_seed(11);
    torch::nn::Sequential model(
        torch::nn::Linear(40, 300), torch::nn::ReLU(), torch::nn::Linear(300, 400),
        torch::nn::LayerNorm(torch::nn::LayerNormOptions({400})), torch::nn::Linear(400, 10));
    model->to(device());
    return model;
  }

  static torch::Tensor input(int64_t step) {
    torch::manual_seed(1000 + static_cast<uint64_t>(step));
    return torch::randn({16, 40}).to(device());
  }

  /// Warm-up, then decay.
  template <class Optimizer>
  static void set_rate(Optimizer& optimizer, int64_t step) {
    const auto t = static_cast<double>(step);
    const double lr = 0.01 * std::fmin(1, (t + 1) / 20) * (1 - t / (2.0 * kSteps));
    for (auto& group : optimizer.param_groups()) group.options().set_lr(lr);
  }

  static void backward(torch::nn::Sequential& model, const torch::Tensor& batch) {
    model->forward(batch).square().mean().backward();
  }

  /// Calls `action()` in the capture of a graph that is thrown away, with gradients at hand.
  template <class Action>
  static void within_a_capture(torch::nn::Sequential& model, const Action& action) {
    const auto batch = input(0);
    const auto stream = c10::cuda::getStreamFromPool();
    const c10::cuda::CUDAStreamGuard guard(stream);
    backward(model, batch);
    torch::cuda::synchronize();
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    action();
    graph.capture_end();
  }

  static torch::Tensor all_of(torch::nn::Sequential& model) {
    std::vector<torch::Tensor> flat;
    for (const auto& p : model->parameters()) flat.push_back(p.detach().reshape({-1}).cpu());
    return torch::cat(flat);
  }

  /// `make(model)` twice: one optimizer steps eagerly, the other in a graph. The numbers of both
  /// are on the device, so that the kernels are the same; how the host's numbers compare is below.
  template <class Make>
  static void expect_replays_as_eager(const Make& make) {
    auto eager_model = make_model();
    auto model = make_model();
    auto eager = make(eager_model);
    auto optimizer = make(model);
    eager.make_capturable();
    optimizer.make_capturable();

    const auto stream = c10::cuda::getStreamFromPool();
    torch::cuda::synchronize();
    const c10::cuda::CUDAStreamGuard guard(stream);
    const auto batch = input(0);
    int64_t step = 0;
    const auto step_eagerly = [&] {
      eager.zero_grad();
      set_rate(eager, step);
      backward(eager_model, input(step));
      eager.step();
    };
    for (; step < kWarmups; ++step) {
      step_eagerly();
      optimizer.zero_grad();
      set_rate(optimizer, step);
      batch.copy_(input(step));
      backward(model, batch);
      optimizer.step();
    }
    optimizer.zero_grad();  // the graph makes gradients of its own
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    backward(model, batch);
    optimizer.step();
    graph.capture_end();
    for (; step < kSteps; ++step) {
      if (step == kResetAt) {
        lawn::reset_state(eager);
        lawn::reset_state(optimizer);
      }
      step_eagerly();
      set_rate(optimizer, step);
      optimizer.upload_learning_rates();
      batch.copy_(input(step));
      graph.replay();
      if (step % 20 != 0 && step != kFreeSteps && step != kFreeSteps + 1) continue;
      const auto expected = all_of(eager_model);
      const double error =
          ((all_of(model) - expected).abs().max() / expected.abs().max()).template item<double>();
      ASSERT_LE(error, lawn::testing::tolerance(torch::kFloat).trajectory) << "step " << step;
    }
    EXPECT_EQ(optimizer.steps(), kSteps);
    EXPECT_EQ(optimizer.phase(), lawn::Phase::kConstrained);
    for (const auto& layer : optimizer.report().layers) {
      EXPECT_LE(*layer.norm_error, 1e-5) << layer.name;
    }

    // And on, eagerly.
    for (; step < kSteps + 5; ++step) {
      step_eagerly();
      optimizer.zero_grad();
      set_rate(optimizer, step);
      backward(model, input(step));
      optimizer.step();
    }
    EXPECT_EQ(optimizer.steps(), kSteps + 5);
    EXPECT_LE((all_of(model) - all_of(eager_model)).abs().max().template item<double>(),
              lawn::testing::tolerance(torch::kFloat).trajectory);
  }

  static LAWNOptions options() {
    return LAWNOptions().free_steps(kFreeSteps).zero_norm(lawn::ZeroNorm::kLeaveFree);
  }
};

TEST_F(CapturedStep, ReplaysLAWNAroundFusedAdamAcrossTheSwitch) {
  expect_replays_as_eager([](torch::nn::Sequential& model) {
    return LAWN(
        lawn::FusedAdam(model->parameters(), torch::optim::AdamOptions().weight_decay(0.01)),
        lawn::select_all_weights(*model), options());
  });
}

TEST_F(CapturedStep, ReplaysLAWNAroundFusedAdamWPerOutputUnit) {
  expect_replays_as_eager([](torch::nn::Sequential& model) {
    return LAWN(lawn::FusedAdamW(model->parameters()), lawn::select_all_weights(*model),
                options().granularity(lawn::Granularity::kOutputUnit));
  });
}

TEST_F(CapturedStep, ReplaysTheSwitchToScaledRadii) {
  expect_replays_as_eager([](torch::nn::Sequential& model) {
    return LAWN(lawn::FusedAdam(model->parameters()), lawn::select_all_weights(*model),
                options().radius_scale(0.5));
  });
}

TEST_F(CapturedStep, ReplaysLAWNAroundFusedSGDAcrossTheSwitch) {
  expect_replays_as_eager([](torch::nn::Sequential& model) {
    return LAWN(lawn::FusedSGD(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9)),
                lawn::select_all_weights(*model), options());
  });
}

TEST_F(CapturedStep, ReplaysWhatDoesNotFold) {
  expect_replays_as_eager([](torch::nn::Sequential& model) {
    return LAWN(lawn::FusedAdagrad(model->parameters()), lawn::select_all_weights(*model),
                options());
  });
  expect_replays_as_eager([](torch::nn::Sequential& model) {
    return LAWN(lawn::FusedAdam(model->parameters(), torch::optim::AdamOptions().amsgrad(true)),
                lawn::select_all_weights(*model), options());
  });
}

TEST_F(CapturedStep, IsTheStepOfTheHostsNumbers) {
  using lawn::testing::expect_same_through_the_switch;
  const auto lawn = options().free_steps(4);
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    SCOPED_TRACE(c10::toString(dtype));
    expect_same_through_the_switch<lawn::FusedAdam>(torch::optim::AdamOptions().weight_decay(0.1),
                                                    lawn, dtype, 0, device());
    expect_same_through_the_switch<lawn::FusedAdamW>(torch::optim::AdamWOptions(), lawn, dtype, 2,
                                                     device());
    expect_same_through_the_switch<lawn::FusedAdam>(
        torch::optim::AdamOptions(), LAWNOptions(lawn).radius_scale(0.5), dtype, 0, device());
    expect_same_through_the_switch<lawn::FusedSGD>(torch::optim::SGDOptions(0.1).momentum(0.9),
                                                   lawn, dtype, 2, device());
  }
}

TEST_F(CapturedStep, IsRefusedWithoutAWarmUp) {
  auto model = make_model();
  LAWN optimizer(lawn::FusedAdam(model->parameters()), lawn::select_all_weights(*model), options());
  optimizer.make_capturable();
  within_a_capture(model, [&] {
    expect_refusal([&] { optimizer.step(); }, "expected a step before the capture");
    expect_refusal([&] { optimizer.upload_learning_rates(); }, "not within a capture");
  });
}

TEST_F(CapturedStep, IsRefusedForAModelThatWasMovedInPartBeforeAnythingIsChanged) {
  auto model = make_model();
  const auto weights = model->parameters();
  const auto second = weights.end() - 2;  // the last layer's
  lawn::FusedSGD sgd(std::vector<torch::Tensor>(weights.begin(), second), 0.1);
  sgd.add_param_group(
      torch::optim::OptimizerParamGroup(std::vector<torch::Tensor>(second, weights.end())));
  LAWN optimizer(std::move(sgd), lawn::select_all_weights(*model), options().free_steps(0));
  optimizer.make_capturable();
  model[4]->to(torch::kCPU);
  for (const auto& weight : weights) weight.mutable_grad() = torch::ones_like(weight);
  const auto before = all_of(model);
  expect_refusal([&] { optimizer.step(); }, "got one on cpu: move the model before that");
  EXPECT_TRUE(all_of(model).equal(before));
}

TEST_F(CapturedStep, IsRefusedWithItsNumbersOnTheHost) {
  auto model = make_model();
  LAWN constrained(lawn::FusedAdam(model->parameters()), lawn::select_all_weights(*model));
  lawn::FusedAdam plain(model->parameters());
  within_a_capture(model, [&] {
    expect_refusal([&] { constrained.step(); }, "expected make_capturable() before a capture");
    expect_refusal([&] { plain.step(); }, "expected make_capturable() before a capture");
  });
  constrained.step();
  plain.step();
}

}  // namespace

#else

/// So that the program says why it is skipped.
TEST(CapturedStep, NeedsTheCUDARuntime) {
  GTEST_SKIP() << "built without nvcc: there is no CUDA runtime to link";
}

#endif
