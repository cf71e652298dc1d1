// SPDX-License-Identifier: Apache-2.0

#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/subnetwork/graph_walk.h>
#include <lawn/subnetwork/homogeneity.h>
#include <lawn/subnetwork/select_by_name.h>
#include <lawn/subnetwork/selection.h>

#include "tests/support/networks.h"
#include "tests/support/refusal.h"

namespace {

using lawn::check_homogeneity;
using lawn::final_homogeneous_subnetwork;
using lawn::HomogeneityCheckOptions;
using torch::Tensor;
using namespace lawn::testing;

class CheckHomogeneity : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }

  static lawn::Subnetwork walk(const Network& network) {
    return final_homogeneous_subnetwork(network.logits(), *network.module);
  }
};

TEST_F(CheckHomogeneity, IsExactForAnyPowerOfTwo) {
  const auto network = mlp(false);
  for (const double factor : {0.25, 0.5, 2.0, 8.0, 1024.0}) {
    const auto check =
        check_homogeneity(network.logits, walk(network), HomogeneityCheckOptions().factor(factor));
    EXPECT_TRUE(check.exact) << check;
    EXPECT_EQ(check.degree, 3);
    EXPECT_EQ(check.expected_ratio, factor * factor * factor);
    EXPECT_EQ(check.largest_error, 0);
  }
}

TEST_F(CheckHomogeneity, IsExactExceptForBiases) {
  const auto network = mlp(true);
  const auto check = check_homogeneity(network.logits, walk(network));
  EXPECT_TRUE(check.exact);
  EXPECT_EQ(check.degree, 3);
  EXPECT_EQ(check.expected_ratio, 8);
  EXPECT_EQ(check.largest_error, 0);
  EXPECT_GT(check.error_with_biases, 0.01);
}

TEST_F(CheckHomogeneity, HasNoErrorWithBiasesOnceTheyAreZero) {
  const auto network = mlp(true);
  const auto subnetwork = walk(network);
  for (const auto& bias : subnetwork.added_biases()) bias.data().zero_();
  const auto check = check_homogeneity(network.logits, subnetwork);
  EXPECT_TRUE(check.exact);
  EXPECT_EQ(check.error_with_biases, 0);
}

TEST_F(CheckHomogeneity, IsExactExceptForBiasesOfASelectionByHand) {
  const auto network = mlp(true);
  const auto check = check_homogeneity(network.logits, lawn::select_all_weights(*network.module));
  EXPECT_TRUE(check.exact);
  EXPECT_EQ(check.degree, 3);
  EXPECT_GT(check.error_with_biases, 0.01);
}

TEST_F(CheckHomogeneity, ScalesABiasThatIsSelected) {
  const auto network = mlp(true);
  const auto check =
      check_homogeneity(network.logits, lawn::select_by_name(*network.module, "head\\..*"));
  EXPECT_TRUE(check.exact);
  EXPECT_EQ(check.degree, 1);
  EXPECT_EQ(check.error_with_biases, 0);
}

TEST_F(CheckHomogeneity, MeasuresTheErrorRelativeToTheLargestLogit) {
  auto net = parts();
  auto w = net->weight("w", {3});
  const auto logits = [=] { return w + torch::tensor({0.0, 0.0, 1.0}); };
  w.data().copy_(torch::tensor({1.0, 2.0, 3.0}));
  const auto subnetwork =
      lawn::Subnetwork(lawn::select(*net, {w}).all(), {}, lawn::Homogeneity::kUpToAdds, 1);
  const auto check = check_homogeneity(logits, subnetwork);  // (2, 4, 7) beside 2 (1, 2, 4)
  EXPECT_FALSE(check.exact);
  EXPECT_DOUBLE_EQ(check.largest_error, 1.0 / 8);
}

TEST_F(CheckHomogeneity, EstimatesTheDegreeOfASelectionByHand) {
  const auto network = mlp(false);
  const auto check = check_homogeneity(
      network.logits, lawn::select_by_name(*network.module, "hidden1.weight|head.weight"));
  EXPECT_TRUE(check.exact);
  EXPECT_EQ(check.degree, 2);
}

TEST_F(CheckHomogeneity, HasNoDegreeWhenTheLogitsAreZero) {
  const auto network = mlp(false);
  const auto subnetwork = lawn::select_all_weights(*network.module);
  for (auto& parameter : network.module->parameters()) parameter.data().zero_();
  const auto check = check_homogeneity(network.logits, subnetwork);
  EXPECT_EQ(check.degree, std::nullopt);
  EXPECT_TRUE(check.exact);
  EXPECT_EQ(check.expected_ratio, 1);
  EXPECT_EQ(check.largest_error, 0);
}

TEST_F(CheckHomogeneity, ShowsAnOverflowAsInexact) {
  const auto network = mlp(false);
  for (auto& parameter : network.module->parameters()) parameter.data().mul_(1e12);
  const auto check =
      check_homogeneity(network.logits, walk(network), HomogeneityCheckOptions().factor(1024));
  EXPECT_FALSE(check.exact && std::isfinite(check.largest_error));
  EXPECT_TRUE(
      check_homogeneity(network.logits, walk(network), HomogeneityCheckOptions().factor(0.5))
          .exact);
}

