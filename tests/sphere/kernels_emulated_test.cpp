// SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels, run on the host by the emulation in tests/support/cuda_emulation, against ATen
// in float64.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <lawn/sphere/flatten.h>

#include "tests/support/cuda_emulation/heap_tensor.h"
#include "tests/support/cuda_emulation/kernels.cuh"
#include "tests/support/range.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::tolerance;

class KernelsOfTypes : public Kernels, public ::testing::WithParamInterface<Types> {};

TEST_P(KernelsOfTypes, EqualATenAtEverySize) {
  std::vector<Layer> layers;
  for (const int64_t numel : {int64_t{1}, int64_t{2}, int64_t{31}, int64_t{32}, int64_t{33},
                              int64_t{1000}, kChunk - 1, kChunk, kChunk + 1, kBlockSphere - 1,
                              kBlockSphere, kBlockSphere + 1, 5 * kChunk, 5 * kChunk + 1}) {
    layers.push_back(make_layer(GetParam(), 1, numel, {}, numel % 2 == 0 ? 0.25 : 0));
  }
  EXPECT_LE(run_and_compare(layers), 2);
}

TEST_P(KernelsOfTypes, EqualATenAtEveryAlignment) {
  for (const int64_t numel :
       {int64_t{1}, int64_t{7}, int64_t{20}, int64_t{1001}, kBlockSphere + 3}) {
    std::vector<Layer> layers;
    std::vector<Skipped> skips;
    for (int64_t weight = 0; weight < 8; ++weight) {
      for (int64_t gradient = 0; gradient < 8; ++gradient) {
        if (numel > kChunk && (weight + gradient) % 5 != 0) continue;
        skips.push_back({weight, gradient});
        layers.push_back(make_layer(GetParam(), 1, numel, skips.back()));
      }
    }
    EXPECT_LE(run_and_compare(layers), 2);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      EXPECT_TRUE(lawn::testing::spoiled_in_front(layers[i].weight, skips[i].weight));
      EXPECT_TRUE(lawn::testing::spoiled_in_front(layers[i].gradient, skips[i].gradient));
    }
  }
}

TEST_P(KernelsOfTypes, EqualATenForOutputUnits) {
  std::vector<Layer> layers;
  for (const auto& [spheres, numel] :
       std::vector<std::pair<int64_t, int64_t>>{{300, 64},
                                                {17, 1},
                                                {16, 33},
                                                {5, 1024},
                                                {5, 1025},
                                                {2, kBlockSphere},
                                                {3, kBlockSphere + 1},
                                                {2, 5 * kChunk + 1}}) {
    layers.push_back(make_layer(GetParam(), spheres, numel, {1, 1}, 0.25));
    layers.push_back(make_layer(GetParam(), spheres, numel));
  }
  EXPECT_LE(run_and_compare(layers), 2);
}

TEST_P(KernelsOfTypes, LeaveWhatIsFreeOrHasNoGradient) {
  for (const int64_t numel : {int64_t{100}, kBlockSphere + 1}) {
    for (const int64_t spheres : {1, 3}) {
      auto free = make_layer(GetParam(), spheres, numel, {}, 0.5);
      free.radius.zero_();
      auto undefined = make_layer(GetParam(), spheres, numel, {}, 0.5);
      undefined.radius.fill_(std::numeric_limits<double>::quiet_NaN());
      auto constrained = make_layer(GetParam(), spheres, numel, {}, 0.5);
      auto none = make_layer(GetParam(), spheres, numel, {}, 0.5);
      none.gradient = torch::Tensor();
      auto mixed = make_layer(GetParam(), 5, numel, {}, 0.5);
      mixed.radius[2] = 0;
      const std::vector<Layer> twins{twin_of(free), twin_of(undefined)};
      const auto expect_left = [&] {
        EXPECT_TRUE(torch::equal(free.gradient.to(torch::kDouble), twins[0].gradient));
        EXPECT_TRUE(torch::equal(free.weight.to(torch::kDouble), twins[0].weight));
        EXPECT_TRUE(torch::equal(undefined.gradient.to(torch::kDouble), twins[1].gradient));
        EXPECT_TRUE(torch::equal(undefined.weight.to(torch::kDouble), twins[1].weight));
      };
      run(Function::kProjection, {free, undefined});
      run(Function::kRescaling, {free, undefined});
      expect_left();
      EXPECT_LE(run_and_compare({constrained, none, mixed}), 2);
      constrained.radius = torch::Tensor();
      const auto twin = twin_of(constrained);
      run(Function::kProjection, {constrained});
      compare(Function::kProjection, constrained, twin, "no radius");
    }
  }
}

