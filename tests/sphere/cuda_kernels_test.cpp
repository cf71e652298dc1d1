// SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels, run on the host by the emulation in tests/support/cuda_emulation, against ATen
// in float64.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <lawn/sphere/aten.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/cuda/launchers.cuh>

#include "tests/support/cuda_emulation/heap_tensor.h"
#include "tests/support/tolerance.h"

namespace {

using cuda_emulation::Machine;
using cuda_emulation::Order;
using cuda_emulation::Runtime;
using lawn::sphere::Dtype;
using lawn::sphere::Flat;
using lawn::sphere::kWholeTensor;
using lawn::sphere::Layer;
using lawn::sphere::cuda::Limits;
using lawn::sphere::cuda::Purpose;
using lawn::testing::heap_tensor;
using lawn::testing::tolerance;

constexpr int64_t kBlockSphere = Limits{}.block_sphere;
constexpr int64_t kChunk = Limits{}.chunk;
constexpr Purpose kPurposes[] = {Purpose::kNorms, Purpose::kProjection, Purpose::kRescaling};

/// Dtypes of a weight and its gradient.
struct Types {
  torch::ScalarType weight;
  torch::ScalarType gradient;
};

constexpr Types kTypes[] = {{torch::kDouble, torch::kDouble},     {torch::kFloat, torch::kFloat},
                            {torch::kBFloat16, torch::kBFloat16}, {torch::kHalf, torch::kHalf},
                            {torch::kBFloat16, torch::kFloat},    {torch::kHalf, torch::kFloat}};

struct Skipped {
  int64_t weight = 0;
  int64_t gradient = 0;
};

/// A layer of which every element matters, to its sphere's sums where it lies at a border, and to
/// itself elsewhere: both functions move it by far more than the tolerance.
Layer make_layer(Types types, int64_t spheres, int64_t numel, Skipped skipped = {},
                 double decay = 0) {
  const auto shape = std::vector<int64_t>{spheres, numel};
  auto w = (torch::rand(shape, torch::kDouble) + 0.5) *
           (torch::randint(2, shape).to(torch::kDouble) * 2 - 1);
  auto g = 0.7 * w + 0.3 * torch::randn(shape, torch::kDouble);
  for (const int64_t border : {int64_t{0}, numel / 2, numel - 1, kChunk - 1, kChunk}) {
    if (border < 0 || border >= numel) continue;
    w.select(1, border).mul_(16);
    g.select(1, border).copy_(-w.select(1, border));
  }
  const bool whole = spheres == 1;
  if (whole) {
    w = w.reshape({-1});
    g = g.reshape({-1});
  }
  Layer layer;
  layer.weight = heap_tensor(w.to(types.weight), skipped.weight);
  layer.gradient = heap_tensor(g.to(types.gradient), skipped.gradient);
  layer.unit_dim = whole ? kWholeTensor : 0;
  layer.weight_decay = decay;
  layer.radius = heap_tensor((torch::rand({spheres}, torch::kDouble) + 0.5)
                                 .to(lawn::sphere::accumulation_dtype(layer.weight)));
  if (whole) layer.radius = layer.radius.reshape({});
  return layer;
}

/// The layer in float64, in memory of its own.
Layer twin_of(const Layer& layer) {
  Layer twin = layer;
  twin.weight = layer.weight.to(torch::kDouble).clone();
  if (layer.gradient.defined()) twin.gradient = layer.gradient.to(torch::kDouble).clone();
  if (layer.radius.defined()) twin.radius = layer.radius.to(torch::kDouble).clone();
  return twin;
}

/// @param scale  what `relative` is relative to
void expect_near(const torch::Tensor& actual, const torch::Tensor& expected, double relative,
                 const torch::Tensor& scale, const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  if (expected.numel() == 0) return;
  const auto error = (actual.to(torch::kDouble) - expected).abs().max().item<double>();
  // Written so that NaN is not near.
  EXPECT_TRUE(error <= relative * scale.abs().max().item<double>()) << what << ": " << error;
}

class Kernels : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(11);
    reset();
  }
  void TearDown() override { reset(); }

  static void reset() {
    Machine::get().thread_order = Order::kForward;
    Machine::get().block_order = Order::kForward;
    Runtime::get() = Runtime{};
  }

  /// Runs a function on all layers.
  /// @return how many launches it took
  static int run(Purpose purpose, const std::vector<Layer>& layers,
                 const Limits* limits = nullptr) {
    namespace cuda = lawn::sphere::cuda;
    std::vector<Flat> flats;
    for (const Layer& layer : layers) {
      EXPECT_TRUE(lawn::sphere::is_flat(layer));
      flats.push_back(lawn::sphere::flatten(layer));
    }
    const auto count = static_cast<int64_t>(flats.size());
    const auto bytes = static_cast<std::size_t>(
        limits == nullptr ? cuda::kLaunchers.workspace_bytes(flats.data(), count)
                          : cuda::workspace_bytes(flats.data(), count, *limits));
    const std::unique_ptr<char[]> workspace(new char[bytes]);
    std::memset(workspace.get(), 0xff, bytes);

    const int before = Machine::get().launches;
    const char* error = nullptr;
    if (limits == nullptr) {
      const auto function = purpose == Purpose::kNorms        ? cuda::kLaunchers.norms
                            : purpose == Purpose::kProjection ? cuda::kLaunchers.project_to_tangent
                                                              : cuda::kLaunchers.rescale;
      error = function(flats.data(), count, workspace.get(), nullptr);
    } else {
      const auto function = purpose == Purpose::kNorms        ? cuda::run<cuda::Norm>
                            : purpose == Purpose::kProjection ? cuda::run<cuda::Projection>
                                                              : cuda::run<cuda::Rescaling>;
      error = function(purpose, flats.data(), count, workspace.get(), nullptr, *limits);
    }
    EXPECT_EQ(error, nullptr) << error;
    return Machine::get().launches - before;
  }

  /// Runs all functions, and ATen beside them.
  /// @return the most launches that one of them took
  static int run_and_compare(const std::vector<Layer>& layers, const Limits* limits = nullptr) {
    int launches = 0;
    for (const Purpose purpose : kPurposes) {
      std::vector<Layer> given = layers;
      std::vector<Layer> twins;
      for (Layer& layer : given) {
        if (purpose == Purpose::kNorms)
          layer.radius = heap_tensor(torch::full_like(layer.radius, 7));
        twins.push_back(twin_of(layer));
      }
      launches = std::max(launches, run(purpose, given, limits));
      for (std::size_t i = 0; i < given.size(); ++i) {
        const Layer& layer = given[i];
        const auto what = "function " + std::to_string(static_cast<int>(purpose)) + ", layer " +
                          std::to_string(i) + " of " + std::to_string(layer.weight.numel()) + ' ' +
                          c10::toString(layer.weight.scalar_type());
        compare(purpose, layer, twins[i], what);
      }
    }
    return launches;
  }

  static void compare(Purpose purpose, const Layer& layer, const Layer& twin,
                      const std::string& what) {
    if (purpose == Purpose::kNorms) {
      const auto norm = lawn::sphere::aten::norm(twin);
      expect_near(layer.radius, norm, tolerance(layer.radius.scalar_type()).norm, norm, what);
    } else if (purpose == Purpose::kProjection && twin.gradient.defined()) {
      const auto before = twin.gradient.clone();
      lawn::sphere::aten::project_to_tangent_(twin);
      expect_near(layer.gradient, twin.gradient, tolerance(layer.gradient.scalar_type()).step,
                  before, what);
    } else if (purpose == Purpose::kRescaling) {
      lawn::sphere::aten::rescale_(twin);
    }
    expect_near(layer.weight, twin.weight, tolerance(layer.weight.scalar_type()).norm, twin.weight,
                what);
  }
};

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
      run(Purpose::kProjection, {free, undefined});
      run(Purpose::kRescaling, {free, undefined});
      expect_left();
      EXPECT_LE(run_and_compare({constrained, none, mixed}), 2);
      constrained.radius = torch::Tensor();
      const auto twin = twin_of(constrained);
      run(Purpose::kProjection, {constrained});
      compare(Purpose::kProjection, constrained, twin, "no radius");
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
    run(Purpose::kProjection, {zero, infinite});
    EXPECT_TRUE(torch::equal(zero.gradient, gradient));
    EXPECT_TRUE(torch::equal(infinite.gradient, infinity));
    auto wide = make_layer(GetParam(), 1, numel);
    wide.weight[3] = std::numeric_limits<double>::infinity();
    const auto weight = wide.weight.clone();
    run(Purpose::kRescaling, {zero, wide});
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
  for (const Purpose purpose : kPurposes) {
    EXPECT_EQ(run(purpose, {layers[0], layers[1]}), purpose == Purpose::kNorms ? 1 : 0);
  }
  run_and_compare(layers);
  for (const Purpose purpose : kPurposes) EXPECT_EQ(run(purpose, {}), 0);
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

