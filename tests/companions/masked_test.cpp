// SPDX-License-Identifier: Apache-2.0

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/lawn.h>

#include "tests/support/refusal.h"
#include "tests/support/rows.h"
#include "tests/support/saved.h"
#include "tests/support/tolerance.h"
#include "tests/support/warnings.h"

/// What every optimizer must do under Masked, and what Masked itself refuses.
namespace {

using lawn::LAWN;
using lawn::magnitude_masks;
using lawn::MagnitudeOptions;
using lawn::Mask;
using lawn::Masked;
using lawn::Masks;
using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::load;
using lawn::testing::Problem;
using lawn::testing::saved;
using torch::optim::Adam;
using torch::optim::AdamOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

Masks masks_of(const Problem& problem, double amount = 0.75) {
  return magnitude_masks(problem.weights(), MagnitudeOptions().amount(amount));
}

void expect_pruned(const Masks& masks, const std::string& where) {
  for (const Mask& mask : masks) {
    const auto pruned = mask.weight.detach().masked_select(mask.keep.logical_not());
    ASSERT_GT(pruned.numel(), 0);
    EXPECT_TRUE(torch::equal(pruned, torch::zeros_like(pruned))) << where << ", " << mask.name;
    EXPECT_FALSE(pruned.signbit().any().item<bool>()) << where << ": zero, not minus zero";
  }
}

/// Steps [from, to), with a closure, which every optimizer takes.
void train(torch::optim::Optimizer& optimizer, Problem& problem, int64_t from, int64_t to) {
  for (int64_t t = from; t < to; ++t) optimizer.step([&] { return problem.backward(t); });
}

template <class Row>
class MaskedOptimizer : public ::testing::Test {};
TYPED_TEST_SUITE(MaskedOptimizer, lawn::testing::Rows);

TYPED_TEST(MaskedOptimizer, KeepsPrunedEntriesExactlyZeroAfterEveryStep) {
  Problem problem;
  auto base = TypeParam::make(problem.groups());
  train(base, problem, 0, 5);  // dense steps leave momentum behind
  const auto masks = masks_of(problem);
  Masked<typename TypeParam::Opt> optimizer(std::move(base), masks);
  expect_pruned(masks, "at the construction");
  const auto start = problem.values();
  for (int64_t t = 5; t < 15; ++t) {
    train(optimizer, problem, t, t + 1);
    expect_pruned(masks, "step " + std::to_string(t));
  }
  EXPECT_FALSE(torch::equal(problem.values()[0], start[0])) << "the others are trained";
}

/// The network of `Problem` with its weights multiplied by masks, as Python's torch.nn.utils.prune
/// has it.
torch::Tensor backward_of_product(Problem& problem, const Masks& masks, int64_t step) {
  problem.model->zero_grad();
  const auto parameters = problem.model->parameters();
  const auto dtype = parameters[0].scalar_type();
  const auto part = 16 * (step % 2);
  auto hidden = torch::nn::functional::linear(
      problem.x.slice(0, part, part + 16), parameters[0] * masks[0].keep.to(dtype), parameters[1]);
  const auto logits = torch::nn::functional::linear(
      hidden.relu(), parameters[2] * masks[1].keep.to(dtype), parameters[3]);
  auto loss = torch::nn::functional::cross_entropy(logits, problem.y.slice(0, part, part + 16));
  loss.backward();
  return loss;
}

TYPED_TEST(MaskedOptimizer, TrainsAsANetworkThatMultipliesByItsMasksToTheBit) {
  Problem problem;
  Problem twin;
  const auto masks = masks_of(problem);
  lawn::apply_masks_(masks_of(twin));
  Masked<typename TypeParam::Opt> optimizer(TypeParam::make(problem.groups()), masks);
  auto base = TypeParam::make(twin.groups());
  for (int64_t t = 0; t < 15; ++t) {
    train(optimizer, problem, t, t + 1);
    base.step([&] { return backward_of_product(twin, masks, t); });
    expect_equal(problem.values(), twin.values(), "step " + std::to_string(t));
  }
}

TYPED_TEST(MaskedOptimizer, ContinuesACheckpointToTheSameBits) {
  using Opt = typename TypeParam::Opt;
  Problem problem;
  Masked<Opt> optimizer(TypeParam::make(problem.groups()), masks_of(problem));
  train(optimizer, problem, 0, 5);
  const auto bytes = saved(optimizer);
  const auto at_saving = problem.values();
  train(optimizer, problem, 5, 10);

  Problem other;
  Masked<Opt> continued(TypeParam::make(other.groups()), masks_of(other, 0.25));
  {
    const torch::NoGradGuard no_grad;
    const auto parameters = other.model->parameters();
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].copy_(at_saving[i]);
  }
  load(continued, bytes);
  const auto mine = optimizer.masks();
  const auto loaded = continued.masks();
  ASSERT_EQ(mine.size(), loaded.size());
  for (size_t i = 0; i < mine.size(); ++i) {
    EXPECT_TRUE(torch::equal(mine[i].keep, loaded[i].keep)) << mine[i].name;
  }
  train(continued, other, 5, 10);
  expect_equal(other.values(), problem.values(), "continued");
}

