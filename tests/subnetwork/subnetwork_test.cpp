// SPDX-License-Identifier: Apache-2.0

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/subnetwork/subnetwork.h>

#include "tests/support/refusal.h"

namespace {

using lawn::Role;
using lawn::Subnetwork;
using lawn::SubnetworkParameter;
using lawn::testing::expect_refusal;

SubnetworkParameter parameter(const std::string& name, Role role, bool inside,
                              at::Tensor tensor = torch::ones({2})) {
  SubnetworkParameter result;
  result.name = name;
  result.tensor = std::move(tensor);
  result.role = role;
  result.inside = inside;
  return result;
}

TEST(Subnetwork, ConstrainsTheWeightsAndEmbeddingsThatAreInside) {
  const Subnetwork subnetwork(
      {parameter("w", Role::kWeight, true), parameter("b", Role::kBias, true),
       parameter("e", Role::kEmbedding, true), parameter("far", Role::kWeight, false)},
      {{"TanhBackward0", "curved"}}, lawn::Homogeneity::kUpToBiases, 2);
  EXPECT_EQ(subnetwork.names(), (std::vector<std::string>{"w", "e"}));
  ASSERT_EQ(subnetwork.parameters().size(), 2U);
  EXPECT_TRUE(subnetwork.parameters()[1].is_same(subnetwork.all()[2].tensor));
  EXPECT_EQ(subnetwork.all().size(), 4U);
  EXPECT_EQ(subnetwork.boundaries().at(0).reason, "curved");
  EXPECT_EQ(subnetwork.homogeneity(), lawn::Homogeneity::kUpToBiases);
  EXPECT_EQ(subnetwork.degree(), 2);
}

TEST(Subnetwork, HandsItsListsOverWhenItIsATemporary) {
  const auto make = [] {
    return Subnetwork({parameter("w", Role::kWeight, true)}, {{"TanhBackward0", "curved"}});
  };
  for (const auto& each : make().all()) EXPECT_EQ(each.name, "w");
  for (const auto& each : make().boundaries()) EXPECT_EQ(each.node, "TanhBackward0");
}

TEST(Subnetwork, RefusesWhatCannotBeConstrained) {
  expect_refusal([] { Subnetwork({}); },
                 "expected at least one weight to constrain, got none of 0");
  expect_refusal([] { Subnetwork({parameter("b", Role::kBias, true)}); },
                 "lawn::Subnetwork: expected at least one weight to constrain, got none of 1 "
                 "parameters; select a weight");
  expect_refusal([] { Subnetwork({parameter("w", Role::kWeight, true, at::Tensor())}); },
                 "expected a tensor for 'w', got an undefined one; leave it out");
  expect_refusal(
      [] { Subnetwork({parameter("w", Role::kWeight, true, torch::ones({2}, torch::kInt))}); },
      "expected parameters of a real floating-point type, got 'w' of type Int; leave it out");
  const auto twice = torch::ones({2});
  expect_refusal(
      [&] {
        Subnetwork({parameter("w", Role::kWeight, true, twice),
                    parameter("v", Role::kWeight, false, twice)});
      },
      "expected every tensor once, got 'v' a second time; select it once");
}

}  // namespace
