// SPDX-License-Identifier: Apache-2.0
//
// What the CUDA table computes, on a GPU, against ATen in float64 on the same GPU. How it runs
// there (streams, allocations, graphs) is in cuda_stream_gpu_test.cpp.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <lawn/lawn.h>
#include <lawn/sphere/functions.h>

#include "tests/support/gpu.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::sphere::kWholeTensor;
using lawn::sphere::Layer;
using lawn::testing::tolerance;

/// What the base class skips on: no GPU, or no kernels.
class CudaTable : public lawn::testing::Gpu {
 protected:
  /// A layer with weight, gradient and radius; sizes, layout and values of `weight`.
  Layer layer_of(const torch::Tensor& weight, torch::ScalarType weight_dtype,
                 torch::ScalarType gradient_dtype, int64_t unit_dim = kWholeTensor,
                 double weight_decay = 0) {
    Layer layer;
    layer.weight = weight.to(device(), weight_dtype, /*non_blocking=*/false, /*copy=*/true);
    layer.gradient = torch::randn_like(layer.weight, torch::TensorOptions().dtype(gradient_dtype));
    layer.unit_dim = unit_dim;
    layer.weight_decay = weight_decay;
    layer.radius =
        torch::rand(
            lawn::sphere::radius_shape(layer),
            torch::TensorOptions(device()).dtype(lawn::sphere::accumulation_dtype(layer.weight))) +
        0.5;
    return layer;
  }
};

/// `layer` in memory of its own, in `dtype`, with the same strides.
Layer copy_of(const Layer& layer, std::optional<torch::ScalarType> dtype = std::nullopt) {
  const auto copy = [&](const torch::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    auto result =
        torch::empty_strided(tensor.sizes(), tensor.strides(),
                             tensor.options().dtype(dtype.value_or(tensor.scalar_type())));
    return result.copy_(tensor);
  };
  return {copy(layer.weight), copy(layer.gradient), copy(layer.radius), layer.unit_dim,
          layer.weight_decay};
}

std::vector<Layer> copies_of(const std::vector<Layer>& layers,
                             std::optional<torch::ScalarType> dtype = std::nullopt) {
  std::vector<Layer> result;
  for (const auto& layer : layers) result.push_back(copy_of(layer, dtype));
  return result;
}

double largest(const torch::Tensor& tensor) {
  return tensor.numel() == 0 ? 0 : tensor.abs().max().to(torch::kDouble).item<double>();
}

void expect_near(const torch::Tensor& actual, const torch::Tensor& expected, double bound,
                 const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const auto difference = actual.to(torch::kDouble) - expected;
  EXPECT_TRUE(torch::isfinite(difference).all().item<bool>()) << what;
  EXPECT_LE(largest(difference), bound) << what << ", shape " << actual.sizes();
}

/// Norms, projection and rescaling of `layers` in one call each, against ATen in float64.
void expect_as_aten(const std::vector<Layer>& layers, const std::string& what) {
  const torch::NoGradGuard no_grad;
  const auto exact = copies_of(layers, torch::kDouble);
  const auto norms = lawn::sphere::norms(layers);
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto expected = lawn::sphere::aten::norm(exact[i]);
    expect_near(norms[i], expected, tolerance(norms[i].scalar_type()).step * largest(expected),
                what + ": norms, layer " + std::to_string(i));
  }
  lawn::sphere::project_to_tangent_(layers);
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].gradient.defined()) continue;
    // What is left of a gradient may be small against what was taken off.
    const double scale =
        largest(exact[i].gradient) + layers[i].weight_decay * largest(exact[i].weight);
    lawn::sphere::aten::project_to_tangent_(exact[i]);
    expect_near(layers[i].gradient, exact[i].gradient,
                tolerance(layers[i].gradient.scalar_type()).step * scale,
                what + ": projection, layer " + std::to_string(i));
  }
  lawn::sphere::rescale_(layers);
  for (size_t i = 0; i < layers.size(); ++i) {
    lawn::sphere::aten::rescale_(exact[i]);
    expect_near(layers[i].weight, exact[i].weight,
                tolerance(layers[i].weight.scalar_type()).step * largest(exact[i].weight),
                what + ": rescaling, layer " + std::to_string(i));
  }
}

