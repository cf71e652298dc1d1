// SPDX-License-Identifier: Apache-2.0
//
// What LibTorch's fused functions cannot take, or would get wrong without a word, takes the unfused
// step.

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/optim/fused_pairs.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::expect_close;
using lawn::testing::Group;
using lawn::testing::set_pulling_gradients;
using lawn::testing::Tensors;
using lawn::testing::tolerance;

template <class Pair>
class FusedFallback : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(3); }

  /// An ordinary parameter, and then one without room between its rows, made anew by each call.
  static Tensors with_gaps() {
    torch::manual_seed(4);
    return {torch::randn({8, 3}).requires_grad_(),
            torch::randn({8, 6}).slice(1, 0, 3).requires_grad_()};
  }

  static bool moved(const torch::Tensor& parameter, const torch::Tensor& before) {
    return !torch::equal(parameter, before);
  }
};

TYPED_TEST_SUITE(FusedFallback, lawn::testing::FusedPairs);

TYPED_TEST(FusedFallback, StepsAParameterWithGapsAndLeavesTheGaps) {
  for (const auto& options : TypeParam::options()) {
    const auto a = this->with_gaps();
    const auto b = this->with_gaps();
    const auto whole = a[1].detach().as_strided({8, 6}, {6, 1}).clone();
    typename TypeParam::Fused fused(a, options);
    typename TypeParam::Plain plain(b, options);
    lawn::testing::step_both(fused, a, plain, b, 0, 20);
    expect_close(a, b, tolerance(torch::kFloat).trajectory, "after 20 steps");
    EXPECT_TRUE(torch::equal(a[1], b[1])) << "the unfused step, bit for bit";
    const auto gaps = [](const torch::Tensor& tensor) { return tensor.slice(1, 3, 6); };
    EXPECT_TRUE(torch::equal(gaps(a[1].detach().as_strided({8, 6}, {6, 1})), gaps(whole)));
  }
}

TYPED_TEST(FusedFallback, StepsComplexParameters) {
  const auto make = [] {
    torch::manual_seed(4);
    return Tensors{torch::randn({3}).requires_grad_(),
                   torch::randn({4}, torch::kComplexFloat).requires_grad_()};
  };
  const auto a = make();
  const auto b = make();
  typename TypeParam::Fused fused(a, TypeParam::options().front());
  typename TypeParam::Plain plain(b, TypeParam::options().front());
  for (int64_t t = 0; t < 5; ++t) {
    for (const auto& p : {a, b}) {
      for (const auto& tensor : p) tensor.mutable_grad() = 0.5 * tensor.detach();
    }
    fused.step();
    plain.step();
  }
  expect_close({a[0]}, {b[0]}, tolerance(torch::kFloat).trajectory, "the real one");
  EXPECT_TRUE(torch::equal(a[1], b[1]));
}

TYPED_TEST(FusedFallback, StepsParametersWithoutElements) {
  const auto empty = torch::empty({0, 3}, torch::requires_grad());
  const auto full = torch::ones({3}, torch::requires_grad());
  typename TypeParam::Fused fused({empty, full}, TypeParam::options().back());
  set_pulling_gradients({empty, full}, 0);
  fused.step();
  fused.step();
  EXPECT_TRUE(this->moved(full, torch::ones({3})));
  typename TypeParam::Fused none({empty}, TypeParam::options().back());
  none.step();
}

TYPED_TEST(FusedFallback, TakesGradientsInAnyOrderOfMemory) {
  const auto make = [] {
    torch::manual_seed(4);
    return Tensors{torch::randn({4, 3, 3, 5}).requires_grad_(),
                   torch::randn({6, 9}).requires_grad_(), torch::randn({7}).requires_grad_()};
  };
  const auto a = make();
  const auto b = make();
  typename TypeParam::Fused fused(a, TypeParam::options().back());
  typename TypeParam::Plain plain(b, TypeParam::options().back());
  for (int64_t t = 0; t < 10; ++t) {
    for (const auto& p : {a, b}) {
      set_pulling_gradients(p, t);
      p[0].mutable_grad() = p[0].grad().contiguous(torch::MemoryFormat::ChannelsLast);
      p[1].mutable_grad() = p[1].grad().t().contiguous().t();
      p[2].mutable_grad() = torch::full({}, 0.25).expand({7});
    }
    fused.step();
    plain.step();
  }
  expect_close(a, b, tolerance(torch::kFloat).trajectory, "after 10 steps");
  EXPECT_EQ(a[2].grad().stride(0), 0) << "the gradient stays the user's";
}

