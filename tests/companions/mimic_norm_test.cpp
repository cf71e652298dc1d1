// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/mimicnorm/centered.h>
#include <lawn/companions/mimicnorm/last_batch_norm.h>
#include <lawn/companions/mimicnorm/mimic_norm.h>
#include <lawn/companions/mimicnorm/residual_scale.h>

#include "tests/support/networks.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::mimic_norm_init_;
using lawn::MimicNormOptions;
using lawn::select_for_centering;
using lawn::testing::close;
using lawn::testing::expect_refusal;
using lawn::testing::parts;
using Names = std::vector<std::string>;

/// A stem of fan-in 27, a convolution of 72, one in groups, one transposed, a linear layer.
std::shared_ptr<lawn::testing::Parts> network() {
  using namespace torch::nn;
  auto net = parts();
  net->add("stem", lawn::testing::conv(3, 8, /*bias=*/true));
  net->add("wide", lawn::testing::conv(8, 16, /*bias=*/true));
  net->add("norm", BatchNorm2d(16));
  net->add("grouped", lawn::testing::conv(16, 16, /*bias=*/false, /*groups=*/4));
  net->add("up", ConvTranspose2d(ConvTranspose2dOptions(16, 8, 3)));
  net->add("up_grouped", ConvTranspose2d(ConvTranspose2dOptions(32, 8, 3).groups(2)));
  net->add("line", Conv1d(Conv1dOptions(20, 4, 3)));
  net->add("cube", Conv3d(Conv3dOptions(2, 4, 3)));
  net->add("head", lawn::testing::dense(64, 10, /*bias=*/true));
  return net;
}

class MimicNorm : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(13); }
};

TEST_F(MimicNorm, SelectsConvolutionsOfALargeFanInAndSaysWhyNotTheOthers) {
  const auto net = network();
  const auto selection = select_for_centering(*net);
  EXPECT_EQ(selection.names(), (Names{"wide.weight", "up.weight", "line.weight", "cube.weight"}));
  for (const auto& parameter : selection.all()) {
    if (parameter.name == "stem.weight") {
      EXPECT_EQ(parameter.reason, "fan-in 27, not above 50");
    }
    if (parameter.name == "grouped.weight") {
      EXPECT_EQ(parameter.reason, "fan-in 36, not above 50");
    }
    if (parameter.name == "wide.bias") {
      EXPECT_EQ(parameter.reason, "a bias");
    }
    if (parameter.name == "norm.weight") {
      EXPECT_EQ(parameter.reason, "not of a convolution");
    }
    if (parameter.name == "head.weight") {
      EXPECT_EQ(parameter.reason, "the weight of a linear layer");
    }
    if (parameter.name == "up_grouped.weight") {
      EXPECT_NE(parameter.reason.find("grouped transposed"), std::string::npos);
    }
    if (parameter.name == "up.weight") {
      EXPECT_EQ(parameter.unit_dim, 1);
    }
  }
  EXPECT_EQ(select_for_centering(*net, MimicNormOptions().per_group(false)).names(),
            (Names{"wide.weight", "grouped.weight", "up.weight", "line.weight", "cube.weight"}));
  EXPECT_EQ(select_for_centering(*net, MimicNormOptions().fan_in_above(72)).names(),
            (Names{"up.weight"}))
      << "above, not at: wide has 72, up 144";
  EXPECT_EQ(select_for_centering(*net, MimicNormOptions().linear(true)).names().back(),
            "head.weight");
}

TEST_F(MimicNorm, RefusesANetworkWithoutAnEligibleWeightAndGivesTheReasons) {
  auto net = parts();
  net->add("conv", lawn::testing::conv(3, 8));
  net->add("head", lawn::testing::dense(64, 10, /*bias=*/true));
  const auto before = net->parameters()[0].clone();
  const std::string message = lawn::testing::refusal([&] { mimic_norm_init_(*net); });
  for (const char* part :
       {"lawn::select_for_centering: expected a weight to centre, got none of 3 parameters",
        "conv.weight: fan-in 27, not above 50", "head.weight: the weight of a linear layer",
        "head.bias: a bias"}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " in " << message;
  }
  EXPECT_TRUE(torch::equal(net->parameters()[0], before));
  expect_refusal([&] { select_for_centering(*net, MimicNormOptions().fan_in_above(0)); },
                 "fan_in_above must be >= 1, got 0");
  expect_refusal([&] { mimic_norm_init_(*net, MimicNormOptions().gain(0)); },
                 "gain must be finite and > 0, got 0");
}