TYPED_TEST(MaskedOptimizer, KeepsNormsAndZerosInsideLAWN) {
  using Opt = typename TypeParam::Opt;
  Problem problem;
  const auto masks = masks_of(problem);
  LAWN<Masked<Opt>> optimizer(Masked<Opt>(TypeParam::make(problem.groups()), masks),
                              problem.weights(), TypeParam::lawn().free_steps(3));
  train(optimizer, problem, 0, 10);
  expect_pruned(masks, "inside LAWN");
  for (const auto& layer : optimizer.report().layers) {
    EXPECT_LE(layer.norm_error.value(), lawn::testing::tolerance(torch::kFloat).norm) << layer.name;
  }
}

class MaskedDtype : public ::testing::TestWithParam<torch::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(All, MaskedDtype,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16,
                                           torch::kHalf),
                         lawn::testing::dtype_name);

TEST_P(MaskedDtype, ZeroesWhatIsPrunedAndNothingElse) {
  torch::manual_seed(1);
  const auto make = [](const std::string& layout) -> torch::Tensor {
    if (layout == "contiguous") return torch::randn({40, 30, 3, 3});
    if (layout == "large") return torch::randn({300, 1000});  // several chunks
    if (layout == "channels-last") {
      return torch::randn({20, 30, 3, 3}).contiguous(torch::MemoryFormat::ChannelsLast);
    }
    if (layout == "transposed") return torch::randn({50, 70}).t();
    if (layout == "with gaps") return torch::randn({50, 70}).slice(1, 0, 70, 2);
    return torch::randn({});
  };
  for (const char* layout :
       {"contiguous", "large", "channels-last", "transposed", "with gaps", "scalar"}) {
    for (const bool same_order : {true, false}) {
      auto weight = make(layout).to(GetParam());
      auto pruned = torch::rand(weight.sizes()) < 0.5;
      if (same_order) pruned = torch::empty_like(weight, torch::kBool).copy_(pruned);
      const auto expected = torch::where(pruned, torch::zeros_like(weight), weight);
      auto twin = weight.clone();
      const auto version = weight._version();
      lawn::detail::pruning::zero_pruned_({weight}, {pruned});
      lawn::detail::pruning::aten::zero_pruned_(twin, pruned);
      EXPECT_TRUE(torch::equal(weight, expected)) << layout;
      EXPECT_TRUE(torch::equal(twin, expected)) << layout;
      EXPECT_GT(weight._version(), version) << layout << ": autograd has to know";
    }
  }
}

TEST_P(MaskedDtype, TrainsWithZeros) {
  Problem problem;
  problem.model->to(GetParam());
  const auto masks = masks_of(problem);
  Masked optimizer(SGD(problem.groups(), SGDOptions(0.05).momentum(0.9).weight_decay(0.1)), masks);
  for (int64_t t = 0; t < 5; ++t) {
    for (auto& parameter : problem.model->parameters()) {
      parameter.mutable_grad() = torch::randn_like(parameter);
    }
    optimizer.step();
    expect_pruned(masks, "step " + std::to_string(t));
  }
}

