// SPDX-License-Identifier: Apache-2.0
//
// The CUDA launchers, on the host: long lists of layers, the borders between workers, the order of
// threads, what CUDA refuses.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include <lawn/sphere/flatten.h>

#include "tests/support/cuda_emulation/heap_tensor.h"
#include "tests/support/cuda_emulation/kernels.cuh"

namespace {

TEST_F(Kernels, GrowTheChunksOfAVeryLargeSphere) {
  const int64_t numel = kChunk * Limits{}.max_chunks + 1;
  const auto before = Machine::get().blocks_run;
  EXPECT_EQ(run_and_compare({make_layer(kTypes[1], 1, numel, {1, 1})}), 2);
  // Two passes over the chunks for each function, but norms end with one block.
  EXPECT_LE(Machine::get().blocks_run - before, 5 * Limits{}.max_chunks + 1);
}

/// Layers of all dtypes, some of them chunked, of 36 settings.
std::vector<Layer> many_layers(int64_t count) {
  std::vector<Layer> layers;
  for (int64_t i = 0; i < count; ++i) {
    const auto numel = i % 100 == 99 ? kBlockSphere + i : 1 + i * 37 % 400;
    layers.push_back(
        make_layer(kTypes[i % 6], 1, numel, {}, 0.125 * static_cast<double>(i / 6 % 3)));
  }
  return layers;
}

TEST_F(Kernels, TakeTwoLaunchesForUpTo1024Layers) {
  EXPECT_EQ(run_and_compare(many_layers(300)), 2);
  EXPECT_EQ(run_and_compare(many_layers(1024)), 2);
}

TEST_F(Kernels, TakeAnotherPairOfLaunchesForTheNextLayer) {
  auto layers = many_layers(1024);
  layers.push_back(make_layer(kTypes[1], 1, kBlockSphere + 1));
  EXPECT_EQ(run_and_compare(layers), 4);
}

TEST_F(Kernels, TakeAnotherLaunchForTheNextSetting) {
  std::vector<Layer> layers;
  for (int i = 0; i <= lawn::sphere::cuda::kMaxSettings; ++i) {
    layers.push_back(make_layer(kTypes[1], 1, 50, {}, i));
  }
  EXPECT_EQ(run(Function::kProjection, layers), 2);
  layers.pop_back();
  EXPECT_EQ(run(Function::kProjection, layers), 1);
  EXPECT_EQ(run(Function::kRescaling, layers), 1);
}

/// All workers and dtypes on small layers.
std::vector<Layer> random_layers(int64_t count, int64_t seed) {
  torch::manual_seed(seed);
  const auto random = [](int64_t end) { return torch::randint(end, {}).item<int64_t>(); };
  std::vector<Layer> layers;
  for (int64_t i = 0; i < count; ++i) {
    const auto spheres = random(3) == 0 ? 1 + random(12) : 1;
    layers.push_back(make_layer(kTypes[random(6)], spheres, 1 + random(700), {random(9), random(9)},
                                0.25 * static_cast<double>(random(2))));
  }
  return layers;
}

TEST_F(Kernels, EqualATenWhereverTheBordersBetweenRolesLie) {
  for (int64_t seed = 0; seed < 6; ++seed) {
    Limits limits;
    limits.warp_sphere = 16 + 50 * seed;
    limits.block_sphere = 64 + 64 * (seed % 3);
    limits.many_spheres = 3 + seed;
    limits.chunk = 64;
    limits.max_chunks = 1 + seed % 5;
    run_and_compare(random_layers(60, seed), &limits);
  }
}

TEST_F(Kernels, GiveTheSameBitsInEveryOrderOfThreadsAndBlocks) {
  Limits limits;
  limits.warp_sphere = 64;
  limits.block_sphere = 256;
  limits.chunk = 64;
  limits.many_spheres = 8;
  std::vector<torch::Tensor> first;
  for (unsigned run_index = 0; run_index < 5; ++run_index) {
    Machine::get().order_for_run(run_index);
    auto layers = random_layers(50, 5);
    std::vector<torch::Tensor> results;
    for (const Function function :
         {Function::kProjection, Function::kRescaling, Function::kNorms}) {
      run(function, layers, &limits);
    }
    for (const Layer& layer : layers) {
      for (const auto& t : {layer.weight, layer.gradient, layer.radius}) results.push_back(t);
    }
    if (run_index == 0) first = results;
    for (std::size_t i = 0; i < first.size(); ++i) {
      EXPECT_TRUE(torch::equal(first[i], results[i])) << run_index << ", " << i;
    }
  }
}

TEST(Entries, TakeADtypePairWhereThereIsAKernel) {
  const auto takes = lawn::sphere::cuda::kEntries.takes;
  for (const Dtype weight : {Dtype::kFloat64, Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
    EXPECT_TRUE(takes(weight, weight));
    EXPECT_EQ(takes(weight, Dtype::kFloat32), weight != Dtype::kFloat64);
    EXPECT_EQ(takes(weight, Dtype::kFloat64), weight == Dtype::kFloat64);
  }
  EXPECT_FALSE(takes(Dtype::kBFloat16, Dtype::kFloat16));
}

TEST_F(Kernels, LoadOncePerDeviceAndReportWhatCudaRefuses) {
  const Flat flat = lawn::sphere::flatten(make_layer(kTypes[1], 1, 10));
  const auto rescale = [&] {
    return std::string(lawn::sphere::cuda::kEntries.rescale(&flat, 1, nullptr, nullptr));
  };
  Runtime& runtime = Runtime::get();
  runtime.device = 5;
  runtime.function_error = cudaErrorInvalidValue;
  EXPECT_EQ(rescale(), "emulated error");
  EXPECT_EQ(runtime.loads, 1);
  runtime.function_error = cudaSuccess;
  runtime.launch_error = cudaErrorInvalidValue;
  EXPECT_EQ(rescale(), "emulated error");
  EXPECT_EQ(runtime.loads, 13);
  EXPECT_EQ(rescale(), "emulated error");
  EXPECT_EQ(runtime.loads, 13);
  runtime.device = 6;
  EXPECT_EQ(rescale(), "emulated error");
  EXPECT_EQ(runtime.loads, 25);
}

}  // namespace
