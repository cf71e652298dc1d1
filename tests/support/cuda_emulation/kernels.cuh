// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/sphere/aten.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/cuda/launchers.cuh>

#include "tests/support/cuda_emulation/heap_tensor.h"
#include "tests/support/tolerance.h"

/// What tests of the CUDA kernels on the host have in common: layers, and ATen in float64 to
/// compare with. The kernels are in an unnamed namespace, and so is this.
namespace {

using cuda_emulation::Machine;
using cuda_emulation::Order;
using cuda_emulation::Runtime;
using lawn::sphere::Dtype;
using lawn::sphere::Flat;
using lawn::sphere::kWholeTensor;
using lawn::sphere::Layer;
using lawn::sphere::cuda::Limits;
using lawn::testing::heap_tensor;
using lawn::testing::tolerance;

constexpr int64_t kBlockSphere = Limits{}.block_sphere;
constexpr int64_t kChunk = Limits{}.chunk;
/// The functions on layers.
enum class Function { kNorms, kProjection, kRescaling };
constexpr Function kFunctions[] = {Function::kNorms, Function::kProjection, Function::kRescaling};

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
inline Layer make_layer(Types types, int64_t spheres, int64_t numel, Skipped skipped = {},
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
inline Layer twin_of(const Layer& layer) {
  Layer twin = layer;
  twin.weight = layer.weight.to(torch::kDouble).clone();
  if (layer.gradient.defined()) twin.gradient = layer.gradient.to(torch::kDouble).clone();
  if (layer.radius.defined()) twin.radius = layer.radius.to(torch::kDouble).clone();
  return twin;
}

/// @param scale  what `relative` is relative to
inline void expect_near(const torch::Tensor& actual, const torch::Tensor& expected, double relative,
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
    torch::set_num_threads(1);  // the tensors are small: threads would mostly wait to be woken
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
  static int run(Function function, const std::vector<Layer>& layers,
                 const Limits* limits = nullptr) {
    namespace cuda = lawn::sphere::cuda;
    std::vector<Flat> flats;
    for (const Layer& layer : layers) {
      EXPECT_TRUE(lawn::sphere::is_flat(layer));
      flats.push_back(lawn::sphere::flatten(layer));
    }
    const auto count = static_cast<int64_t>(flats.size());
    const auto bytes = static_cast<std::size_t>(
        limits == nullptr ? cuda::kEntries.workspace_bytes(flats.data(), count)
                          : cuda::workspace_bytes(flats.data(), count, *limits));
    const std::unique_ptr<char[]> workspace(new char[bytes]);
    std::memset(workspace.get(), 0xff, bytes);

    const int before = Machine::get().launches;
    const char* error = nullptr;
    if (limits == nullptr) {
      const auto call = function == Function::kNorms        ? cuda::kEntries.norms
                        : function == Function::kProjection ? cuda::kEntries.project_to_tangent
                                                            : cuda::kEntries.rescale;
      error = call(flats.data(), count, workspace.get(), nullptr);
    } else {
      const auto call = function == Function::kNorms ? cuda::launch_operation<cuda::Norm>
                        : function == Function::kProjection
                            ? cuda::launch_operation<cuda::TangentProjection>
                            : cuda::launch_operation<cuda::Rescaling>;
      error = call(flats.data(), count, workspace.get(), nullptr, *limits);
    }
    EXPECT_EQ(error, nullptr) << error;
    return Machine::get().launches - before;
  }

  /// Runs all functions, and ATen beside them.
  /// @return the most launches that one of them took
  static int run_and_compare(const std::vector<Layer>& layers, const Limits* limits = nullptr) {
    int launches = 0;
    for (const Function function : kFunctions) {
      std::vector<Layer> given = layers;
      std::vector<Layer> twins;
      for (Layer& layer : given) {
        if (function == Function::kNorms)
          layer.radius = heap_tensor(torch::full_like(layer.radius, 7));
        twins.push_back(twin_of(layer));
      }
      launches = std::max(launches, run(function, given, limits));
      for (std::size_t i = 0; i < given.size(); ++i) {
        const Layer& layer = given[i];
        const auto what = "function " + std::to_string(static_cast<int>(function)) + ", layer " +
                          std::to_string(i) + " of " + std::to_string(layer.weight.numel()) + ' ' +
                          c10::toString(layer.weight.scalar_type());
        compare(function, layer, twins[i], what);
      }
    }
    return launches;
  }

  static void compare(Function function, const Layer& layer, const Layer& twin,
                      const std::string& what) {
    if (function == Function::kNorms) {
      const auto norm = lawn::sphere::aten::norm(twin);
      expect_near(layer.radius, norm, tolerance(layer.radius.scalar_type()).norm, norm, what);
    } else if (function == Function::kProjection && twin.gradient.defined()) {
      const auto before = twin.gradient.clone();
      lawn::sphere::aten::project_to_tangent_(twin);
      expect_near(layer.gradient, twin.gradient, tolerance(layer.gradient.scalar_type()).step,
                  before, what);
    } else if (function == Function::kRescaling) {
      lawn::sphere::aten::rescale_(twin);
    }
    expect_near(layer.weight, twin.weight, tolerance(layer.weight.scalar_type()).norm, twin.weight,
                what);
  }
};

}  // namespace
