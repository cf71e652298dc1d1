// SPDX-License-Identifier: Apache-2.0
//
// The first call of lawn's kernels in a program, inside a CUDA graph: CUDA loads them there. ctest
// runs it alone; in a run of all tests on a GPU another call is the first.

#include <gtest/gtest.h>
#include <torch/torch.h>

// Where the program links the CUDA runtime, which LibTorch's CUDA headers call, too.
#if defined(LAWN_CUDA_RUNTIME)

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstddef>
#include <vector>

#include <lawn/sphere/functions.h>

#include "tests/support/tolerance.h"

namespace {

using lawn::testing::close;

TEST(FirstCall, IsCapturedAsAnyOther) {
  // Not by has_cuda_kernels(), which would load a kernel.
  if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU that LibTorch can use";
  torch::manual_seed(11);
  const torch::TensorOptions options(torch::Device(torch::kCUDA, 0));
  std::vector<lawn::sphere::Layer> layers;
  std::vector<lawn::sphere::Layer> twins;
  for (const int64_t size : {7, 500, 100000}) {
    lawn::sphere::Layer layer;
    layer.weight = torch::randn({size}, options);
    layer.gradient = torch::randn({size}, options);
    layer.radius = torch::full({}, 2.0, options);
    layers.push_back(layer);
    layer.weight = layer.weight.clone();
    layer.gradient = layer.gradient.clone();
    twins.push_back(layer);
  }
  const auto stream = c10::cuda::getStreamFromPool();
  torch::cuda::synchronize();
  const c10::cuda::CUDAStreamGuard guard(stream);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  lawn::sphere::project_to_tangent_(layers);
  lawn::sphere::rescale_(layers);
  graph.capture_end();
  graph.replay();
  for (const auto& twin : twins) {
    lawn::sphere::aten::project_to_tangent_(twin);
    lawn::sphere::aten::rescale_(twin);
  }
  torch::cuda::synchronize();
  for (std::size_t i = 0; i < twins.size(); ++i) {
    EXPECT_TRUE(torch::allclose(layers[i].gradient, twins[i].gradient, 1e-4, 1e-5)) << i;
    EXPECT_TRUE(close(layers[i].weight, twins[i].weight)) << i;
  }
}

}  // namespace

#else

/// So that the program says why it is skipped.
TEST(FirstCall, NeedsTheCUDARuntime) {
  GTEST_SKIP() << "built without nvcc: there is no CUDA runtime to link";
}

#endif