bool taken(const Layer& layer) {
  const auto* table = lawn::sphere::table_of(c10::kCUDA);
  return table != nullptr && table->takes(layer);
}

/// Dtypes of weight and gradient.
using Dtypes = std::tuple<torch::ScalarType, torch::ScalarType>;

class CudaTableOfDtypes : public CudaTable, public ::testing::WithParamInterface<Dtypes> {
 protected:
  Layer layer_of(const torch::Tensor& weight, int64_t unit_dim = kWholeTensor,
                 double weight_decay = 0) {
    const auto [weight_dtype, gradient_dtype] = GetParam();
    return CudaTable::layer_of(weight, weight_dtype, gradient_dtype, unit_dim, weight_decay);
  }
};

INSTANTIATE_TEST_SUITE_P(All, CudaTableOfDtypes,
                         ::testing::Values(Dtypes{torch::kDouble, torch::kDouble},
                                           Dtypes{torch::kFloat, torch::kFloat},
                                           Dtypes{torch::kBFloat16, torch::kBFloat16},
                                           Dtypes{torch::kHalf, torch::kHalf},
                                           Dtypes{torch::kBFloat16, torch::kFloat},
                                           Dtypes{torch::kHalf, torch::kFloat}),
                         [](const auto& dtypes) {
                           return std::string(c10::toString(std::get<0>(dtypes.param))) + "With" +
                                  c10::toString(std::get<1>(dtypes.param)) + "Gradient";
                         });

TEST_P(CudaTableOfDtypes, AgreesWithATenAtEverySize) {
  // Around a warp, a block's first choice, a chunk, a block's last choice (tuning.h); millions.
  for (const int64_t size : {0, 1, 31, 32, 33, 1023, 1024, 1025, 8191, 8192, 8193, 36863, 36864,
                             36865, 65537, 3000001}) {
    const Layer layer = layer_of(torch::randn({size}));
    ASSERT_TRUE(taken(layer)) << size;
    expect_as_aten({layer}, "size " + std::to_string(size));
  }
}

TEST_P(CudaTableOfDtypes, AgreesWithATenAtEveryAddress) {
  // A view that begins or ends between the places where a load of 16 bytes may.
  for (const int64_t begin : {1, 2, 3, 5, 7}) {
    for (const int64_t size : {1, 40, 2000, 100000}) {
      Layer layer = layer_of(torch::randn({size}));
      const auto shifted = [&](const torch::Tensor& tensor, int64_t by) {
        return torch::empty({size + 16}, tensor.options()).narrow(0, by, size).copy_(tensor);
      };
      layer.weight = shifted(layer.weight, begin);
      layer.gradient = shifted(layer.gradient, (3 * begin) % 8);
      ASSERT_TRUE(taken(layer));
      expect_as_aten({layer}, "begin " + std::to_string(begin));
    }
  }
}

TEST_P(CudaTableOfDtypes, AgreesWithATenForEveryLayout) {
  const auto images = torch::randn({24, 16, 3, 3});
  const auto channels_last = images.contiguous(torch::MemoryFormat::ChannelsLast);
  for (const int64_t unit_dim : {kWholeTensor, int64_t{0}, int64_t{1}}) {
    const std::string units = ", units along " + std::to_string(unit_dim);
    for (const double weight_decay : {0.0, 0.25}) {
      // Output units that do not follow one another in memory go through ATen.
      const Layer plain = layer_of(images, unit_dim, weight_decay);
      EXPECT_EQ(taken(plain), unit_dim != 1);
      expect_as_aten({plain}, "contiguous" + units);
      const Layer last = layer_of(channels_last, unit_dim, weight_decay);
      EXPECT_EQ(taken(last), unit_dim != 1);
      expect_as_aten({last}, "channels last" + units);
      const Layer transposed = layer_of(torch::randn({50, 70}).t(), unit_dim, weight_decay);
      EXPECT_EQ(taken(transposed), unit_dim != 0);
      expect_as_aten({transposed}, "transposed" + units);
      Layer mixed = layer_of(channels_last, unit_dim, weight_decay);
      mixed.gradient = mixed.gradient.contiguous();
      EXPECT_FALSE(taken(mixed));
      expect_as_aten({mixed}, "weight and gradient in different orders" + units);
    }
  }
}