TEST(Masked, MaskingGradientsAloneWouldNotDo) {
  Problem problem;
  SGD base(problem.groups(), SGDOptions(0.1).momentum(0.9));
  train(base, problem, 0, 5);
  const auto masks = masks_of(problem);
  lawn::apply_masks_(masks);
  base.step([&] {
    auto loss = problem.backward(5);
    for (const Mask& mask : masks) mask.weight.grad().mul_(mask.keep);
    return loss;
  });
  EXPECT_GT(masks[0]
                .weight.detach()
                .masked_select(masks[0].keep.logical_not())
                .abs()
                .max()
                .item<double>(),
            1e-4);
}

TEST(Masked, MakesPrunedNaNsAndInfinitiesZero) {
  Problem problem;
  const auto masks = masks_of(problem);
  Masked optimizer(SGD(problem.groups(), SGDOptions(0.1)), masks);
  problem.backward(0);
  const auto gradient = masks[0].weight.grad();
  gradient.masked_fill_(masks[0].keep.logical_not(), std::numeric_limits<float>::quiet_NaN());
  masks[1].weight.grad().masked_fill_(masks[1].keep.logical_not(),
                                      std::numeric_limits<float>::infinity());
  optimizer.step();
  expect_pruned(masks, "after NaN");
  EXPECT_TRUE(masks[0].weight.isfinite().all().item<bool>());
}

TEST(Masked, LeavesGradientsOfElementwiseOptimizersAlone) {
  Problem problem;
  Masked optimizer(Adam(problem.groups(), AdamOptions(0.01)), masks_of(problem));
  problem.backward(0);
  const auto before = problem.model->parameters()[0].grad().clone();
  optimizer.step();
  EXPECT_TRUE(torch::equal(problem.model->parameters()[0].grad(), before));
}

TEST(Masked, TakesNewMasksForPruningInSteps) {
  Problem problem;
  const auto weights = problem.weights();
  Masked optimizer(Adam(problem.groups(), AdamOptions(0.01)),
                   magnitude_masks(weights, MagnitudeOptions().amount(0)));
  auto previous = optimizer.masks();
  EXPECT_EQ(lawn::sparsity(previous), 0);
  for (const double amount : {0.25, 0.5, 0.75}) {
    train(optimizer, problem, 0, 3);
    optimizer.set_masks(magnitude_masks(weights, MagnitudeOptions().amount(amount), previous));
    const auto masks = optimizer.masks();
    expect_pruned(masks, "amount " + std::to_string(amount));
    EXPECT_EQ(lawn::sparsity(masks), amount);
    for (size_t i = 0; i < masks.size(); ++i) {
      EXPECT_FALSE(masks[i].keep.logical_and(previous[i].keep.logical_not()).any().item<bool>())
          << "what is pruned stays pruned";
    }
    previous = masks;
  }
}

TEST(Masked, WritesNewMasksOfTheSameWeightsWhereACapturedStepReadsThem) {
  Problem problem;
  Masked optimizer(SGD(problem.groups(), SGDOptions(0.1)), masks_of(problem, 0.25));
  auto masks = masks_of(problem, 0.75);
  std::vector<const void*> places;
  for (const Mask& mask : masks) {
    places.push_back(optimizer.pruned_of(mask.weight).const_data_ptr());
  }
  const auto expect_in_place = [&] {
    for (size_t i = 0; i < masks.size(); ++i) {
      const auto pruned = optimizer.pruned_of(masks[i].weight);
      EXPECT_EQ(pruned.const_data_ptr(), places[i]) << i;
      EXPECT_TRUE(torch::equal(pruned, masks[i].keep.logical_not())) << i;
    }
    expect_pruned(masks, "new masks");
  };
  optimizer.set_masks(masks);
  expect_in_place();
  std::swap(masks[0], masks[1]);
  std::swap(places[0], places[1]);
  optimizer.set_masks(masks);
  expect_in_place();
  optimizer.set_masks({masks[1]});
  EXPECT_FALSE(optimizer.pruned_of(masks[0].weight).defined());
  EXPECT_EQ(optimizer.pruned_of(masks[1].weight).const_data_ptr(), places[1]);
}

