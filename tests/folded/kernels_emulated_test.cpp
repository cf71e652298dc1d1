// SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels of the folded steps, run on the host, against plain loops over float64.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/cuda_emulation/folded.cuh"
#include "tests/support/cuda_emulation/heap_tensor.h"

namespace {

class FoldedStep : public FoldedKernels,
                   public ::testing::WithParamInterface<std::tuple<Named, torch::ScalarType>> {
 protected:
  static const Step& step() { return std::get<0>(GetParam()).step; }

  static Stepped make(int64_t spheres, int64_t numel, Skips skips = {}, double decay = 0) {
    return make_stepped(step(), std::get<1>(GetParam()), spheres, numel, skips, decay);
  }
};

TEST_P(FoldedStep, EqualsTheTwinAtEverySize) {
  std::vector<Stepped> layers;
  for (const int64_t numel : {int64_t{1}, int64_t{2}, int64_t{31}, int64_t{32}, int64_t{33},
                              int64_t{1000}, kChunk - 1, kChunk, kChunk + 1, kBlockSphere - 1,
                              kBlockSphere, kBlockSphere + 1, 5 * kChunk, 40 * kChunk + 1}) {
    layers.push_back(make(1, numel, {}, numel % 2 == 0 ? 0.25 : 0));
  }
  EXPECT_EQ(step_and_compare(layers, step()), 3);
}

TEST_P(FoldedStep, EqualsTheTwinAtEveryAlignment) {
  for (const int64_t numel : {int64_t{1}, int64_t{7}, int64_t{1001}, kBlockSphere + 3}) {
    std::vector<Stepped> layers;
    std::vector<Skips> skips;
    const int64_t count = numel > kChunk ? 6 : 40;
    for (int64_t i = 0; i < count; ++i) {
      // All alike first, so that packs begin somewhere in the middle.
      skips.push_back(i < 4 ? Skips{i, i, i, i} : Skips{i % 8, i / 3 % 8, i / 2 % 8, i * 5 % 8});
      layers.push_back(make(1, numel, skips.back()));
    }
    step_and_compare(layers, step());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto& [layer, first_moment, second_moment] = layers[i];
      EXPECT_TRUE(lawn::testing::spoiled_in_front(layer.weight, skips[i].weight));
      EXPECT_TRUE(lawn::testing::spoiled_in_front(layer.gradient, skips[i].gradient));
      if (first_moment.defined()) {
        EXPECT_TRUE(lawn::testing::spoiled_in_front(first_moment, skips[i].first_moment));
      }
      if (second_moment.defined()) {
        EXPECT_TRUE(lawn::testing::spoiled_in_front(second_moment, skips[i].second_moment));
      }
    }
  }
}

TEST_P(FoldedStep, EqualsTheTwinForOutputUnits) {
  std::vector<Stepped> layers;
  for (const auto& [spheres, numel] :
       std::vector<std::pair<int64_t, int64_t>>{{300, 64},
                                                {17, 1},
                                                {16, 33},
                                                {5, 1024},
                                                {5, 1025},
                                                {2, kBlockSphere},
                                                {3, kBlockSphere + 1}}) {
    layers.push_back(make(spheres, numel, {1, 1, 1, 1}, 0.25));
    layers.push_back(make(spheres, numel));
  }
  EXPECT_EQ(step_and_compare(layers, step()), 3);
}

TEST_P(FoldedStep, DecaysWhatIsFreeAndKeepsItsNormFree) {
  for (const int64_t numel : {int64_t{100}, kBlockSphere + 1}) {
    for (const int64_t spheres : {1, 3}) {
      auto free = make(spheres, numel, {}, 0.5);
      free.layer.radius.zero_();
      auto undefined = make(spheres, numel, {}, 0.5);
      undefined.layer.radius.fill_(-1);
      auto mixed = make(5, numel, {}, 0.5);
      mixed.layer.radius[2] = 0;
      auto none = make(spheres, numel, {}, 0.5);
      none.layer.radius = torch::Tensor();
      step_and_compare({free, undefined, mixed, none}, step());
    }
  }
}

TEST_P(FoldedStep, LeavesWhatHasNoGradient) {
  for (const int64_t numel : {int64_t{100}, kBlockSphere + 1}) {
    auto none = make(1, numel, {}, 0.5);
    if (none.first_moment.defined()) none.first_moment.fill_(2);
    none.layer.gradient = torch::Tensor();
    EXPECT_EQ(step_and_compare({none}, step()), 0);
    step_and_compare({none, make(1, numel)}, step());
  }
}

TEST_P(FoldedStep, EqualsTheTwinForZerosAndInfinities) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const int64_t numel : {int64_t{40}, kBlockSphere + 1}) {
    for (const int64_t spheres : {1, 3}) {
      auto zero = make(spheres, numel, {}, 0.5);
      zero.layer.weight.zero_();
      auto nothing = make(spheres, numel, {}, 0.5);
      for (const auto& tensor : {nothing.layer.weight, nothing.layer.gradient, nothing.first_moment,
                                 nothing.second_moment}) {
        if (tensor.defined()) tensor.zero_();
      }
      auto infinite = make(spheres, numel);
      infinite.layer.gradient.view({-1})[3] = kInfinity;
      auto endless = make(spheres, numel);
      endless.layer.radius.fill_(kInfinity);
      const std::vector<Stepped> layers{zero, nothing, infinite, endless};
      step_and_compare(layers, step());
      EXPECT_TRUE(torch::equal(nothing.layer.weight, torch::zeros_like(nothing.layer.weight)));
    }
  }
}

std::string step_name(const ::testing::TestParamInfo<FoldedStep::ParamType>& info) {
  return std::string(std::get<0>(info.param).name) + c10::toString(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, FoldedStep,
                         ::testing::Combine(::testing::ValuesIn(kSteps),
                                            ::testing::Values(torch::kDouble, torch::kFloat,
                                                              torch::kBFloat16, torch::kHalf)),
                         step_name);

}  // namespace
