// SPDX-License-Identifier: Apache-2.0
#include <lawn/sphere/parts.h>

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/sphere/sphere.h>

namespace lawn::sphere {
namespace {

using torch::Tensor;

struct Case {
  const char* name;
  std::vector<int64_t> shape;
  int64_t unit_dim;
  bool strided = false;  ///< a gradient in another order than the weight, which ATen works on
};

const std::vector<Case> kCases = {
    {"whole", {7, 5}, kWholeTensor}, {"whole, strided", {7, 5}, kWholeTensor, true},
    {"units", {6, 3, 2}, 0},         {"units, strided", {6, 3}, 0, true},
    {"inner units", {4, 6, 3}, 1},   {"one element", {1}, kWholeTensor},
    {"a vector's units", {9}, 0},    {"large", {3, 50'000}, kWholeTensor},
    {"large units", {3, 50'000}, 0}, {"nothing", {0, 4}, kWholeTensor},
};

Layer make_layer(const Case& c, at::ScalarType dtype) {
  torch::manual_seed(3);
  Layer layer;
  layer.weight = torch::randn(c.shape).to(dtype);
  layer.gradient = torch::randn(c.shape).to(dtype);
  if (c.strided) layer.gradient = torch::randn({c.shape[1], c.shape[0]}).to(dtype).t();
  layer.unit_dim = c.unit_dim;
  layer.weight_decay = 0.1;
  layer.radius = torch::rand(radius_shape(layer)) + 0.5;
  if (layer.radius.numel() > 2) layer.radius[1] = 0;  // a free sphere
  layer.radius = layer.radius.to(accumulation_dtype(layer.weight));
  return layer;
}

Layer copy_of(const Layer& layer) {
  auto copy = layer;
  copy.weight = layer.weight.clone();
  copy.gradient = layer.gradient.clone();
  return copy;
}

double tolerance(at::ScalarType dtype) {
  return dtype == torch::kDouble ? 1e-12 : dtype == torch::kFloat ? 1e-5 : 4e-2;
}

class Parts : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(Parts, DoInTwoHalvesWhatTheFunctionsOfWholeSpheresDo) {
  std::vector<Layer> layers, twins;
  for (const auto& c : kCases) {
    layers.push_back(make_layer(c, GetParam()));
    twins.push_back(copy_of(layers.back()));
  }
  project_to_tangent_(layers, inner_products(layers));
  project_to_tangent_(twins);
  rescale_(layers, inner_products(layers));
  rescale_(twins);
  const double most = tolerance(GetParam());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    EXPECT_TRUE(torch::allclose(layers[i].gradient, twins[i].gradient, most, most))
        << kCases[i].name;
    EXPECT_TRUE(torch::allclose(layers[i].weight, twins[i].weight, most, most)) << kCases[i].name;
  }
}

TEST_P(Parts, GiveSumsInDoublePrecisionInTheOrderOfTheSpheres) {
  std::vector<Layer> layers;
  for (const auto& c : kCases) layers.push_back(make_layer(c, GetParam()));
  const auto sums = inner_products(layers);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto& layer = layers[i];
    const auto w = layer.weight.to(torch::kDouble), g = layer.gradient.to(torch::kDouble);
    std::vector<int64_t> dims;
    for (int64_t d = 0; d < w.dim(); ++d) {
      if (d != layer.unit_dim) dims.push_back(d);
    }
    const auto over = [&](const Tensor& products) {
      return (dims.empty() ? products : products.sum(dims)).reshape({-1});
    };
    const auto expected = torch::stack({over(g * w), over(w * w)});
    ASSERT_EQ(sums[i].scalar_type(), torch::kDouble);
    ASSERT_EQ(sums[i].sizes(), expected.sizes()) << kCases[i].name;
    EXPECT_TRUE(torch::allclose(sums[i], expected, 1e-5, 1e-3)) << kCases[i].name;
  }
}

TEST_P(Parts, SumUpToTheWhole) {
  const Layer whole = make_layer({"", {6, 40}, kWholeTensor}, GetParam());
  std::vector<Layer> halves(2, whole);
  for (int64_t i = 0; i < 2; ++i) {
    auto& half = halves[static_cast<std::size_t>(i)];
    half.weight = whole.weight.narrow(0, 3 * i, 3).clone();
    half.gradient = whole.gradient.narrow(0, 3 * i, 3).clone();
  }
  const auto sums = inner_products(halves);
  const auto total = sums[0] + sums[1];
  project_to_tangent_(halves, {total, total});
  rescale_(halves, {total, total});
  project_to_tangent_(std::vector<Layer>{whole});
  rescale_(std::vector<Layer>{whole});
  const double most = tolerance(GetParam());
  EXPECT_TRUE(torch::allclose(torch::cat({halves[0].gradient, halves[1].gradient}), whole.gradient,
                              most, most));
  EXPECT_TRUE(
      torch::allclose(torch::cat({halves[0].weight, halves[1].weight}), whole.weight, most, most));
}

TEST_P(Parts, PassOverGradientsThatAreMissing) {
  auto layer = make_layer(kCases[2], GetParam());
  layer.gradient.reset();
  const auto sums = inner_products(layer);
  EXPECT_TRUE((sums[0][0] == 0).all().item<bool>());
  EXPECT_TRUE((sums[0][1] > 0).all().item<bool>());
  project_to_tangent_(layer, sums);
  EXPECT_FALSE(layer.gradient.defined());
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Parts,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16,
                                           torch::kHalf),
                         [](const auto& dtype) { return std::string(c10::toString(dtype.param)); });

}  // namespace
}  // namespace lawn::sphere