TEST_P(KernelsOfTypes, MakeNoNaNOfZerosAndInfinities) {
  for (const int64_t numel : {int64_t{40}, kBlockSphere + 1}) {
    auto zero = make_layer(GetParam(), 1, numel, {}, 0.5);
    zero.weight.zero_();
    auto infinite = make_layer(GetParam(), 1, numel);
    infinite.gradient[3] = std::numeric_limits<double>::infinity();
    const auto gradient = zero.gradient.clone();
    const auto infinity = infinite.gradient.clone();
    run(Function::kProjection, {zero, infinite});
    EXPECT_TRUE(torch::equal(zero.gradient, gradient));
    EXPECT_TRUE(torch::equal(infinite.gradient, infinity));
    auto wide = make_layer(GetParam(), 1, numel);
    wide.weight[3] = std::numeric_limits<double>::infinity();
    const auto weight = wide.weight.clone();
    run(Function::kRescaling, {zero, wide});
    EXPECT_TRUE(torch::equal(zero.weight, torch::zeros_like(zero.weight)));
    EXPECT_TRUE(torch::equal(wide.weight, weight));
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, KernelsOfTypes, ::testing::ValuesIn(kTypes),
                         [](const auto& types) {
                           return std::string(c10::toString(types.param.weight)) +
                                  c10::toString(types.param.gradient);
                         });

TEST_F(Kernels, GiveEmptySpheresTheNormZero) {
  std::vector<Layer> layers;
  for (const auto& shape : std::vector<std::vector<int64_t>>{{0}, {0, 5}, {20, 0}, {3}}) {
    Layer layer{torch::ones(shape), torch::ones(shape), {}, kWholeTensor, 0};
    if (shape.size() > 1) layer.unit_dim = 0;
    layer.radius = heap_tensor(torch::full(lawn::sphere::radius_shape(layer), 7.0));
    layers.push_back(layer);
  }
  for (const Function function : kFunctions) {
    EXPECT_EQ(run(function, {layers[0], layers[1]}), function == Function::kNorms ? 1 : 0);
  }
  run_and_compare(layers);
  for (const Function function : kFunctions) EXPECT_EQ(run(function, {}), 0);
}

TEST_F(Kernels, TakeChannelsLast) {
  const auto format = torch::MemoryFormat::ChannelsLast;
  std::vector<Layer> layers;
  for (const int64_t dim : {kWholeTensor, int64_t{0}}) {
    for (const int64_t channels : {3, 70}) {
      Layer layer{torch::rand({70, channels, 3, 3}).contiguous(format),
                  torch::rand({70, channels, 3, 3}).contiguous(format),
                  {},
                  dim,
                  0.5};
      layer.radius = torch::rand(lawn::sphere::radius_shape(layer)) + 0.5;
      layers.push_back(layer);
    }
  }
  EXPECT_LE(run_and_compare(layers), 2);
}

TEST_F(Kernels, LoseNothingVisibleOverMillionsOfElements) {
  const auto weight = torch::rand({1 << 20}) + 0.5;
  const Layer layer{weight, {}, torch::zeros({}), kWholeTensor, 0};
  run(Function::kNorms, {layer});
  const double exact = weight.to(torch::kDouble).norm().item<double>();
  EXPECT_NEAR(layer.radius.item<double>() / exact, 1, 2e-7);
}

TEST_F(Kernels, AreRightOverTheWholeRangeOfFloats) {
  using lawn::testing::kScales;
  using lawn::testing::layer_of_scale;
  for (const int64_t numel : {int64_t{2}, int64_t{1000}, kBlockSphere + 1}) {
    for (const double scale : kScales) {
      auto layer = layer_of_scale(numel, scale, 1);
      const auto before = layer.gradient.clone();
      const double norm = layer.weight.to(torch::kDouble).norm().item<double>();
      layer.radius = torch::zeros({});
      run(Function::kNorms, {layer});
      EXPECT_NEAR(layer.radius.item<double>() / norm, 1, tolerance(torch::kFloat).norm) << scale;
      run(Function::kProjection, {layer});
      lawn::testing::expect_projected(layer, before, std::to_string(std::log10(scale)));
      layer.radius = torch::tensor(1.5f * static_cast<float>(scale));
      run(Function::kRescaling, {layer});
      EXPECT_NEAR(layer.weight.to(torch::kDouble).norm().item<double>() / (1.5 * scale), 1,
                  tolerance(torch::kFloat).norm)
          << scale;
    }
  }
}

TEST_F(Kernels, AreRightForOutputUnitsOfEverySize) {
  for (const int64_t numel : {2, 33, 1500}) {  // warps and blocks
    Layer layer;
    layer.weight = torch::randn({20, numel}) * torch::logspace(-35, 35, 20).unsqueeze(1);
    layer.unit_dim = 0;
    layer.radius = torch::zeros({20});
    run(Function::kNorms, {layer});
    const auto expected = layer.weight.to(torch::kDouble).norm(2, {1});
    EXPECT_TRUE(torch::allclose(layer.radius.to(torch::kDouble), expected, 1e-6, 0));
  }
}

}  // namespace