TEST_P(CudaTableOfDtypes, AgreesWithATenForManyAndForLargeUnits) {
  for (const auto& sizes : std::vector<std::vector<int64_t>>{{1, 7},
                                                             {5, 1},
                                                             {1000, 8},
                                                             {1000, 33},
                                                             {3000, 2000},
                                                             {3, 40000},
                                                             {2, 500001},
                                                             {0, 4},
                                                             {4, 0}}) {
    const Layer layer = layer_of(torch::randn(sizes), 0, 0.125);
    ASSERT_TRUE(taken(layer)) << torch::IntArrayRef(sizes);
    expect_as_aten({layer}, "units");
  }
}

TEST_P(CudaTableOfDtypes, LeavesFreeAndZeroSpheresAsTheyAre) {
  for (const int64_t size : {20, 5000, 100000}) {
    Layer layer = layer_of(torch::randn({6, size}), 0, 0.5);
    layer.radius[1] = 0;
    layer.weight[2].zero_();
    const Layer before = copy_of(layer);
    expect_as_aten({layer}, "units of which one is free and one zero");
    EXPECT_TRUE(torch::equal(layer.weight[1], before.weight[1]));
    EXPECT_TRUE(torch::equal(layer.gradient[1], before.gradient[1]));
    EXPECT_TRUE(torch::equal(layer.gradient[2], before.gradient[2]));

    Layer free = layer_of(torch::randn({size}));
    free.radius.zero_();
    Layer zero = layer_of(torch::zeros({size}));
    Layer without_gradient = layer_of(torch::randn({size}));
    without_gradient.gradient.reset();
    expect_as_aten({free, zero, without_gradient, layer_of(torch::randn({size}))}, "layers");
    EXPECT_EQ(largest(zero.weight), 0);
  }
}

TEST_P(CudaTableOfDtypes, TakesAnyNumberOfLayersInOneCall) {
  for (const int count : {1, 300, 1024, 1025, 2500}) {
    std::vector<Layer> layers;
    for (int i = 0; i < count; ++i) {
      // Of all kinds, a few of them large.
      const int64_t size = i % 250 == 7 ? 50000 : 1 + (i * 37) % 400;
      layers.push_back(i % 3 == 0 ? layer_of(torch::randn({3, size}), 0, 0.1)
                                  : layer_of(torch::randn({size})));
    }
    expect_as_aten(layers, std::to_string(count) + " layers");
  }
}

TEST_P(CudaTableOfDtypes, GivesTheSameBitsEveryRun) {
  std::vector<Layer> layers;
  for (const int64_t size : {33, 1025, 36864, 36865, 3000001}) {
    layers.push_back(layer_of(torch::randn({size}), kWholeTensor, 0.1));
    layers.push_back(layer_of(torch::randn({3, size}), 0));
  }
  std::vector<Layer> first;
  for (int run = 0; run < 20; ++run) {
    const auto again = copies_of(layers);
    lawn::sphere::project_to_tangent_(again);
    lawn::sphere::rescale_(again);
    if (run == 0) first = again;
    for (size_t i = 0; i < layers.size(); ++i) {
      ASSERT_TRUE(torch::equal(again[i].gradient, first[i].gradient)) << run << ", " << i;
      ASSERT_TRUE(torch::equal(again[i].weight, first[i].weight)) << run << ", " << i;
    }
  }
}

