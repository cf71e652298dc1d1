// SPDX-License-Identifier: Apache-2.0

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/subnetwork/select_by_name.h>
#include <lawn/subnetwork/selection.h>

#include "tests/support/networks.h"
#include "tests/support/refusal.h"

namespace {

namespace nn = torch::nn;
using namespace lawn::testing;
using Names = std::vector<std::string>;
using torch::Tensor;

TEST(Selection, TakesAllWeightsButNoBiasesOrScales) {
  const auto network = resnet();
  const auto subnetwork = lawn::select_all_weights(*network.module);
  EXPECT_EQ(subnetwork.names(),
            (Names{"stem.weight", "conv1.weight", "conv2.weight", "head.weight"}));
  EXPECT_EQ(subnetwork.all().size(), network.module->parameters().size());
  EXPECT_EQ(subnetwork.all().back().reason, "not selected");
  EXPECT_EQ(subnetwork.all().back().role, lawn::Role::kBias);
  EXPECT_EQ(subnetwork.homogeneity(), lawn::Homogeneity::kUnknown);
  EXPECT_EQ(subnetwork.degree(), std::nullopt);
  EXPECT_TRUE(subnetwork.boundaries().empty());
}

TEST(Selection, TakesEmbeddingsForWeights) {
  const auto subnetwork = lawn::select_all_weights(*neumf().module);
  EXPECT_EQ(subnetwork.names().size(), 7U);
  EXPECT_EQ(subnetwork.all().front().role, lawn::Role::kEmbedding);
  auto bags = parts();
  bags->add("bag", nn::EmbeddingBag(5, 3));
  EXPECT_EQ(lawn::select_all_weights(*bags).all().front().role, lawn::Role::kEmbedding);
}

TEST(Selection, CountsUnitsOfTransposedConvolutionsAlongTheSecondDimension) {
  auto net = parts();
  net->add("one", nn::ConvTranspose1d(nn::ConvTranspose1dOptions(4, 6, 3)));
  net->add("two", nn::ConvTranspose2d(nn::ConvTranspose2dOptions(4, 6, 3)));
  net->add("three", nn::ConvTranspose3d(nn::ConvTranspose3dOptions(4, 6, 3)));
  net->add("plain", conv(3, 4));
  for (const auto& parameter : lawn::select_all_weights(*net).all()) {
    const bool transposed = parameter.constrained() && parameter.name != "plain.weight";
    EXPECT_EQ(parameter.unit_dim, transposed ? 1 : 0) << parameter.name;
  }
}

TEST(Selection, TakesNamesThatMatchAsAWhole) {
  const auto network = mlp(true);
  const auto& module = *network.module;
  EXPECT_EQ(lawn::select_by_name(module, "hidden\\d\\.weight").names(),
            (Names{"hidden1.weight", "hidden2.weight"}));
  EXPECT_EQ(lawn::select_by_name(module, "head.*").names(), (Names{"head.weight", "head.bias"}));
  expect_refusal([&] { lawn::select_by_name(module, "weight"); },
                 "lawn::select_by_name: expected a pattern that matches a whole dotted name, got "
                 "'weight', which matches none of 6 (hidden1.weight, ...); correct the pattern");
  expect_refusal([&] { lawn::select_by_name(module, "(head"); },
                 "lawn::select_by_name: expected an ECMAScript regular expression, got '(head'");
}

TEST(Selection, TakesWhatThePredicateTakes) {
  const auto network = mlp(true);
  const auto subnetwork =
      lawn::select_if(*network.module, [](const std::string& name, const Tensor& tensor) {
        return name != "head.weight" && tensor.numel() > 10;
      });
  EXPECT_EQ(subnetwork.names(), (Names{"hidden1.weight", "hidden2.weight"}));
  expect_refusal(
      [&] {
        lawn::select_if(*network.module, [](const std::string&, const Tensor&) { return false; });
      },
      "expected at least one weight to constrain, got none of 6 parameters; select a weight");
  expect_refusal([] { lawn::select_all_weights(*parts()); },
                 "expected a module with parameters, got one without any");
  expect_refusal([] { lawn::select_by_name(*parts(), ".*"); }, "matches none of 0");
}

TEST(Selection, TakesAListOfTensors) {
  const auto w = torch::randn({3, 2});
  const auto v = torch::randn({4}, torch::kBFloat16);
  const auto subnetwork = lawn::select({w, v});
  EXPECT_EQ(subnetwork.names(), (Names{"parameter 0", "parameter 1"}));
  EXPECT_TRUE(subnetwork.parameters()[0].is_same(w));
  EXPECT_TRUE(subnetwork.parameters()[1].is_same(v));
  expect_refusal([] { lawn::select(std::vector<Tensor>{}); },
                 "lawn::select: expected at least one tensor, got an empty list");
  expect_refusal(
      [&] {
        lawn::select({w, v, w});
      },
      "expected every tensor once, got 'parameter 2' a second time; select it once");
  expect_refusal(
      [&] {
        lawn::select({w, Tensor()});
      },
      "expected a tensor for 'parameter 1', got an undefined one");
}

TEST(Selection, TakesTensorsOfAModuleUnderTheirNames) {
  const auto network = mlp(true);
  const auto parameters = network.module->named_parameters();
  const auto subnetwork =
      lawn::select(*network.module, {parameters["head.weight"], parameters["hidden1.bias"]});
  EXPECT_EQ(subnetwork.names(), (Names{"hidden1.bias", "head.weight"}));
  EXPECT_EQ(subnetwork.all().size(), 6U);
  expect_refusal(
      [&] { lawn::select(*network.module, {parameters["head.weight"].detach().clone()}); },
      "lawn::select: expected parameters of the module, got tensor 0, which is none of them; pass "
      "module.parameters() themselves, not copies");
  expect_refusal(
      [&] {
        lawn::select(*network.module, {parameters["head.weight"], parameters["head.weight"]});
      },
      "lawn::select: expected every tensor once, got tensor 1 a second time; select it once");
}

TEST(Selection, RefusesIntegerAndComplexParameters) {
  auto net = parts();
  net->weight("w", {3, 3});
  net->register_parameter("codes", torch::zeros({3, 3}, torch::kInt8), false);
  net->register_parameter("phases", torch::zeros({3, 3}, torch::kComplexFloat));
  expect_refusal([&] { lawn::select_by_name(*net, "codes"); },
                 "expected parameters of a real floating-point type, got 'codes' of type Char; "
                 "leave it out");
  expect_refusal([&] { lawn::select_by_name(*net, "phases"); },
                 "got 'phases' of type ComplexFloat");
  expect_refusal([] { lawn::select({torch::zeros({3}, torch::kLong)}); },
                 "got 'parameter 0' of type Long");
  EXPECT_EQ(lawn::select_all_weights(*net).names(), (Names{"w"}));
}

TEST(Selection, TakesFrozenParametersThatAreAskedFor) {
  const auto network = mlp(false);
  for (auto& parameter : network.module->parameters()) parameter.set_requires_grad(false);
  EXPECT_EQ(lawn::select_all_weights(*network.module).names().size(), 3U);
}

}  // namespace
