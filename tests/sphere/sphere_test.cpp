// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <lawn/sphere/functions.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::sphere::kWholeTensor;
using lawn::sphere::Layer;
using lawn::testing::tolerance;

/// The mathematics of design.md, 1, element by element in double: the slow, plain twin.
struct Twin {
  std::vector<double> weight;
  std::vector<double> gradient;
  std::vector<int64_t> unit;  ///< sphere of each element
  int64_t units = 1;

  explicit Twin(const Layer& layer) {
    const auto w = layer.weight.detach().to(torch::kDouble).contiguous();
    weight.assign(w.data_ptr<double>(), w.data_ptr<double>() + w.numel());
    if (layer.gradient.defined()) {
      const auto g = layer.gradient.to(torch::kDouble).contiguous();
      gradient.assign(g.data_ptr<double>(), g.data_ptr<double>() + g.numel());
    }
    unit.assign(weight.size(), 0);
    if (layer.unit_dim == kWholeTensor) return;
    units = w.size(layer.unit_dim);
    int64_t inner = 1;
    for (int64_t d = layer.unit_dim + 1; d < w.dim(); ++d) inner *= w.size(d);
    for (size_t i = 0; i < unit.size(); ++i) {
      unit[i] = (static_cast<int64_t>(i) / inner) % units;
    }
  }

  std::vector<double> dot(const std::vector<double>& a, const std::vector<double>& b) const {
    std::vector<double> sums(static_cast<size_t>(units), 0.0);
    for (size_t i = 0; i < a.size(); ++i) sums[static_cast<size_t>(unit[i])] += a[i] * b[i];
    return sums;
  }

  std::vector<double> norms() const {
    auto sums = dot(weight, weight);
    for (auto& sum : sums) sum = std::sqrt(sum);
    return sums;
  }

  void project(double decay) {
    const auto gw = dot(gradient, weight);
    const auto ww = dot(weight, weight);
    for (size_t i = 0; i < gradient.size(); ++i) {
      const auto u = static_cast<size_t>(unit[i]);
      gradient[i] -= (gw[u] / ww[u] + decay) * weight[i];
    }
  }

  void rescale(const std::vector<double>& radius) {
    const auto n = norms();
    for (size_t i = 0; i < weight.size(); ++i) {
      weight[i] *= radius[static_cast<size_t>(unit[i])] / n[static_cast<size_t>(unit[i])];
    }
  }
};

void expect_near(const torch::Tensor& actual, const std::vector<double>& expected, double relative,
                 const std::string& what) {
  const auto a = actual.detach().to(torch::kDouble).contiguous();
  ASSERT_EQ(a.numel(), static_cast<int64_t>(expected.size())) << what;
  double scale = 0;
  for (const double e : expected) scale = std::max(scale, std::abs(e));
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(a.data_ptr<double>()[i], expected[i], relative * (scale + 1e-30))
        << what << ", element " << i;
  }
}

/// One layout of a weight and its gradient.
struct Case {
  std::string name;
  torch::Tensor weight;
  torch::Tensor gradient;
  int64_t unit_dim;
};

std::vector<Case> cases(torch::ScalarType dtype) {
  torch::manual_seed(7);
  const auto make = [&](std::vector<int64_t> shape) {
    return torch::randn(shape, torch::kDouble).to(dtype);
  };
  std::vector<Case> all;
  for (const int64_t dim : {kWholeTensor, int64_t{0}, int64_t{1}}) {
    const auto suffix = ", unit_dim " + std::to_string(dim);
    all.push_back({"matrix" + suffix, make({5, 7}), make({5, 7}), dim});
    all.push_back({"convolution" + suffix, make({4, 3, 3, 3}), make({4, 3, 3, 3}), dim});
    all.push_back({"transposed" + suffix, make({7, 5}).t(), make({5, 7}), dim});
    all.push_back({"strided" + suffix, make({10, 14}).slice(0, 0, 10, 2).slice(1, 0, 14, 2),
                   make({7, 5}).t(), dim});
    all.push_back({"channels last" + suffix,
                   make({4, 3, 3, 3}).contiguous(torch::MemoryFormat::ChannelsLast),
                   make({4, 3, 3, 3}), dim});
    all.push_back({"one row" + suffix, make({1, 9}), make({1, 9}), dim});
  }
  all.push_back({"vector", make({9}), make({9}), kWholeTensor});
  all.push_back({"vector cut into units", make({9}), make({9}), 0});
  all.push_back({"scalar", make({}), make({}), kWholeTensor});
  return all;
}

class Sphere : public ::testing::TestWithParam<torch::ScalarType> {};

TEST_P(Sphere, NormsEqualThePlainTwins) {
  for (auto& c : cases(GetParam())) {
    const Layer layer{c.weight, {}, {}, c.unit_dim, 0};
    const auto norm = lawn::sphere::norms(layer).front();
    EXPECT_EQ(norm.scalar_type(), GetParam() == torch::kDouble ? torch::kDouble : torch::kFloat);
    expect_near(norm, Twin(layer).norms(), tolerance(GetParam()).norm, c.name);
  }
}