TEST_F(CudaTable, TakesLayersOfDifferentDtypesInOneCall) {
  std::vector<Layer> layers;
  for (int i = 0; i < 5; ++i) {
    for (const auto& [weight, gradient] :
         std::vector<std::pair<torch::ScalarType, torch::ScalarType>>{
             {torch::kDouble, torch::kDouble},
             {torch::kBFloat16, torch::kFloat},
             {torch::kFloat, torch::kFloat},
             {torch::kHalf, torch::kHalf},
             {torch::kFloat, torch::kBFloat16}}) {  // the last goes through ATen
      layers.push_back(layer_of(torch::randn({500 + 9000 * i}), weight, gradient));
    }
  }
  expect_as_aten(layers, "mixed dtypes");
}

TEST_F(CudaTable, WorksOnSeveralDevicesInOneCall) {
  if (torch::cuda::device_count() < 2) GTEST_SKIP() << "needs two GPUs";
  std::vector<Layer> layers;
  for (const int64_t size : {100, 50000}) {
    for (const int index : {1, 0, 1}) {
      Layer layer = layer_of(torch::randn({size}), torch::kFloat, torch::kFloat);
      const torch::Device other(torch::kCUDA, static_cast<c10::DeviceIndex>(index));
      layer.weight = layer.weight.to(other);
      layer.gradient = layer.gradient.to(other);
      layer.radius = layer.radius.to(other);
      layers.push_back(layer);
    }
  }
  expect_as_aten(layers, "two devices");
}

/// The same network each time, in float64 on the CPU.
torch::nn::Sequential network() {
  torch::manual_seed(5);
  torch::nn::Sequential model(
      torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 8, 3)), torch::nn::ReLU(), torch::nn::Flatten(),
      torch::nn::Linear(8 * 6 * 6, 64), torch::nn::ReLU(), torch::nn::Linear(64, 5));
  model->to(torch::kDouble);
  return model;
}

/// `steps` steps of LAWN<Adam> on fixed data; the switch comes after 10.
void train(torch::nn::Sequential& model, int steps, lawn::Granularity granularity,
           std::vector<double>* norms_at_switch = nullptr) {
  const auto options = model->parameters().front().options();
  torch::manual_seed(6);
  const auto inputs = torch::randn({32, 3, 8, 8}, torch::kDouble).to(options);
  const auto labels = torch::randint(5, {32}).to(options.device());
  const auto selection = lawn::select_all_weights(*model);
  lawn::LAWN optimizer(
      torch::optim::Adam(model->parameters(), torch::optim::AdamOptions(1e-2).weight_decay(0.01)),
      selection, lawn::LAWNOptions().free_steps(10).granularity(granularity));
  for (int step = 0; step < steps; ++step) {
    if (step == 10 && norms_at_switch != nullptr) {
      for (const auto& weight : selection.parameters()) {
        norms_at_switch->push_back(weight.to(torch::kDouble).norm().item<double>());
      }
    }
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(model->forward(inputs), labels).backward();
    optimizer.step();
  }
}

TEST_F(CudaTable, TrainsAsOnTheCPU) {
  for (const auto granularity : {lawn::Granularity::kLayer, lawn::Granularity::kOutputUnit}) {
    auto on_cpu = network();
    auto on_gpu = network();
    on_gpu->to(device());
    train(on_cpu, 50, granularity);
    train(on_gpu, 50, granularity);
    const auto expected = on_cpu->parameters();
    const auto actual = on_gpu->parameters();
    for (size_t i = 0; i < expected.size(); ++i) {
      const torch::NoGradGuard no_grad;
      expect_near(actual[i].cpu(), expected[i],
                  tolerance(torch::kDouble).trajectory * largest(expected[i]),
                  "parameter " + std::to_string(i));
    }
  }
}

TEST_F(CudaTable, KeepsTheNormsOfWeightsInBFloat16) {
  auto model = network();
  model->to(device(), torch::kBFloat16);
  std::vector<double> norms;
  train(model, 40, lawn::Granularity::kLayer, &norms);
  const auto weights = lawn::select_all_weights(*model).parameters();
  ASSERT_EQ(weights.size(), norms.size());
  for (size_t i = 0; i < norms.size(); ++i) {
    const double norm = weights[i].to(torch::kDouble).norm().item<double>();
    EXPECT_NEAR(norm / norms[i], 1, tolerance(torch::kBFloat16).norm) << i;
  }
}

}  // namespace
