// SPDX-License-Identifier: Apache-2.0
#include <lawn/sphere/parts.h>

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/sphere/functions.h>

namespace lawn::sphere {
namespace {

using torch::Tensor;

struct Case {
  const char* name;
  std::vector<int64_t> shape;
  int64_t unit_dim;
};

const std::vector<Case> kCases = {
    {"whole", {7, 5}, kWholeTensor},
    {"one element", {1}, kWholeTensor},
    {"units", {6, 3, 2}, 0},
    {"a vector's units", {9}, 0},
    {"large", {3, 50'000}, kWholeTensor},
    {"large units", {3, 50'000}, 0},
    {"many", {3, 16, 33}, kWholeTensor},
    {"many units", {48, 11}, 0},
};

std::vector<Layer> make_layers(at::ScalarType dtype) {
  torch::manual_seed(3);
  std::vector<Layer> layers;
  for (const auto& c : kCases) {
    Layer layer;
    layer.weight = torch::randn(c.shape).to(dtype);
    layer.gradient = torch::randn(c.shape).to(dtype);
    layer.unit_dim = c.unit_dim;
    layer.weight_decay = 0.1;
    layer.radius = (torch::rand(radius_shape(layer)) + 0.5).to(accumulation_dtype(layer.weight));
    if (layer.radius.numel() > 2) layer.radius[1] = 0;  // a free sphere
    layers.push_back(layer);
  }
  layers[2].gradient.reset();
  return layers;
}

std::vector<Layer> copies_of(const std::vector<Layer>& layers) {
  auto copies = layers;
  for (auto& copy : copies) {
    copy.weight = copy.weight.clone();
    if (copy.gradient.defined()) copy.gradient = copy.gradient.clone();
  }
  return copies;
}

int64_t spheres_of(const Layer& layer) {
  return layer.unit_dim == kWholeTensor ? 1 : layer.weight.size(0);
}

/// Every layer, cut anywhere: also within spheres, so that several parts have one place.
std::vector<Part> cut(const std::vector<Layer>& layers) {
  std::vector<Part> parts;
  int64_t place = 1;  // not the first
  for (const auto& layer : layers) {
    const int64_t spheres = spheres_of(layer), numel = layer.weight.numel() / spheres;
    if (numel == 1 || spheres == 3) {
      parts.push_back({&layer, 0, spheres, numel, 0, place});
    } else {
      for (int64_t s = 0; s < spheres; ++s) {
        const int64_t border = numel / 3;
        if (border > 0) parts.push_back({&layer, s * numel, 1, border, s, place + s});
        parts.push_back({&layer, s * numel + border, 1, numel - border, s, place + s});
      }
    }
    place += spheres;
  }
  return parts;
}

int64_t places_of(const std::vector<Layer>& layers) {
  int64_t places = 1;
  for (const auto& layer : layers) places += spheres_of(layer);
  return places;
}

double tolerance(at::ScalarType dtype) {
  return dtype == torch::kDouble ? 1e-12 : dtype == torch::kFloat ? 1e-5 : 4e-2;
}

void expect_close(const Tensor& got, const Tensor& expected, double most, const std::string& what) {
  EXPECT_TRUE(torch::allclose(got, expected, most, most)) << what;
}

class Parts : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(Parts, DoTogetherWhatTheFunctionsOfWholeSpheresDo) {
  auto layers = make_layers(GetParam());
  auto twins = copies_of(layers);
  const auto parts = cut(layers);
  const auto sums = torch::zeros({2, places_of(layers)}, torch::kDouble);
  add_inner_products(parts, sums);
  project_to_tangent_(parts, sums);
  project_to_tangent_(twins);
  sums.zero_();
  add_inner_products(parts, sums);
  rescale_(parts, sums);
  rescale_(twins);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    expect_close(layers[i].weight, twins[i].weight, tolerance(GetParam()), kCases[i].name);
    if (!twins[i].gradient.defined()) continue;
    expect_close(layers[i].gradient, twins[i].gradient, tolerance(GetParam()), kCases[i].name);
  }
}

TEST_P(Parts, AreTheSameByATen) {
  auto layers = make_layers(GetParam());
  auto twins = copies_of(layers);
  const auto parts = cut(layers), twin_parts = cut(twins);
  const auto sums = torch::ones({2, places_of(layers)}, torch::kDouble), twin_sums = sums.clone();
  add_inner_products(parts, sums);
  for (const auto& part : twin_parts) aten::add_inner_products(part, twin_sums);
  expect_close(sums, twin_sums, 1e-5, "sums");
  EXPECT_EQ(sums[0][0].item<double>(), 1);  // nobody's place
  project_to_tangent_(parts, sums);
  rescale_(parts, sums);
  for (const auto& part : twin_parts) aten::project_to_tangent_(part, sums);
  for (const auto& part : twin_parts) aten::rescale_(part, sums);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    expect_close(layers[i].weight, twins[i].weight, tolerance(GetParam()), kCases[i].name);
    if (!twins[i].gradient.defined()) continue;
    expect_close(layers[i].gradient, twins[i].gradient, tolerance(GetParam()), kCases[i].name);
  }
}

TEST_P(Parts, TellAutogradWhatTheyWrote) {
  auto layers = make_layers(GetParam());
  const auto weight = layers[0].weight._version(), gradient = layers[0].gradient._version();
  const auto parts = cut(layers);
  const auto sums = torch::ones({2, places_of(layers)}, torch::kDouble);
  project_to_tangent_(parts, sums);
  rescale_(parts, sums);
  EXPECT_GT(layers[0].weight._version(), weight);
  EXPECT_GT(layers[0].gradient._version(), gradient);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Parts,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16,
                                           torch::kHalf),
                         [](const auto& dtype) { return std::string(c10::toString(dtype.param)); });

}  // namespace
}  // namespace lawn::sphere
