// SPDX-License-Identifier: Apache-2.0
//
// How the CUDA table runs: on the current stream, without waiting for the device, without asking it
// for memory, and inside a CUDA graph.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/support/gpu.h"
#include "tests/support/tolerance.h"

// Where the program links the CUDA runtime, which LibTorch's CUDA headers call, too.
#if defined(LAWN_CUDA_RUNTIME)

#include <ATen/cuda/CUDAGraph.h>
#include <ATen/cuda/Sleep.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include <lawn/lawn.h>
#include <lawn/sphere/functions.h>

namespace {

using lawn::testing::close;

using lawn::sphere::kWholeTensor;
using lawn::sphere::Layer;

/// About half a second of a GPU's time.
constexpr int64_t kLongCycles = 1'000'000'000;

class CudaStream : public lawn::testing::Gpu {
 protected:
  static Layer layer_of(torch::IntArrayRef sizes, int64_t unit_dim = kWholeTensor) {
    Layer layer;
    layer.weight = torch::randn(sizes, device());
    layer.gradient = torch::randn(sizes, device());
    layer.unit_dim = unit_dim;
    layer.radius = torch::ones(lawn::sphere::radius_shape(layer), device());
    return layer;
  }

  /// `count` layers of all kinds.
  static std::vector<Layer> layers_of(int count) {
    std::vector<Layer> layers;
    for (int i = 0; i < count; ++i) {
      const int64_t size = i % 100 == 7 ? 100000 : 1 + (i * 37) % 500;
      layers.push_back(i % 3 == 0 ? layer_of({4, size}, 0) : layer_of({size}));
    }
    return layers;
  }
};

void expect_success(cudaError_t error) {
  ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
}

TEST_F(CudaStream, RunsOnTheCurrentStreamAndNoOther) {
  std::vector<Layer> layers = layers_of(10);
  std::vector<torch::Tensor> late;
  for (const auto& layer : layers) late.push_back(torch::randn_like(layer.weight));
  lawn::sphere::rescale_(layers);
  torch::cuda::synchronize();

  const auto stream = c10::cuda::getStreamFromPool();
  {
    const c10::cuda::CUDAStreamGuard guard(stream);
    at::cuda::sleep(kLongCycles / 10);
    // Work on any other stream would be done before these come.
    for (std::size_t i = 0; i < layers.size(); ++i) layers[i].weight.copy_(late[i]);
    lawn::sphere::rescale_(layers);
  }
  stream.synchronize();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Layer expected{late[i], {}, layers[i].radius, layers[i].unit_dim, 0};
    lawn::sphere::aten::rescale_(expected);
    EXPECT_TRUE(close(layers[i].weight, expected.weight)) << i;
  }
}

