// SPDX-License-Identifier: Apache-2.0
//
// The CPU's table against its ATen twin.

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <lawn/sphere/aten.h>
#include <lawn/sphere/cpu/table.h>
#include <lawn/sphere/functions.h>

#include "tests/support/tolerance.h"

namespace {

using lawn::sphere::kWholeTensor;
using lawn::sphere::Layer;
using lawn::sphere::cpu::kChunk;
using lawn::sphere::cpu::kStream;
using lawn::sphere::cpu::kTable;
using lawn::testing::tolerance;
using torch::ScalarType;

constexpr ScalarType kDtypes[] = {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf};

/// `layer` on memory of its own.
Layer copy_of(const Layer& layer) {
  Layer copy = layer;
  copy.weight = layer.weight.clone();
  if (layer.gradient.defined()) copy.gradient = layer.gradient.clone();
  return copy;
}

Layer random_layer(const std::vector<int64_t>& shape, ScalarType weight, ScalarType gradient,
                   int64_t unit_dim = kWholeTensor, double decay = 0.125) {
  Layer layer{torch::randn(shape, torch::kDouble).to(weight),
              torch::randn(shape, torch::kDouble).to(gradient),
              {},
              unit_dim,
              decay};
  layer.radius = torch::rand(lawn::sphere::radius_shape(layer), torch::kDouble)
                     .add(0.5)
                     .to(lawn::sphere::accumulation_dtype(layer.weight));
  return layer;
}

/// Largest difference of two tensors over the largest element of the second.
double difference(const torch::Tensor& actual, const torch::Tensor& expected) {
  if (expected.numel() == 0) return 0;
  const auto e = expected.to(torch::kDouble);
  return ((actual.to(torch::kDouble) - e).abs().max() / (e.abs().max() + 1e-30)).item<double>();
}

/// Norms, projection and rescaling of `layers` by the table equal those by ATen.
void expect_equals_aten(const std::vector<Layer>& layers, const std::string& what) {
  std::vector<Layer> fast;
  std::vector<Layer> slow;
  for (const auto& layer : layers) {
    ASSERT_TRUE(kTable.takes(layer)) << what;
    fast.push_back(copy_of(layer));
    slow.push_back(copy_of(layer));
    ASSERT_EQ(fast.back().weight.strides(), layer.weight.strides()) << what;
  }
  const auto norms = lawn::sphere::norms(fast);
  kTable.project_to_tangent_(fast);
  kTable.rescale_(fast);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto dtype = layers[i].weight.scalar_type();
    const auto limit = tolerance(dtype);
    EXPECT_LE(difference(norms[i], lawn::sphere::aten::norm(slow[i])),
              tolerance(lawn::sphere::accumulation_dtype(layers[i].weight)).norm)
        << what << ", norm of layer " << i;
    lawn::sphere::aten::project_to_tangent_(slow[i]);
    lawn::sphere::aten::rescale_(slow[i]);
    const auto gradient_limit =
        std::max(limit.step,
                 slow[i].gradient.defined() ? tolerance(slow[i].gradient.scalar_type()).step : 0);
    if (slow[i].gradient.defined()) {
      // Around the gradient's own size: a unit of one element is projected to nothing.
      EXPECT_LE(difference(fast[i].gradient.to(torch::kDouble) + 1,
                           slow[i].gradient.to(torch::kDouble) + 1),
                gradient_limit)
          << what << ", gradient of layer " << i;
    }
    EXPECT_LE(difference(fast[i].weight, slow[i].weight), limit.norm * 2)
        << what << ", weight of layer " << i;
  }
}

class SphereCPU : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(11); }
};

TEST_F(SphereCPU, EqualsATenForEveryPairOfDtypes) {
  for (const auto weight : kDtypes) {
    for (const auto gradient : kDtypes) {
      const auto what = std::string(c10::toString(weight)) + " and " + c10::toString(gradient);
      expect_equals_aten(
          {random_layer({7, 300}, weight, gradient), random_layer({7, 300}, weight, gradient, 0),
           random_layer({7, 301, 9}, weight, gradient)},
          what);
    }
  }
}

TEST_F(SphereCPU, EqualsATenForEverySize) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    std::vector<Layer> layers;
    for (const int64_t size :
         {int64_t{0}, int64_t{1}, int64_t{31}, int64_t{32}, int64_t{33}, 4 * kStream - 1,
          4 * kStream, 4 * kStream + 1, kChunk - 1, kChunk, kChunk + 1, 3 * kChunk + 5}) {
      layers.push_back(random_layer({size}, dtype, dtype));
    }
    expect_equals_aten(layers, c10::toString(dtype));
    for (std::size_t i = 0; i < layers.size(); ++i) {
      expect_equals_aten({layers[i]}, c10::toString(dtype) + (", alone " + std::to_string(i)));
    }
  }
  expect_equals_aten({random_layer({3'000'017}, torch::kFloat, torch::kFloat)}, "millions");
}