TEST_P(Sphere, ProjectionEqualsThePlainTwins) {
  for (const double decay : {0.0, 0.25}) {
    for (auto& c : cases(GetParam())) {
      const Layer layer{c.weight, c.gradient, {}, c.unit_dim, decay};
      Twin twin(layer);
      twin.project(decay);
      const auto weight = c.weight.clone();
      lawn::sphere::project_to_tangent_(layer);
      // Where a unit is one element the exact answer is 0; the scale is then the gradient's own.
      for (auto& g : twin.gradient) g += 1;
      expect_near(c.gradient.to(torch::kDouble) + 1, twin.gradient, tolerance(GetParam()).step,
                  c.name);
      EXPECT_TRUE(torch::equal(c.weight, weight)) << c.name;
    }
  }
}

TEST_P(Sphere, RescalingEqualsThePlainTwins) {
  for (auto& c : cases(GetParam())) {
    Layer layer{c.weight, {}, {}, c.unit_dim, 0};
    Twin twin(layer);
    std::vector<double> radius;
    for (int64_t u = 0; u < twin.units; ++u) radius.push_back(0.5 + static_cast<double>(u));
    layer.radius =
        torch::tensor(radius, torch::kDouble).to(lawn::sphere::accumulation_dtype(c.weight));
    if (c.unit_dim == kWholeTensor) layer.radius = layer.radius.reshape({});
    twin.rescale(radius);
    lawn::sphere::rescale_(layer);
    expect_near(c.weight, twin.weight, tolerance(GetParam()).norm, c.name);
  }
}

TEST_P(Sphere, ProjectionLeavesNothingAlongTheWeight) {
  for (auto& c : cases(GetParam())) {
    const Layer layer{c.weight, c.gradient, {}, c.unit_dim, 0};
    lawn::sphere::project_to_tangent_(layer);
    const auto product = (c.gradient.to(torch::kDouble) * c.weight.to(torch::kDouble)).sum();
    const auto lengths = c.weight.to(torch::kDouble).norm() * 3.0;
    EXPECT_NEAR(product.item<double>(), 0, tolerance(GetParam()).step * lengths.item<double>())
        << c.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Sphere,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16,
                                           torch::kHalf),
                         lawn::testing::dtype_name);

TEST(SphereMixedDtypes, ProjectAFloatGradientOfABFloat16Weight) {
  torch::manual_seed(1);
  const auto weight = torch::randn({6, 4}).to(torch::kBFloat16);
  const auto gradient = torch::randn({6, 4});
  const Layer layer{weight, gradient, {}, kWholeTensor, 0.125};
  Twin twin(layer);
  twin.project(0.125);
  lawn::sphere::project_to_tangent_(layer);
  expect_near(gradient, twin.gradient, tolerance(torch::kFloat).step, "mixed");
}

TEST(SphereSums, LoseNothingVisibleOverAMillionElements) {
  torch::manual_seed(2);
  // All positive, so that the running sum of a plain float32 loop would drop the small terms.
  const auto weight = torch::rand({1 << 22}) + 0.5;
  const Layer layer{weight, {}, {}, kWholeTensor, 0};
  const double exact = weight.to(torch::kDouble).norm().item<double>();
  EXPECT_NEAR(lawn::sphere::norms(layer).front().item<double>() / exact, 1, 2e-7);
}

TEST(SphereEdges, ZeroWeightLeavesItsGradientAsItIs) {
  const auto weight = torch::zeros({3, 2});
  const auto gradient = torch::ones({3, 2});
  lawn::sphere::project_to_tangent_(Layer{weight, gradient, {}, kWholeTensor, 0.5});
  EXPECT_TRUE(torch::equal(gradient, torch::ones({3, 2})));
  lawn::sphere::rescale_(Layer{weight, {}, torch::tensor(1.0f).reshape({}), kWholeTensor, 0});
  EXPECT_TRUE(torch::equal(weight, torch::zeros({3, 2})));
}

TEST(SphereEdges, RadiusZeroMarksAFreeUnit) {
  torch::manual_seed(3);
  const auto weight = torch::randn({3, 4});
  const auto gradient = torch::randn({3, 4});
  const auto weight_before = weight.clone();
  const auto gradient_before = gradient.clone();
  const Layer layer{weight, gradient, torch::tensor({2.0f, 0.0f, 1.0f}), 0, 0.5};
  lawn::sphere::project_to_tangent_(layer);
  lawn::sphere::rescale_(layer);
  EXPECT_TRUE(torch::equal(weight[1], weight_before[1]));
  EXPECT_TRUE(torch::equal(gradient[1], gradient_before[1]));
  EXPECT_NEAR(weight[0].norm().item<double>(), 2, tolerance(torch::kFloat).norm);
  EXPECT_FALSE(torch::equal(gradient[2], gradient_before[2]));
}

