// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/neural_cf.h"

#include <gtest/gtest.h>
#include <lawn/lawn.h>
#include <torch/torch.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/refusal.h"

namespace {

constexpr int64_t kUsers = 7;
constexpr int64_t kItems = 11;

std::shared_ptr<examples::Recommender> network(const std::string& name, int64_t factors = 4) {
  torch::manual_seed(1);
  return examples::make_recommender(name, kUsers, kItems, factors);
}

at::Tensor users() { return torch::tensor({0, 6, 3, 3, 1}, torch::kLong); }
at::Tensor items() { return torch::tensor({10, 0, 3, 5, 1}, torch::kLong); }

std::vector<std::string> parameters(const torch::nn::Module& module) {
  std::vector<std::string> names;
  for (const auto& item : module.named_parameters()) names.push_back(item.key());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> constrained(const std::string& name) {
  const auto module = network(name);
  const auto found = lawn::final_homogeneous_subnetwork(module->forward(users(), items()), *module);
  std::vector<std::string> names = found.names();
  std::sort(names.begin(), names.end());
  return names;
}

TEST(NeuralCF, HasTheLayersOfThePaper) {
  // Factors 8: layers of 32, 16 and 8 units over embeddings of size 16.
  const auto module = network("neumf", 8);
  const auto all = module->named_parameters();
  EXPECT_EQ(all["product_user.weight"].sizes(), (std::vector<int64_t>{kUsers, 8}));
  EXPECT_EQ(all["product_item.weight"].sizes(), (std::vector<int64_t>{kItems, 8}));
  EXPECT_EQ(all["tower_user.weight"].sizes(), (std::vector<int64_t>{kUsers, 16}));
  EXPECT_EQ(all["tower_item.weight"].sizes(), (std::vector<int64_t>{kItems, 16}));
  EXPECT_EQ(all["tower1.weight"].sizes(), (std::vector<int64_t>{32, 32}));
  EXPECT_EQ(all["tower2.weight"].sizes(), (std::vector<int64_t>{16, 32}));
  EXPECT_EQ(all["tower3.weight"].sizes(), (std::vector<int64_t>{8, 16}));
  EXPECT_EQ(all["output.weight"].sizes(), (std::vector<int64_t>{1, 16}));
  EXPECT_EQ(all.size(), 12U);
  EXPECT_EQ(parameters(*network("gmf")),
            (std::vector<std::string>{"output.bias", "output.weight", "product_item.weight",
                                      "product_user.weight"}));
  EXPECT_EQ(network("mlp", 8)->named_parameters()["output.weight"].size(1), 8);
  EXPECT_EQ(network("mlp")->named_parameters().find("product_user.weight"), nullptr);
}

TEST(NeuralCF, IsWhatItsEquationSaysPairByPair) {
  for (const std::string name : {"gmf", "mlp", "neumf"}) {
    const auto module = network(name);
    module->to(torch::kDouble);
    const torch::NoGradGuard no_grad;
    for (auto& parameter : module->parameters()) parameter.normal_();
    const at::Tensor logits = module->forward(users(), items());
    ASSERT_EQ(logits.sizes(), (std::vector<int64_t>{5}));
    const auto w = module->named_parameters();
    for (int64_t pair = 0; pair < 5; ++pair) {
      const int64_t u = users()[pair].item<int64_t>();
      const int64_t i = items()[pair].item<int64_t>();
      std::vector<at::Tensor> branches;
      if (name != "mlp") {
        branches.push_back(w["product_user.weight"][u] * w["product_item.weight"][i]);
      }
      if (name != "gmf") {
        at::Tensor x = torch::cat({w["tower_user.weight"][u], w["tower_item.weight"][i]});
        for (const std::string layer : {"tower1", "tower2", "tower3"}) {
          x = (w[layer + ".weight"].mv(x) + w[layer + ".bias"]).clamp_min(0);
        }
        branches.push_back(x);
      }
      const double expected =
          (w["output.weight"][0].dot(torch::cat(branches)) + w["output.bias"][0]).item<double>();
      EXPECT_NEAR(logits[pair].item<double>(), expected, 1e-10 * (1 + std::abs(expected)))
          << name << ' ' << pair;
    }
  }
}

TEST(NeuralCF, StartsWithSmallEmbeddings) {
  torch::manual_seed(2);
  const auto module = examples::make_recommender("neumf", 2000, 1000, 16);
  const auto all = module->named_parameters();
  for (const std::string name : {"product_user", "product_item", "tower_user", "tower_item"}) {
    const at::Tensor& weight = all[name + ".weight"];
    EXPECT_NEAR(weight.std().item<double>(), 0.01, 2e-4) << name;
    EXPECT_NEAR(weight.mean().item<double>(), 0, 4e-4) << name;
  }
  EXPECT_EQ(all["tower1.bias"].abs().max().item<double>(), 0);
}

TEST(NeuralCF, IsConstrainedInEveryEmbeddingEveryLayerAndTheOutput) {
  const std::vector<std::string> product = {"product_item.weight", "product_user.weight"};
  const std::vector<std::string> tower = {"tower1.weight", "tower2.weight", "tower3.weight",
                                          "tower_item.weight", "tower_user.weight"};
  std::vector<std::string> expected = {"output.weight"};
  expected.insert(expected.end(), product.begin(), product.end());
  EXPECT_EQ(constrained("gmf"), expected);
  expected.insert(expected.end(), tower.begin(), tower.end());
  EXPECT_EQ(constrained("neumf"), expected);
  expected.erase(expected.begin() + 1, expected.begin() + 3);
  EXPECT_EQ(constrained("mlp"), expected);
}

TEST(NeuralCF, RefusesWhatItDoesNotKnow) {
  lawn::testing::expect_refusal([] { network("svd"); },
                                "unknown network 'svd'; expected one of gmf mlp neumf");
  lawn::testing::expect_refusal([] { network("gmf", 0); }, "factors must be > 0, got 0");
}

}  // namespace
