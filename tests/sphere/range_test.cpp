// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>
#include <lawn/optim/lars.h>
#include <lawn/sphere/aten.h>
#include <lawn/sphere/functions.h>
#include <lawn/sphere/parts.h>

#include "tests/support/range.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

/// Numbers whose squares float32 cannot hold.
namespace {

using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::sphere::kWholeTensor;
using lawn::sphere::Layer;
using lawn::testing::expect_projected;
using lawn::testing::kScales;
using lawn::testing::layer_of_scale;
using lawn::testing::tolerance;
using torch::optim::SGD;
using torch::optim::SGDOptions;

/// The same numbers in an order of memory that goes through ATen.
Layer through_aten(const Layer& layer) {
  const auto spread = [](const torch::Tensor& tensor) {
    return torch::stack({tensor, tensor}, -1).select(-1, 0);
  };
  Layer result = layer;
  result.weight = spread(layer.weight);
  result.gradient = spread(layer.gradient);
  return result;
}

TEST(FloatRange, NormsAreThoseOfFloat64) {
  for (const double scale : kScales) {
    for (const int64_t numel : {2, 1000, 100000}) {
      const auto layer = layer_of_scale(numel, scale, 1);
      const double expected = layer.weight.to(torch::kDouble).norm().item<double>();
      for (const auto& given : {layer, through_aten(layer)}) {
        const auto norm = lawn::sphere::norms({given}).front();
        EXPECT_EQ(norm.scalar_type(), torch::kFloat);
        EXPECT_NEAR(norm.item<double>() / expected, 1, tolerance(torch::kFloat).norm)
            << scale << ", " << numel;
      }
    }
  }
}

TEST(FloatRange, NormsOfOutputUnitsDoNotSpoilOneAnother) {
  const auto weight = torch::tensor({{3e-25f, 4e-25f}, {3e20f, 4e20f}, {3.0f, 4.0f}});
  const auto norms = lawn::sphere::norms({Layer{weight, {}, {}, 0, 0}}).front();
  EXPECT_TRUE(torch::allclose(norms, torch::tensor({5e-25f, 5e20f, 5.0f}), 1e-6, 0)) << norms;
}

TEST(FloatRange, ProjectionIsThatOfFloat64) {
  for (const double of_weight : kScales) {
    for (const double of_gradient : kScales) {
      const auto layer = layer_of_scale(1000, of_weight, of_gradient);
      const auto spread = through_aten(layer);
      const auto before = layer.gradient.clone();
      lawn::sphere::project_to_tangent_({layer});
      lawn::sphere::project_to_tangent_({spread});
      const auto what =
          std::to_string(std::log10(of_weight)) + ' ' + std::to_string(std::log10(of_gradient));
      expect_projected(layer, before, what);
      expect_projected(spread, before, what + " by ATen");
    }
  }
}

TEST(FloatRange, RescalingReachesTheRadius) {
  for (const double scale : kScales) {
    for (const int64_t numel : {2, 100000}) {
      auto layer = layer_of_scale(numel, scale, 1);
      layer.radius = torch::tensor(1.5f * static_cast<float>(scale));
      for (const auto& given : {layer, through_aten(layer)}) {
        lawn::sphere::rescale_({given});
        EXPECT_NEAR(given.weight.to(torch::kDouble).norm().item<double>() / (1.5 * scale), 1,
                    tolerance(torch::kFloat).norm)
            << scale;
      }
    }
  }
}

TEST(FloatRange, SumsOverPartsAreThoseOfFloat64) {
  for (const double scale : kScales) {
    const auto layer = layer_of_scale(1000, scale, 1);
    const std::vector<lawn::sphere::Part> parts{{&layer, 0, 1, 600, 0, 0},
                                                {&layer, 600, 1, 400, 0, 0}};
    const auto sums = torch::zeros({2, 1}, torch::kDouble);
    lawn::sphere::add_inner_products(parts, sums);
    const auto w = layer.weight.to(torch::kDouble);
    const auto g = layer.gradient.to(torch::kDouble);
    EXPECT_NEAR(sums[1].item<double>() / (w * w).sum().item<double>(), 1,
                tolerance(torch::kFloat).step)
        << scale;
    EXPECT_NEAR(sums[0].item<double>() / (w.norm() * g.norm()).item<double>(),
                ((w * g).sum() / (w.norm() * g.norm())).item<double>(), 1e-6)
        << scale;
  }
}

/// Five steps of LAWN around `Opt` from {a, b}, whose norm it must hold.
template <class Opt, class Options>
void expect_held(float a, float b, const Options& options) {
  auto w = torch::tensor({a, b}).requires_grad_(true);
  w.mutable_grad() = torch::tensor({1.0f, -1.0f});
  LAWN optimizer(Opt({w}, options), lawn::select({w}));
  for (int64_t t = 0; t < 5; ++t) optimizer.step();
  const double norm = w.detach().to(torch::kDouble).norm().item<double>();
  EXPECT_NEAR(norm / std::hypot(double{a}, double{b}), 1, tolerance(torch::kFloat).norm);
  EXPECT_GT(std::abs(w[0].item<float>() / a - 1), 0.01) << "it moved";
  const auto layer = optimizer.report().layers.front();
  EXPECT_LE(layer.norm_error.value(), 1e-6);
  EXPECT_EQ(layer.note, "");
}

TEST(FloatRange, LAWNHoldsNormsWhoseSquaresFloat32CannotHold) {
  for (const auto& [a, b] : {std::pair{3e-25f, 4e-25f}, {3e20f, 4e20f}, {3e-30f, 4e-30f}}) {
    const double lr = 0.1 * a;
    expect_held<SGD>(a, b, SGDOptions(lr));
    expect_held<torch::optim::Adam>(a, b, torch::optim::AdamOptions(lr));
    expect_held<lawn::FusedSGD>(a, b, SGDOptions(lr));
    expect_held<lawn::FusedSGD>(a, b, SGDOptions(lr).momentum(0.9));
    expect_held<lawn::FusedAdam>(a, b, torch::optim::AdamOptions(lr));
  }
}

TEST(FloatRange, LARSTakesNormsThatSquaresCannotTell) {
  auto w = torch::tensor({3e19f, 4e19f}).requires_grad_(true);
  w.mutable_grad() = torch::tensor({3e18f, 4e18f});
  lawn::LARS optimizer(
      {w}, lawn::LARSOptions(0.1).trust_coefficient(1).weight_decay(0).always_adapt(true).eps(0));
  optimizer.step();  // r = ||w|| / ||g|| = 10
  EXPECT_TRUE(torch::allclose(w.detach(), torch::tensor({2.7e19f, 3.6e19f}), 1e-6, 0)) << w;
}

TEST(FloatRange, RadiiAreCheckedInTheTypeOfTheWeightWhenWrapped) {
  const auto wrap = [](double radius, torch::ScalarType dtype, int64_t numel = 2) {
    auto w = torch::ones({numel}, dtype).requires_grad_(true);
    LAWN(SGD({w}, SGDOptions(0.1)), lawn::select({w}),
         LAWNOptions().radius(lawn::Radius::kGiven).radii({radius}));
  };
  using lawn::testing::expect_refusal;
  const std::string words = "radii must be > 0 and finite in the type of the weight, got ";
  expect_refusal([&] { wrap(1e-46, torch::kFloat); }, words + "1e-46 for parameter 0");
  expect_refusal([&] { wrap(1e39, torch::kFloat); }, words + "1e+39 for parameter 0");
  expect_refusal([&] { wrap(1e39, torch::kBFloat16); }, words);
  expect_refusal([&] { wrap(1e6, torch::kHalf); }, words);
  expect_refusal([&] { wrap(1e-9, torch::kHalf); }, words);
  wrap(1e-40, torch::kFloat);
  wrap(1e38, torch::kFloat);
  wrap(1e39, torch::kDouble);
  wrap(1e5, torch::kHalf, 10000);  // 1,000 an element
}

}  // namespace