TEST(SphereEdges, InfiniteGradientStaysTheOnlyBadElement) {
  const auto weight = torch::ones({4});
  const auto gradient = torch::tensor({1.0f, std::numeric_limits<float>::infinity(), 2.0f, 3.0f});
  const auto before = gradient.clone();
  lawn::sphere::project_to_tangent_(Layer{weight, gradient, {}, kWholeTensor, 0});
  EXPECT_TRUE(torch::equal(gradient, before));
}

TEST(SphereEdges, NormThatOverflowsLeavesTheWeightAsItIs) {
  const auto weight = torch::full({4}, 1e200, torch::kDouble);
  const auto before = weight.clone();
  lawn::sphere::rescale_(Layer{weight, {}, torch::tensor(1.0, torch::kDouble), kWholeTensor, 0});
  EXPECT_TRUE(torch::equal(weight, before));
}

TEST(SphereEdges, EmptyTensorsPassThrough) {
  for (const int64_t dim : {kWholeTensor, int64_t{0}, int64_t{1}}) {
    const auto weight = torch::zeros({0, 3});
    const Layer layer{weight, torch::zeros({0, 3}), {}, dim, 0.5};
    const auto norm = lawn::sphere::norms(layer).front();
    EXPECT_EQ(norm.numel(), dim == kWholeTensor ? 1 : weight.size(dim));
    Layer with_radius = layer;
    with_radius.radius = torch::ones_like(norm);
    lawn::sphere::project_to_tangent_(with_radius);
    lawn::sphere::rescale_(with_radius);
    EXPECT_EQ(weight.numel(), 0);
  }
  lawn::sphere::rescale_({});
  EXPECT_TRUE(lawn::sphere::norms({}).empty());
}

/// A table that takes float64 alone and counts what it is given.
struct CountingTable {
  static inline int calls = 0;
  static inline size_t layers = 0;

  static bool takes(const Layer& layer) { return layer.weight.scalar_type() == torch::kDouble; }
  static void norms(c10::ArrayRef<Layer> all) {
    count(all);
    for (const auto& layer : all) layer.radius.copy_(lawn::sphere::aten::norm(layer));
  }
  static void project(c10::ArrayRef<Layer> all) {
    count(all);
    for (const auto& layer : all) lawn::sphere::aten::project_to_tangent_(layer);
  }
  static void rescale(c10::ArrayRef<Layer> all) {
    count(all);
    for (const auto& layer : all) lawn::sphere::aten::rescale_(layer);
  }
  static void count(c10::ArrayRef<Layer> all) {
    ++calls;
    layers += all.size();
  }
};

class SphereTable : public ::testing::Test {
 protected:
  void SetUp() override {
    CountingTable::calls = 0;
    CountingTable::layers = 0;
    lawn::sphere::register_table(c10::kCPU, &table_);
  }
  void TearDown() override { lawn::sphere::register_table(c10::kCPU, nullptr); }

  static constexpr lawn::sphere::Table table_{&CountingTable::takes, &CountingTable::norms,
                                              &CountingTable::project, &CountingTable::rescale};
};

TEST_F(SphereTable, GetsItsLayersInOneCallAndATenTheRest) {
  torch::manual_seed(4);
  std::vector<Layer> layers;
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kDouble}) {
    layers.push_back({torch::randn({3, 3}, dtype), torch::randn({3, 3}, dtype),
                      torch::ones({}, dtype), kWholeTensor, 0});
  }
  lawn::sphere::project_to_tangent_(layers);
  EXPECT_EQ(CountingTable::calls, 1);
  EXPECT_EQ(CountingTable::layers, 2U);
  lawn::sphere::rescale_(layers);
  const auto norms = lawn::sphere::norms(layers);
  EXPECT_EQ(CountingTable::calls, 3);
  for (size_t i = 0; i < layers.size(); ++i) {
    EXPECT_NEAR(norms[i].item<double>(), 1, tolerance(torch::kFloat).norm) << i;
    EXPECT_NEAR((layers[i].weight * layers[i].gradient).sum().item<double>(), 0,
                tolerance(torch::kFloat).norm)
        << i;
  }
}

TEST_F(SphereTable, TakesAWholeListWithoutSplittingIt) {
  const std::vector<Layer> layers(
      5, {torch::ones({2}, torch::kDouble), {}, torch::ones({}, torch::kDouble), kWholeTensor, 0});
  lawn::sphere::rescale_(layers);
  EXPECT_EQ(CountingTable::calls, 1);
  EXPECT_EQ(CountingTable::layers, 5U);
}

TEST(SphereRegistration, RefusesATableWithHoles) {
  static constexpr lawn::sphere::Table kHoles{};
  lawn::testing::expect_refusal([] { lawn::sphere::register_table(c10::kCPU, &kHoles); },
                                "expected every function of the table to be set");
  EXPECT_EQ(lawn::sphere::table_of(c10::kCPU), &lawn::sphere::cpu::kTable);
}

}  // namespace