TEST_F(Kernels, GrowTheChunksOfAVeryLargeSphere) {
  const int64_t numel = kChunk * Limits{}.max_chunks + 1;
  run_and_compare({make_layer(kTypes[1], 1, numel, {1, 1})});
  EXPECT_LE(Machine::get().blocks_run, 6 * Limits{}.max_chunks * 2);
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
  EXPECT_EQ(run(Purpose::kProjection, layers), 2);
  layers.pop_back();
  EXPECT_EQ(run(Purpose::kProjection, layers), 1);
  EXPECT_EQ(run(Purpose::kRescaling, layers), 1);
}

/// All roles and dtypes on small layers.
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
    Machine& machine = Machine::get();
    machine.seed = run_index;
    machine.thread_order = run_index == 0   ? Order::kForward
                           : run_index == 1 ? Order::kBackward
                                            : Order::kShuffled;
    machine.block_order = machine.thread_order;
    auto layers = random_layers(50, 5);
    std::vector<torch::Tensor> results;
    for (const Purpose purpose : {Purpose::kProjection, Purpose::kRescaling, Purpose::kNorms}) {
      run(purpose, layers, &limits);
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

TEST_F(Kernels, LoseNothingVisibleOverMillionsOfElements) {
  const auto weight = torch::rand({1 << 20}) + 0.5;
  const Layer layer{weight, {}, torch::zeros({}), kWholeTensor, 0};
  run(Purpose::kNorms, {layer});
  const double exact = weight.to(torch::kDouble).norm().item<double>();
  EXPECT_NEAR(layer.radius.item<double>() / exact, 1, 2e-7);
}

TEST(Launchers, TakeADtypePairWhereThereIsAKernel) {
  const auto takes = lawn::sphere::cuda::kLaunchers.takes;
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
    return std::string(lawn::sphere::cuda::kLaunchers.rescale(&flat, 1, nullptr, nullptr));
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