TYPED_TEST(FusedFallback, TakesStateInAnotherOrderOfMemory) {
  // As a checkpoint of a network leaves it that was not in channels-last then.
  const auto make = [] {
    torch::manual_seed(4);
    return Tensors{torch::randn({4, 3, 3, 5}).requires_grad_()};
  };
  const auto a = make();
  const auto b = make();
  typename TypeParam::Fused fused(a, TypeParam::options().back());
  typename TypeParam::Plain plain(b, TypeParam::options().back());
  lawn::testing::step_both(fused, a, plain, b, 0, 3);
  for (const auto& p : {a, b}) {
    const torch::NoGradGuard no_grad;
    p[0].set_data(p[0].contiguous(torch::MemoryFormat::ChannelsLast));
  }
  lawn::testing::step_both(fused, a, plain, b, 3, 6);
  expect_close(a, b, tolerance(torch::kFloat).trajectory, "after the change of order");
}

/// An embedding's gradient, and a dense one beside it.
void set_sparse_gradient(const Tensors& parameters) {
  const auto rows = torch::tensor({{1, 3, 1}});
  parameters[0].mutable_grad() = torch::ones_like(parameters[0]);
  parameters[1].mutable_grad() =
      torch::sparse_coo_tensor(rows, torch::ones({3, 2}), parameters[1].sizes());
}

template <class Optimizer, class Options>
Tensors step_with_a_sparse_gradient(const Options& options) {
  const Tensors p{torch::ones({3}, torch::requires_grad()),
                  torch::ones({5, 2}, torch::requires_grad())};
  Optimizer optimizer(p, options);
  for (int64_t t = 0; t < 3; ++t) {
    set_sparse_gradient(p);
    optimizer.step();
  }
  return p;
}

TEST(FusedSparseGradients, TakeTheUnfusedStepOfSGDAndAdagrad) {
  using namespace torch::optim;
  const auto sgd = SGDOptions(0.1);
  expect_close(step_with_a_sparse_gradient<lawn::FusedSGD>(sgd),
               step_with_a_sparse_gradient<SGD>(sgd), 1e-6, "SGD");
  const auto adagrad = AdagradOptions(0.1);
  expect_close(step_with_a_sparse_gradient<lawn::FusedAdagrad>(adagrad),
               step_with_a_sparse_gradient<Adagrad>(adagrad), 1e-6, "Adagrad");
}

TEST(FusedSparseGradients, AreTakenFromGroupsThatWereAddedToAdagrad) {
  lawn::FusedAdagrad optimizer({torch::ones({1}, torch::requires_grad())});
  const Tensors p{torch::ones({3}, torch::requires_grad()),
                  torch::ones({5, 2}, torch::requires_grad())};
  optimizer.add_param_group(Group(p));
  set_sparse_gradient(p);
  optimizer.step();
  EXPECT_LT(p[1][3][0].item<float>(), 1);
  EXPECT_EQ(p[1][0][0].item<float>(), 1);
}

template <class Fused, class Options>
void expect_sparse_refusal(const Options& options, const std::string& message) {
  const Tensors p{torch::ones({3}, torch::requires_grad()),
                  torch::ones({5, 2}, torch::requires_grad())};
  Fused optimizer({Group({p[0]}), Group({p[1]})}, options);
  const auto states = optimizer.state().size();  // Adagrad's come with its construction
  set_sparse_gradient(p);
  EXPECT_THROW(optimizer.check_step(), c10::Error);
  lawn::testing::expect_refusal([&] { optimizer.step(); },
                                message + ", got a Sparse one for parameter 0 of group 1");
  EXPECT_TRUE(torch::equal(p[0], torch::ones({3}))) << "the group before it was not stepped";
  EXPECT_EQ(optimizer.state().size(), states);
  p[1].mutable_grad() = torch::ones({5, 2});
  optimizer.step();
  EXPECT_FALSE(torch::equal(p[1], torch::ones({5, 2})));
}

TEST(FusedSparseGradients, AreRefusedBeforeAnyGroupIsSteppedWhereTheOptimizerItselfRefusesThem) {
  using namespace torch::optim;
  expect_sparse_refusal<lawn::FusedAdam>(AdamOptions(0.1), "expected dense gradients");
  expect_sparse_refusal<lawn::FusedAdamW>(AdamWOptions(0.1), "expected dense gradients");
  const std::string with_decay = "expected dense gradients in a group with weight decay";
  expect_sparse_refusal<lawn::FusedSGD>(SGDOptions(0.1).weight_decay(0.1), with_decay);
  expect_sparse_refusal<lawn::FusedAdagrad>(AdagradOptions(0.1).weight_decay(0.1), with_decay);
}

}  // namespace