TEST_F(SphereCPU, EqualsATenForEveryFlatLayout) {
  for (const auto dtype : {torch::kFloat, torch::kHalf}) {
    auto channels_last = random_layer({6, 5, 3, 3}, dtype, dtype, 0);
    channels_last.weight = channels_last.weight.contiguous(torch::MemoryFormat::ChannelsLast);
    channels_last.gradient = channels_last.gradient.contiguous(torch::MemoryFormat::ChannelsLast);
    auto transposed = random_layer({6, 50}, dtype, dtype);
    transposed.weight = transposed.weight.t();
    transposed.gradient = transposed.gradient.t();
    auto columns = random_layer({6, 50}, dtype, dtype, 0);  // the units are the columns of a view
    columns.weight = columns.weight.t();
    columns.gradient = columns.gradient.t();
    columns.unit_dim = 1;
    auto pointwise = random_layer({6, 5, 1, 1}, dtype, dtype);  // strides that say nothing
    pointwise.gradient = pointwise.gradient.contiguous(torch::MemoryFormat::ChannelsLast);
    // Views into a larger vector, at odd places.
    auto misaligned = random_layer({1001}, dtype, dtype);
    misaligned.weight = misaligned.weight.slice(0, 1, 1000);
    misaligned.gradient = misaligned.gradient.slice(0, 2, 1001);
    expect_equals_aten({channels_last, transposed, columns, pointwise, misaligned},
                       c10::toString(dtype));
  }
}

TEST_F(SphereCPU, EqualsATenForOutputUnitsOfEverySize) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    expect_equals_aten(
        {random_layer({1, 9}, dtype, dtype, 0), random_layer({9, 1}, dtype, dtype, 0),
         random_layer({3, 0}, dtype, dtype, 0), random_layer({0, 3}, dtype, dtype, 0),
         random_layer({2000, 33}, dtype, dtype, 0), random_layer({3, kChunk}, dtype, dtype, 0),
         random_layer({3, kChunk + 1}, dtype, dtype, 0)},
        c10::toString(dtype));
  }
}

TEST_F(SphereCPU, LeavesToATenWhatIsNotFlat) {
  const auto flat = random_layer({4, 6}, torch::kFloat, torch::kFloat, 0);
  EXPECT_TRUE(kTable.takes(flat));
  auto strided = flat;
  strided.weight = torch::randn({8, 6}).slice(0, 0, 8, 2);
  EXPECT_FALSE(kTable.takes(strided));
  auto expanded = flat;
  expanded.gradient = torch::randn({4, 1}).expand({4, 6});
  EXPECT_FALSE(kTable.takes(expanded));
  auto other_order = flat;
  other_order.gradient = torch::randn({6, 4}).t();
  EXPECT_FALSE(kTable.takes(other_order));
  auto scattered_units = flat;
  scattered_units.unit_dim = 1;
  scattered_units.radius = torch::ones({6});
  EXPECT_FALSE(kTable.takes(scattered_units));
  auto wide_radius = flat;
  wide_radius.radius = flat.radius.to(torch::kDouble);
  EXPECT_FALSE(kTable.takes(wide_radius));
  auto sparse = flat;
  sparse.gradient = torch::eye(4, 6).to_sparse();
  EXPECT_FALSE(kTable.takes(sparse));
}

TEST_F(SphereCPU, GivesTheSameBitsForAnyNumberOfThreads) {
  std::vector<Layer> layers;
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {64}, {900'001}, {17, 33}, {1 << 16}, {256, 2304}, {5}, {3, kChunk + 7}, {300'000}}) {
    for (const int64_t unit : {kWholeTensor, int64_t{0}}) {
      layers.push_back(random_layer(shape, torch::kFloat, torch::kFloat, unit));
    }
    layers.push_back(random_layer(shape, torch::kBFloat16, torch::kFloat));
  }
  const int before = at::get_num_threads();
  std::vector<std::vector<Layer>> runs;
  std::vector<std::vector<at::Tensor>> norms;
  for (const int threads : {1, 2, 3, 16}) {
    at::set_num_threads(threads);
    runs.emplace_back();
    for (const auto& layer : layers) runs.back().push_back(copy_of(layer));
    norms.push_back(lawn::sphere::norms(runs.back()));
    lawn::sphere::project_to_tangent_(runs.back());
    lawn::sphere::rescale_(runs.back());
  }
  at::set_num_threads(before);
  for (std::size_t run = 1; run < runs.size(); ++run) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      EXPECT_TRUE(torch::equal(norms[run][i], norms[0][i])) << run << ", layer " << i;
      EXPECT_TRUE(torch::equal(runs[run][i].weight, runs[0][i].weight)) << run << ", layer " << i;
      EXPECT_TRUE(torch::equal(runs[run][i].gradient, runs[0][i].gradient))
          << run << ", layer " << i;
    }
  }
}

