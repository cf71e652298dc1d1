// SPDX-License-Identifier: Apache-2.0
//
// The CUDA launchers of the folded steps, on the host: long lists of layers, the borders between
// workers, the order of threads, what CUDA refuses.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "tests/support/cuda_emulation/folded.cuh"

namespace {

using lawn::sphere::cuda::kFewLayers;
using lawn::sphere::cuda::kManySteppedLayers;
using lawn::sphere::cuda::ListFiller;

constexpr torch::ScalarType kDtypes[] = {torch::kDouble, torch::kFloat, torch::kBFloat16,
                                         torch::kHalf};

/// Layers of all dtypes, some of them chunked.
std::vector<Stepped> many_layers(const Step& step, int64_t count) {
  std::vector<Stepped> layers;
  for (int64_t i = 0; i < count; ++i) {
    const auto numel = i % 100 == 99 ? kBlockSphere + i : 1 + i * 37 % 400;
    layers.push_back(
        make_stepped(step, kDtypes[i % 4], 1, numel, {}, 0.125 * static_cast<double>(i / 4 % 3)));
  }
  return layers;
}

TEST_F(FoldedKernels, TakeOneLaunchWhereABlockHoldsEachSphere) {
  for (const auto& [name, step] : kSteps) {
    const auto type = torch::kFloat;
    EXPECT_EQ(
        step_and_compare(
            {make_stepped(step, type, 1, kBlockSphere), make_stepped(step, type, 30, 50)}, step),
        1)
        << name;
    EXPECT_EQ(step_and_compare({make_stepped(step, type, 1, kBlockSphere + 1)}, step), 3) << name;
    EXPECT_EQ(run_step({}, step), 0) << name;
    EXPECT_EQ(run_step({make_stepped(step, type, 1, 0), make_stepped(step, type, 0, 5)}, step), 0)
        << name;
  }
}

TEST_F(FoldedKernels, TakeThreeLaunchesForAFullList) {
  const Step& adam = kSteps[1].step;
  EXPECT_EQ(step_and_compare(many_layers(adam, kFewLayers + 40), adam), 3);
  EXPECT_EQ(step_and_compare(many_layers(adam, kManySteppedLayers), adam), 3);
}

TEST_F(FoldedKernels, TakeAnotherListForTheNextLayer) {
  const Step& momentum = kSteps[3].step;
  auto layers = many_layers(momentum, kManySteppedLayers);
  layers.push_back(make_stepped(momentum, torch::kFloat, 1, kBlockSphere + 1));
  EXPECT_EQ(step_and_compare(layers, momentum), 6);
}

TEST_F(FoldedKernels, GrowTheChunksOfAVeryLargeSphere) {
  Limits limits;
  limits.max_chunks = 8;
  const Step& adam = kSteps[0].step;
  const auto before = Machine::get().blocks_run;
  EXPECT_EQ(step_and_compare({make_stepped(adam, torch::kFloat, 1, 20 * kChunk, {1, 1, 1, 1})},
                             adam, &limits),
            3);
  EXPECT_LE(Machine::get().blocks_run - before, 3 * limits.max_chunks);
}

/// All workers and dtypes on small layers.
std::vector<Stepped> random_layers(const Step& step, int64_t count, int64_t seed) {
  torch::manual_seed(seed);
  const auto random = [](int64_t end) { return torch::randint(end, {}).item<int64_t>(); };
  std::vector<Stepped> layers;
  for (int64_t i = 0; i < count; ++i) {
    const auto spheres = random(3) == 0 ? 1 + random(12) : 1;
    const auto skipped = random(9);
    layers.push_back(make_stepped(step, kDtypes[random(4)], spheres, 1 + random(700),
                                  {skipped, skipped, skipped, random(2) == 0 ? skipped : random(9)},
                                  0.25 * static_cast<double>(random(2))));
    if (random(4) == 0) layers.back().layer.radius.view({-1})[0] = 0;
  }
  return layers;
}

TEST_F(FoldedKernels, EqualTheTwinWhereverTheBordersBetweenRolesLie) {
  for (int64_t seed = 0; seed < 7; ++seed) {
    Limits limits;
    limits.warp_sphere = 16 + 50 * seed;
    limits.block_sphere = 64 + 64 * (seed % 3);
    limits.many_spheres = 3 + seed;
    limits.chunk = 64;
    limits.max_chunks = 1 + seed % 5;
    const Step& step = kSteps[seed].step;
    step_and_compare(random_layers(step, 60, seed), step, &limits);
  }
}

TEST_F(FoldedKernels, GiveTheSameBitsInEveryOrderOfThreadsAndBlocks) {
  Limits limits;
  limits.warp_sphere = 64;
  limits.block_sphere = 256;
  limits.chunk = 64;
  limits.many_spheres = 8;
  for (const auto* named : {&kSteps[1], &kSteps[5]}) {
    std::vector<torch::Tensor> first;
    for (unsigned run_index = 0; run_index < 4; ++run_index) {
      Machine::get().order_for_run(run_index);
      const auto layers = random_layers(named->step, 20, 5);
      for (int step = 0; step < 2; ++step) run_step(layers, named->step, &limits);
      std::vector<torch::Tensor> results;
      for (const auto& [layer, first_moment, second_moment] : layers) {
        for (const auto& t : {layer.weight, first_moment, second_moment}) {
          if (t.defined()) results.push_back(t);
        }
      }
      if (run_index == 0) first = results;
      for (std::size_t i = 0; i < first.size(); ++i) {
        EXPECT_TRUE(torch::equal(first[i], results[i])) << named->name << run_index << ", " << i;
      }
    }
  }
}

TEST_F(FoldedKernels, MoveMomentsAlongWithTheSpheresOfALayer) {
  char* nowhere = reinterpret_cast<char*>(std::uintptr_t{1} << 40);
  lawn::detail::folded::FlatLayer layer;
  layer.weight = nowhere;
  layer.gradient = nowhere + 16;
  layer.spheres = 3;
  layer.sphere_numel = 40000;
  layer.weight_dtype = layer.gradient_dtype = Dtype::kBFloat16;
  layer.first_moment = nowhere + 48;
  using List = lawn::detail::folded::cuda::LayerList<kFewLayers>;
  const auto list = std::make_unique<List>();
  ListFiller<List> filler(*list, lawn::detail::folded::cuda::kNeedsOfSteps, {});
  EXPECT_EQ(filler.fill(&layer, &layer + 1), &layer + 1);
  ASSERT_EQ(list->layers, 3);
  EXPECT_EQ(list->weight[2], nowhere + 160000);
  EXPECT_EQ(list->first_moment[2], nowhere + 48 + 160000);
  EXPECT_EQ(list->second_moment[2], nullptr);
  EXPECT_EQ(list->radius[2], nullptr);
}

TEST_F(FoldedKernels, LoadOncePerDeviceAndReportWhatCudaRefuses) {
  const auto stepped = make_stepped(kSteps[0].step, torch::kFloat, 1, kBlockSphere + 1);
  lawn::detail::folded::FlatLayer flat{lawn::sphere::flatten(stepped.layer),
                                       stepped.first_moment.data_ptr(),
                                       stepped.second_moment.data_ptr()};
  std::vector<char> workspace(
      static_cast<std::size_t>(lawn::detail::folded::cuda::kEntries.workspace_bytes(&flat, 1)));
  const auto step = [&] {
    const char* error = lawn::detail::folded::cuda::kEntries.adam(
        &flat, 1, std::get<Adam>(kSteps[0].step), workspace.data(), nullptr);
    return std::string(error == nullptr ? "none" : error);
  };
  Runtime& runtime = Runtime::get();
  runtime.device = 5;
  runtime.function_error = cudaErrorInvalidValue;
  EXPECT_EQ(step(), "emulated error");
  EXPECT_EQ(runtime.loads, 1);
  runtime.function_error = cudaSuccess;
  runtime.launch_error = cudaErrorInvalidValue;
  EXPECT_EQ(step(), "emulated error");
  EXPECT_EQ(runtime.loads, 7);  // two kernels of Adam, one of rescaling, for each length of list
  runtime.launch_error = cudaSuccess;
  EXPECT_EQ(step(), "none");
  EXPECT_EQ(runtime.loads, 7);
}

TEST_F(FoldedKernels, RefuseALayerThatNoListCanHold) {
  Limits limits;
  limits.warp_sphere = 64;
  limits.block_sphere = 64;
  limits.many_spheres = 1000;
  lawn::detail::folded::FlatLayer flat;
  char memory = 0;
  flat.weight = flat.gradient = &memory;
  flat.spheres = kManySteppedLayers + 1;
  flat.sphere_numel = 100;
  const char* error = lawn::detail::folded::cuda::launch_step<lawn::detail::folded::cuda::AdamStep>(
      &flat, 1, std::get<Adam>(kSteps[0].step), nullptr, nullptr, limits);
  EXPECT_STREQ(error, "lawn: a layer has more spheres of its size than the kernels take");
}

}  // namespace