TEST_F(CheckHomogeneity, TakesNoLogitsAtAllForExact) {
  auto net = parts();
  auto w = net->weight("w", {6, 4});
  const auto check = check_homogeneity(
      [=] {
        return torch::ones({0, 6}).mm(w);
      },
      lawn::select_all_weights(*net));
  EXPECT_TRUE(check.exact);
  EXPECT_EQ(check.largest_error, 0);
}

TEST_F(CheckHomogeneity, PutsTheWeightsBackBitForBit) {
  const auto network = mlp(true);
  const auto subnetwork = walk(network);
  std::vector<Tensor> before;
  std::vector<int64_t> versions;
  subnetwork.parameters()[0].data()[0][0] = std::numeric_limits<float>::denorm_min();
  subnetwork.parameters()[0].data()[0][1] = -0.0F;
  for (const auto& parameter : network.module->parameters()) {
    before.push_back(parameter.detach().clone());
    versions.push_back(parameter._version());
  }
  check_homogeneity(network.logits, subnetwork, HomogeneityCheckOptions().factor(0.5));
  for (const int last : {3, 4, 5}) {
    const auto throws = [&, calls = 0]() mutable {
      if (++calls == last) throw std::runtime_error("out of luck");
      return network.logits();
    };
    EXPECT_THROW(check_homogeneity(throws, subnetwork), std::runtime_error) << last;
  }
  const auto after = network.module->parameters();
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_TRUE(torch::equal(after[i].view(torch::kInt), before[i].view(torch::kInt))) << i;
    EXPECT_EQ(after[i]._version(), versions[i]) << i;
    EXPECT_TRUE(after[i].requires_grad()) << i;
  }
}

TEST_F(CheckHomogeneity, LeavesAGraphThatWaitsForBackwardValid) {
  const auto network = mlp(true);
  const auto logits = network.logits();
  check_homogeneity(network.logits, final_homogeneous_subnetwork(logits, *network.module));
  EXPECT_NO_THROW(logits.sum().backward());
}

TEST_F(CheckHomogeneity, AcceptsAForwardThatReturnsOneBuffer) {
  auto net = parts();
  auto w = net->weight("w", {6, 4});
  auto buffer = torch::empty({5, 4});
  const auto logits = [=, x = torch::randn({5, 6})]() mutable { return buffer.copy_(x.mm(w)); };
  EXPECT_TRUE(check_homogeneity(logits, lawn::select_all_weights(*net)).exact);
}

TEST_F(CheckHomogeneity, RefusesAFactorThatRounds) {
  const auto network = mlp(false);
  for (const double factor : {3.0, 1.0, 0.0, -2.0, 0.1, std::numeric_limits<double>::infinity(),
                              std::numeric_limits<double>::quiet_NaN()}) {
    expect_refusal(
        [&] {
          check_homogeneity(network.logits, walk(network),
                            HomogeneityCheckOptions().factor(factor));
        },
        "lawn::check_homogeneity: expected a factor that is a power of two other than 1, got ");
  }
}

TEST_F(CheckHomogeneity, RefusesAForwardThatDiffersFromCallToCall) {
  const auto network =
      around([](const Tensor& h) { return torch::dropout(torch::relu(h), 0.5, true); });
  expect_refusal([&] { check_homogeneity(network.logits, walk(network)); },
                 "got different ones; call eval() on the network, and fix its input");
}

TEST_F(CheckHomogeneity, RefusesAForwardThatReturnsNothing) {
  const auto network = mlp(false);
  expect_refusal([&] { check_homogeneity([] { return Tensor(); }, walk(network)); },
                 "expected logits from forward, got an undefined tensor; return them");
}

TEST_F(CheckHomogeneity, PrintsOneLine) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  std::ostringstream text;
  const auto network = mlp(false);
  text << check_homogeneity(network.logits, walk(network)) << '\n'
       << lawn::HomogeneityCheck{true, 2, 4, 0, 0.25} << '\n'
       << lawn::HomogeneityCheck{false, std::nullopt, 1, 0.5, 0.5} << '\n'
       << lawn::HomogeneityCheck{false, 1, 2, 0.5, 0.75} << '\n'
       << lawn::HomogeneityCheck{false, 1, 2, kNaN, kNaN};
  EXPECT_EQ(text.str(),
            "exact: degree 3, ratio 8, relative error 0\n"
            "exact except for biases: degree 2, ratio 4, relative error 0; with biases 0.25\n"
            "not exact: degree unknown, ratio 1, relative error 0.5\n"
            "not exact: degree 1, ratio 2, relative error 0.5; with biases 0.75\n"
            "not exact: degree 1, ratio 2, relative error nan");
}

}  // namespace
