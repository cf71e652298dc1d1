// SPDX-License-Identifier: Apache-2.0

#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/parameters/own_gradients.h>

/// When a gradient is copied, and when it is left where it is.
namespace {

using lawn::detail::parameters::own_gradients_;

torch::Tensor parameter(const torch::Tensor& gradient) {
  auto w = torch::zeros(gradient.sizes(), torch::requires_grad());
  w.mutable_grad() = gradient;
  return w;
}

/// Whether the parameter still holds this gradient, and not a copy.
bool holds(const torch::Tensor& w, const torch::Tensor& gradient) {
  return w.grad().is_same(gradient);
}

TEST(OwnGradients, LeavesGradientsOfTheirOwnMemoryWhereTheyAre) {
  const auto memory = torch::randn({12});
  const std::vector<torch::Tensor> gradients = {
      torch::randn({3, 4}),
      torch::randn({3, 4}).t(),
      torch::randn({2, 3, 4, 4}).contiguous(torch::MemoryFormat::ChannelsLast),
      memory.slice(0, 0, 6),
      memory.slice(0, 6, 12),  // neighbours in one storage
      torch::randn({4, 4}).slice(1, 0, 2),
      torch::zeros({0}),
      torch::tensor(1.0f)};
  std::vector<torch::Tensor> parameters;
  for (const auto& gradient : gradients) parameters.push_back(parameter(gradient));
  parameters.push_back(torch::zeros({2}, torch::requires_grad()));  // without one
  parameters.push_back(parameters.front());                         // and one a second time
  own_gradients_(parameters);
  for (size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_TRUE(holds(parameters[i], gradients[i])) << i;
  }
  EXPECT_FALSE(parameters[gradients.size()].grad().defined());
}

TEST(OwnGradients, CopiesWhatSeveralParametersShare) {
  const auto shared = torch::randn({2, 3});
  auto a = parameter(shared);
  auto b = parameter(shared);
  auto other = parameter(torch::randn({2, 3}));
  own_gradients_({a, b, other});
  EXPECT_TRUE(torch::equal(a.grad(), shared));
  EXPECT_TRUE(torch::equal(b.grad(), shared));
  EXPECT_FALSE(a.grad().is_alias_of(b.grad()));
  EXPECT_FALSE(a.grad().is_alias_of(shared));
}

TEST(OwnGradients, CopiesOverlappingViewsOfOneStorage) {
  const auto memory = torch::randn({10});
  auto large = parameter(memory.slice(0, 0, 9));
  auto inside = parameter(memory.slice(0, 2, 4));
  auto later = parameter(memory.slice(0, 5, 7));
  auto apart = parameter(memory.slice(0, 9, 10));
  const auto untouched = apart.grad();
  own_gradients_({apart, later, inside, large});
  for (const auto& w : {large, inside, later}) EXPECT_FALSE(w.grad().is_alias_of(memory));
  EXPECT_TRUE(torch::equal(later.grad(), memory.slice(0, 5, 7)));
  EXPECT_TRUE(holds(apart, untouched));
}

TEST(OwnGradients, CopiesAGradientThatOverlapsItself) {
  auto w = parameter(torch::tensor(2.0f).expand({3, 4}));
  own_gradients_({w});
  EXPECT_TRUE(w.grad().is_contiguous());
  EXPECT_TRUE(torch::equal(w.grad(), torch::full({3, 4}, 2.0f)));
}

TEST(OwnGradients, TakesTheOrderOfTheParameter) {
  auto w = torch::zeros({4, 3}).t().set_requires_grad(true);
  w.mutable_grad() = torch::tensor(1.5, torch::kFloat).expand({3, 4});
  own_gradients_({w});
  EXPECT_EQ(w.grad().strides(), w.strides());
}

TEST(OwnGradients, LeavesTheGradientsOfOthersAlone) {
  const auto shared = torch::randn({2, 3});
  auto changed = parameter(shared);
  auto other = parameter(shared);
  torch::optim::SGD optimizer({changed, other}, torch::optim::SGDOptions(0.1));
  own_gradients_(optimizer, {changed});
  EXPECT_FALSE(changed.grad().is_alias_of(shared));
  EXPECT_TRUE(holds(other, shared));
}

TEST(OwnGradients, CopiesSparseGradientsThatAreShared) {
  const auto shared = torch::eye(3).to_sparse();
  auto a = parameter(shared);
  auto b = parameter(shared);
  own_gradients_({a, b});
  EXPECT_TRUE(a.grad().is_sparse());
  EXPECT_FALSE(a.grad()._values().is_alias_of(b.grad()._values()));
  EXPECT_TRUE(torch::equal(a.grad().to_dense(), torch::eye(3)));
}

}  // namespace