TEST(Masked, SaysWhatIsPrunedToWhoeverWrapsIt) {
  Problem problem;
  const auto masks = masks_of(problem);
  LAWN optimizer(Masked(SGD(problem.groups(), SGDOptions(0.1)), masks), problem.weights());
  const torch::optim::Optimizer& any = optimizer;
  const auto* source = dynamic_cast<const lawn::MaskSource*>(&any);
  ASSERT_NE(source, nullptr);
  EXPECT_TRUE(torch::equal(source->pruned_of(masks[1].weight), masks[1].keep.logical_not()));
  EXPECT_FALSE(source->pruned_of(problem.model->parameters()[1]).defined()) << "a bias";
}

TEST(Masked, LeavesTheModuleAndItsCopiesAlone) {
  Problem problem;
  const auto names = problem.model->named_parameters().keys();
  const auto* address = problem.model->parameters()[0].unsafeGetTensorImpl();
  Masked optimizer(SGD(problem.groups(), SGDOptions(0.1)), masks_of(problem));
  train(optimizer, problem, 0, 1);
  EXPECT_EQ(problem.model->named_parameters().keys(), names);
  EXPECT_TRUE(problem.model->buffers().empty());
  EXPECT_EQ(problem.model->parameters()[0].unsafeGetTensorImpl(), address);
}

TEST(Masked, GivesTheSameBitsForAnyNumberOfThreads) {
  const auto run = [](int threads) {
    at::set_num_threads(threads);
    torch::manual_seed(3);
    const auto weight = torch::randn({500, 300}, torch::requires_grad());
    const auto masks = magnitude_masks(lawn::select({weight}));
    Masked optimizer(SGD({weight}, SGDOptions(0.1)), masks);
    weight.mutable_grad() = torch::randn({500, 300});
    optimizer.step();
    return weight.detach();
  };
  const int before = at::get_num_threads();
  const auto one = run(1);
  EXPECT_TRUE(torch::equal(run(2), one));
  at::set_num_threads(before);
}

/// Expects that `masks` are refused, and that no weight changes by it.
void expect_refused(const Masks& masks, Problem& problem, const std::string& part) {
  const auto before = problem.values();
  expect_refusal([&] { Masked(SGD(problem.groups(), SGDOptions(0.1)), masks); }, part);
  if (masks.empty() || masks.back().weight.defined()) {
    Masked optimizer(SGD(problem.groups(), SGDOptions(0.1)),
                     magnitude_masks(problem.weights(), MagnitudeOptions().amount(0)));
    expect_refusal([&] { optimizer.set_masks(masks); }, part);
    EXPECT_EQ(lawn::sparsity(optimizer.masks()), 0) << "the old masks hold";
  }
  expect_equal(problem.values(), before, part);
}

TEST(MaskedRefused, MasksThatDoNotFitTheirWeights) {
  Problem problem;
  const auto good = masks_of(problem);
  const auto with = [&](const torch::Tensor& keep) {
    return Masks{good[0], {"2.weight", good[1].weight, keep}};
  };
  expect_refused({}, problem, "expected at least one mask, got none");
  expect_refused(with(torch::ones({3, 9}, torch::kBool)), problem,
                 "expected the mask of 2.weight to have the weight's shape [3, 8], got [3, 9]");
  expect_refused(with(torch::ones({8}, torch::kBool)), problem, "got [8]");
  expect_refused(with(torch::ones({3, 8})), problem,
                 "expected a mask of type Bool for 2.weight, got Float; convert it");
  expect_refused(with({}), problem, "expected a mask for 2.weight, got an undefined tensor");
  expect_refused(with(torch::empty({3, 8}, torch::TensorOptions(torch::kMeta).dtype(at::kBool))),
                 problem, "expected the mask of 2.weight on the weight's device cpu, got meta");
  expect_refused(with(torch::zeros({3, 8}, torch::kBool)), problem,
                 "expected something of 2.weight to stay, got a mask that prunes all of its 24");
}