TEST_F(CudaStream, StepReturnsWhileTheDeviceIsBusy) {
  torch::nn::Sequential model(torch::nn::Linear(300, 400), torch::nn::Linear(400, 10));
  model->to(device());
  lawn::LAWN optimizer(torch::optim::Adam(model->parameters(), 1e-3),
                       lawn::select_all_weights(*model), lawn::LAWNOptions().free_steps(1));
  model->forward(torch::randn({8, 300}, device())).square().mean().backward();
  for (int step = 0; step < 3; ++step) optimizer.step();  // past the switch, which may wait
  ASSERT_EQ(optimizer.phase(), lawn::Phase::kConstrained);
  torch::cuda::synchronize();

  cudaEvent_t done = nullptr;
  expect_success(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
  at::cuda::sleep(kLongCycles);
  optimizer.step();
  expect_success(cudaEventRecord(done, c10::cuda::getCurrentCUDAStream().stream()));
  EXPECT_EQ(cudaEventQuery(done), cudaErrorNotReady) << "step() has waited for the device";
  static_cast<void>(cudaGetLastError());  // not being ready is remembered as an error
  expect_success(cudaEventSynchronize(done));
  expect_success(cudaEventDestroy(done));
}

TEST_F(CudaStream, AsksTheDeviceForNoMemoryAfterTheFirstStep) {
  const auto layers = layers_of(500);
  const auto requests = [] {
    return c10::cuda::CUDACachingAllocator::getDeviceStats(device().index()).num_device_alloc;
  };
  const auto step = [&] {
    lawn::sphere::project_to_tangent_(layers);
    lawn::sphere::rescale_(layers);
  };
  step();
  torch::cuda::synchronize();
  std::size_t free_before = 0;
  std::size_t free_after = 0;
  std::size_t total = 0;
  expect_success(cudaMemGetInfo(&free_before, &total));
  const auto requests_before = requests();
  for (int i = 0; i < 10; ++i) step();
  torch::cuda::synchronize();
  EXPECT_EQ(requests(), requests_before);
  expect_success(cudaMemGetInfo(&free_after, &total));
  EXPECT_EQ(free_after, free_before) << "differs too when another program uses the GPU";
}

TEST_F(CudaStream, ReplaysInAGraphWhatItDoesEagerly) {
  const auto captured = layers_of(50);
  std::vector<Layer> eager;
  std::vector<torch::Tensor> gradients;
  for (const auto& layer : captured) {
    eager.push_back(
        {layer.weight.clone(), layer.gradient.clone(), layer.radius.clone(), layer.unit_dim, 0.25});
    gradients.push_back(layer.gradient.clone());
  }
  std::vector<Layer> with_decay = captured;
  for (auto& layer : with_decay) layer.weight_decay = 0.25;
  const auto step = [&](const std::vector<Layer>& layers) {
    for (std::size_t i = 0; i < layers.size(); ++i) layers[i].gradient.copy_(gradients[i]);
    lawn::sphere::project_to_tangent_(layers);
    for (const auto& layer : layers) layer.weight.sub_(layer.gradient, 0.1);
    lawn::sphere::rescale_(layers);
  };

  const auto stream = c10::cuda::getStreamFromPool();
  torch::cuda::synchronize();
  const c10::cuda::CUDAStreamGuard guard(stream);
  for (int i = 0; i < 3; ++i) {
    step(with_decay);
    step(eager);
  }
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  step(with_decay);
  graph.capture_end();
  for (int i = 0; i < 10; ++i) {
    graph.replay();
    step(eager);
  }
  torch::cuda::synchronize();
  for (std::size_t i = 0; i < eager.size(); ++i) {
    EXPECT_TRUE(torch::equal(captured[i].weight, eager[i].weight)) << i;
    EXPECT_TRUE(torch::equal(captured[i].gradient, eager[i].gradient)) << i;
  }
}

TEST_F(CudaStream, LaunchesAtMostFourKernelsForAThousandLayers) {
  for (const int count : {1, 22, 1024}) {
    std::vector<Layer> layers;
    for (int i = 0; i < count; ++i) {
      layers.push_back(layer_of({i % 100 == 7 ? 100000 : 1 + (i * 37) % 500}));
    }
    const auto stream = c10::cuda::getStreamFromPool();
    torch::cuda::synchronize();
    const c10::cuda::CUDAStreamGuard guard(stream);
    lawn::sphere::project_to_tangent_(layers);
    lawn::sphere::rescale_(layers);
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    lawn::sphere::project_to_tangent_(layers);
    lawn::sphere::rescale_(layers);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    unsigned long long id = 0;
    cudaGraph_t nodes_of = nullptr;
    std::size_t nodes = 0;
    const auto asked = cudaStreamGetCaptureInfo(stream.stream(), &status, &id, &nodes_of);
    const auto counted = cudaGraphGetNodes(nodes_of, nullptr, &nodes);
    graph.capture_end();  // before anything that may leave this function
    expect_success(asked);
    expect_success(counted);
    EXPECT_GE(nodes, 2U) << count;
    EXPECT_LE(nodes, 4U) << count;
  }
}

}  // namespace

#else

/// So that the program says why it is skipped.
TEST(CudaStream, NeedsTheCUDARuntime) {
  GTEST_SKIP() << "built without nvcc: there is no CUDA runtime to link";
}

#endif