TEST_F(MimicNorm, StartsWithCentredWeightsOfHesVariance) {
  auto net = parts();
  auto stem = net->add("stem", lawn::testing::conv(3, 64, /*bias=*/true));
  auto wide = net->add("wide", lawn::testing::conv(64, 64, /*bias=*/true));
  auto up =
      net->add("up", torch::nn::ConvTranspose2d(torch::nn::ConvTranspose2dOptions(64, 32, 3)));
  auto up_grouped =
      net->add("up_grouped",
               torch::nn::ConvTranspose2d(torch::nn::ConvTranspose2dOptions(64, 32, 3).groups(4)));
  auto norm = net->add("norm", torch::nn::BatchNorm2d(64));
  const torch::NoGradGuard no_grad;
  norm->bias.fill_(3);
  const auto selection = mimic_norm_init_(*net, MimicNormOptions().gain(1.5));
  EXPECT_EQ(selection.names(), (Names{"wide.weight", "up.weight"}));
  EXPECT_LE(wide->weight.mean({1, 2, 3}).abs().max().item<double>(), 1e-7);
  EXPECT_LE(up->weight.mean({0, 2, 3}).abs().max().item<double>(), 1e-7);
  const auto deviation = [](const torch::Tensor& w) { return w.std().item<double>(); };
  EXPECT_NEAR(deviation(stem->weight) / std::sqrt(2.0 / 27), 1, 0.1);
  EXPECT_NEAR(deviation(wide->weight) / (1.5 * std::sqrt(2.0 / 576)), 1, 0.05);
  EXPECT_NEAR(deviation(up->weight) / (1.5 * std::sqrt(2.0 / 576)), 1, 0.05);
  EXPECT_NEAR(deviation(up_grouped->weight) / std::sqrt(2.0 / 144), 1, 0.05) << "of one group";
  EXPECT_EQ(wide->bias.abs().max().item<double>(), 0);
  EXPECT_EQ(stem->bias.abs().max().item<double>(), 0);
  EXPECT_EQ(norm->bias.min().item<double>(), 3) << "not of a layer that multiplies";
}

TEST_F(MimicNorm, OnlyCentresWhereItIsNotToDraw) {
  const auto net = network();
  std::vector<torch::Tensor> before;
  for (const auto& p : net->parameters()) before.push_back(p.detach().clone());
  const auto selection = mimic_norm_init_(*net, MimicNormOptions().draw(false));
  std::size_t i = 0;
  for (const auto& parameter : selection.all()) {
    auto expected = before[i++];
    if (parameter.inside) {
      const std::vector<int64_t> dims = expected.dim() == 3 ? std::vector<int64_t>{1, 2}
                                        : expected.dim() == 5
                                            ? std::vector<int64_t>{1, 2, 3, 4}
                                            : std::vector<int64_t>{1 - parameter.unit_dim, 2, 3};
      expected = expected - expected.mean(dims, /*keepdim=*/true);
      EXPECT_TRUE(close(parameter.tensor, expected)) << parameter.name;
    } else {
      EXPECT_TRUE(torch::equal(parameter.tensor, expected)) << parameter.name;
    }
  }
}

TEST_F(MimicNorm, TrainsWithTheMeansAtZeroInFloat32AndBFloat16) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    torch::nn::Sequential net(lawn::testing::conv(3, 8), torch::nn::ReLU(),
                              lawn::testing::conv(8, 8), torch::nn::ReLU(),
                              torch::nn::AdaptiveAvgPool2d(1), torch::nn::Flatten(),
                              lawn::testing::dense(8, 4), lawn::LastBatchNorm(4));
    net->to(dtype);
    const auto selection = mimic_norm_init_(*net);
    lawn::Centered<torch::optim::SGD> optimizer(
        torch::optim::SGD(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9)),
        selection);
    const auto x = torch::randn({16, 3, 8, 8}).to(dtype);
    const auto y = torch::randint(4, {16});
    double first = 0;
    double last = 0;
    for (int step = 0; step < 40; ++step) {
      optimizer.zero_grad();
      auto loss = torch::nn::functional::cross_entropy(net->forward(x), y);
      loss.backward();
      optimizer.step();
      last = loss.item<double>();
      if (step == 0) first = last;
    }
    EXPECT_LT(last, 0.6 * first) << c10::toString(dtype);
    const auto means = selection.parameters()[0].detach().to(torch::kDouble).mean({1, 2, 3});
    EXPECT_LE(means.abs().max().item<double>(), dtype == torch::kFloat ? 1e-7 : 1e-3);
  }
}

/// Where kCenteringGain comes from: of a rectified Gaussian's mean square, 1/pi is in its mean.
TEST_F(MimicNorm, KeepsTheScaleOfSignalsInAPlainChainByTheCenteringGain) {
  constexpr int64_t kWidth = 512;
  constexpr int kLayers = 8;
  const auto signal_after = [&](double gain) {
    auto x = torch::randn({256, kWidth});
    const double before = x.std().item<double>();
    for (int i = 0; i < kLayers; ++i) {
      torch::nn::Linear layer(kWidth, kWidth);
      mimic_norm_init_(*layer, MimicNormOptions().linear(true).gain(gain));
      x = layer(i == 0 ? x : torch::relu(x)).detach();
      if (i == 0) x = x / x.std() * before;
    }
    return x.std().item<double>() / before;
  };
  const double pi = std::acos(-1.0);
  EXPECT_NEAR(lawn::kCenteringGain, std::sqrt(1 / (1 - 1 / pi)), 0.02);
  EXPECT_NEAR(signal_after(lawn::kCenteringGain), 1, 0.25);
  EXPECT_NEAR(signal_after(1), std::pow(1 - 1 / pi, (kLayers - 1) / 2.0), 0.08);
}

}  // namespace