TEST(MaskedRefused, WeightsThatItCannotMask) {
  Problem problem;
  const auto good = masks_of(problem);
  const auto integers = torch::ones({3}, torch::kLong);
  const auto yes = torch::ones({3}, torch::kBool);
  expect_refused({{"counts", integers, yes}}, problem,
                 "expected weights of floating point, got Long for counts");
  expect_refused({{"other", torch::ones({3}), yes}}, problem,
                 "expected the optimizer to hold every weight, got other");
  expect_refused({good[0], good[1], good[0]}, problem,
                 "expected every weight once, got 0.weight a second time");
  expect_refusal(
      [&] {
        Masked(SGD(problem.groups(), SGDOptions(0.1)), {{"none", {}, yes}});
      },
      "expected a tensor for none, got an undefined one");
  expect_refused({{"empty", torch::ones({0}), torch::ones({0}, torch::kBool)}}, problem,
                 "expected weights with elements, got none in empty");
  expect_refusal(
      [&] {
        lawn::apply_masks_({{"counts", integers, yes}});
      },
      "lawn::apply_masks_: expected weights of floating point, got Long for counts");
}

TEST(MaskedRefused, SparseGradientsWhereAllOfThemCount) {
  const auto weight = torch::randn({4, 2}, torch::requires_grad());
  lawn::testing::SignMomentum base({torch::optim::OptimizerParamGroup({weight})});
  Masked optimizer(std::move(base), magnitude_masks(lawn::select({weight})));
  weight.mutable_grad() = torch::ones({4, 2}).to_sparse();
  const auto before = weight.detach().clone();
  expect_refusal([&] { optimizer.step(); }, "expected a dense gradient for parameter 0");
  EXPECT_TRUE(torch::equal(weight, before));
}

TEST(MaskedRefused, CheckpointsOfOtherNestingWeightsAndDecorators) {
  Problem problem;
  const auto masks = masks_of(problem);
  const auto sgd = [&] { return SGD(problem.groups(), SGDOptions(0.1).momentum(0.9)); };
  LAWN outside(Masked(sgd(), masks), problem.weights());
  Masked inside(LAWN(sgd(), problem.weights()), masks);
  train(outside, problem, 0, 2);
  const auto before = saved(inside);
  const auto weights = problem.values();
  expect_refusal([&] { load(inside, saved(outside)); },
                 "lawn::Masked: expected a checkpoint of lawn::Masked in place 2 of the "
                 "decorators, got one of lawn::LAWN: nest them as they were saved");
  EXPECT_EQ(saved(inside), before);
  const Masked one(sgd(), {masks[1]});
  Masked two(sgd(), masks);
  const auto of_two = saved(two);
  expect_refusal([&] { load(two, saved(one)); },
                 "lawn::Masked: expected a checkpoint of the weights [0.weight, 2.weight], got one "
                 "of [2.weight]: select the same; nothing was changed");
  EXPECT_EQ(saved(two), of_two);
  expect_equal(problem.values(), weights, "weights");
}

TEST(Masked, LoadsACheckpointOfThePlainOptimizerAndKeepsItsMasks) {
  Problem problem;
  SGD plain(problem.groups(), SGDOptions(0.1).momentum(0.9));
  train(plain, problem, 0, 2);
  Masked optimizer(SGD(problem.groups(), SGDOptions(0.1).momentum(0.9)), masks_of(problem));
  const lawn::testing::CapturedWarnings warnings;
  load(optimizer, saved(plain));
  EXPECT_NE(warnings.text().find("lawn::Masked: the checkpoint was written by an optimizer"),
            std::string::npos);
  EXPECT_EQ(lawn::sparsity(optimizer.masks()), 0.75);
  SGD other(problem.groups(), SGDOptions(0.1).momentum(0.9));
  load(other, saved(optimizer));  // and the other way
  EXPECT_EQ(other.state().size(), 4U);
}

}  // namespace