TEST_F(SphereCPU, GivesAnEmptyLayerTheNormZeroOnAnyNumberOfThreads) {
  auto& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/true);  // memory of new tensors is NaN
  const int before = at::get_num_threads();
  for (const int threads : {1, 2, 3, 16}) {
    at::set_num_threads(threads);
    const auto norms = lawn::sphere::norms({random_layer({256, 256}, torch::kFloat, torch::kFloat),
                                            random_layer({0, 3}, torch::kFloat, torch::kFloat)});
    EXPECT_EQ(norms[1].item<double>(), 0) << threads;
  }
  at::set_num_threads(before);
  context.setDeterministicAlgorithms(false, false);
}

TEST_F(SphereCPU, SaysToAutogradThatMemoryHasChanged) {
  const auto layer = random_layer({8}, torch::kFloat, torch::kFloat);
  const auto weight = layer.weight._version();
  const auto gradient = layer.gradient._version();
  lawn::sphere::project_to_tangent_(layer);
  EXPECT_EQ(layer.weight._version(), weight);
  EXPECT_GT(layer.gradient._version(), gradient);
  lawn::sphere::rescale_(layer);
  EXPECT_GT(layer.weight._version(), weight);
}

TEST_F(SphereCPU, TreatsBadNumbersInLargeSpheresAsATenDoes) {
  for (const double bad :
       {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    auto layer = random_layer({2 * kChunk}, torch::kFloat, torch::kFloat, kWholeTensor, 0.0);
    layer.gradient[kChunk + 3] = bad;
    const auto gradient = layer.gradient.clone();
    lawn::sphere::project_to_tangent_(layer);
    EXPECT_TRUE(torch::allclose(layer.gradient, gradient, 0, 0, /*equal_nan=*/true)) << bad;
    layer.weight[5] = bad;
    const auto weight = layer.weight.clone();
    lawn::sphere::rescale_(layer);
    EXPECT_TRUE(torch::allclose(layer.weight, weight, 0, 0, /*equal_nan=*/true)) << bad;
  }
}

/// Each loop as compiled for any CPU against itself as compiled for this one.
TEST_F(SphereCPU, LoopsForAWiderInstructionSetEqualThoseForAnyCPU) {
  using namespace lawn::sphere::cpu;
  if (!has_avx2()) GTEST_SKIP() << "this CPU has no AVX2";
  for (const int64_t numel : {int64_t{0}, int64_t{7}, int64_t{600}, 8 * kStream + 531}) {
    const auto w = torch::randn({numel});
    const auto g = torch::randn({numel});
    const float* weights = w.data_ptr<float>();
    const auto one = run_baseline<InnerProducts>(g.data_ptr<float>(), weights, numel);
    const auto two = run_avx2<InnerProducts>(g.data_ptr<float>(), weights, numel);
    EXPECT_NEAR(one.gw, two.gw, tolerance(torch::kFloat).step * (1 + one.ww));
    EXPECT_NEAR(one.ww, two.ww, tolerance(torch::kFloat).norm * (1 + one.ww));
    EXPECT_NEAR(run_baseline<SumOfSquares>(weights, numel), run_avx2<SumOfSquares>(weights, numel),
                1e-6 * (1 + one.ww));
    auto baseline = g.clone();
    auto wide = g.clone();
    run_baseline<Subtract>(baseline.data_ptr<float>(), weights, numel, 0.3F);
    run_avx2<Subtract>(wide.data_ptr<float>(), weights, numel, 0.3F);
    EXPECT_TRUE(torch::equal(baseline, wide));
    run_baseline<Scale>(baseline.data_ptr<float>(), numel, 0.3F);
    run_avx2<Scale>(wide.data_ptr<float>(), numel, 0.3F);
    EXPECT_TRUE(torch::equal(baseline, wide));
  }
}

}  // namespace
