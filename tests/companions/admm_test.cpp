// SPDX-License-Identifier: Apache-2.0

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <lawn/autocast.h>
#include <lawn/companions/mimicnorm/centered.h>
#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/companions/unification/admm.h>
#include <lawn/lawn.h>

#include "tests/support/refusal.h"
#include "tests/support/rows.h"
#include "tests/support/saved.h"
#include "tests/support/tolerance.h"

/// What every optimizer must do under Admm, and what Admm itself refuses.
namespace {

using lawn::Admm;
using lawn::AdmmOptions;
using lawn::LAWN;
using lawn::Masked;
using lawn::Projection;
using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::load;
using lawn::testing::Problem;
using lawn::testing::saved;
using lawn::testing::tolerance;
using torch::optim::Adam;
using torch::optim::AdamOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

Projection unify() { return Projection::unify_blocks({2, 3}, 0.75); }

/// The projections that the weights of `Problem`, 8x6 and 3x8, are put through.
std::vector<Projection> projections() { return {unify(), Projection::prune_blocks({1, 2}, 0.5)}; }

AdmmOptions options() { return AdmmOptions().rho(0.05).rho_growth(2).max_rho(0.15); }

/// Steps [from, to), with a closure, which every optimizer takes.
void train(torch::optim::Optimizer& optimizer, Problem& problem, int64_t from, int64_t to) {
  for (int64_t t = from; t < to; ++t) optimizer.step([&] { return problem.backward(t); });
}

/// Feasible, exactly, and in the frozen way: one absolute value and the old signs in each block.
void expect_structure(const std::vector<lawn::FrozenStructure>& structures,
                      const std::string& where) {
  for (const auto& structure : structures) {
    const auto weight = structure.weight.detach();
    if (structure.pruned.defined()) {
      EXPECT_EQ(weight.masked_select(structure.pruned).count_nonzero().item<int64_t>(), 0) << where;
      continue;
    }
    const auto signs = structure.signs.to(weight.scalar_type());
    EXPECT_TRUE(torch::equal((weight * signs).clamp_min(0) * signs, weight * signs.abs())) << where;
    for (int64_t r = 0; r < structure.chosen.size(0); ++r) {
      for (int64_t c = 0; c < structure.chosen.size(1); ++c) {
        if (!structure.chosen[r][c].item<bool>()) continue;
        const auto& block = structure.block;
        const auto sizes = weight.slice(0, r * block.rows, (r + 1) * block.rows)
                               .slice(1, c * block.columns, (c + 1) * block.columns)
                               .abs();
        EXPECT_EQ((sizes.max() - sizes.min()).item<double>(), 0) << where;
      }
    }
  }
}

template <class Row>
class AdmmOptimizer : public ::testing::Test {};
TYPED_TEST_SUITE(AdmmOptimizer, lawn::testing::Rows);

TYPED_TEST(AdmmOptimizer, StepsOnTheLossAndThePenaltyTogether) {
  // The twin adds the penalty to the loss, and lets autograd find its gradient.
  Problem problem(torch::kDouble);
  Problem twin(torch::kDouble);
  Admm<typename TypeParam::Opt> optimizer(TypeParam::make(problem.groups()), problem.weights(),
                                          projections(), options());
  auto base = TypeParam::make(twin.groups());
  const auto weights = twin.weights().parameters();
  std::vector<torch::Tensor> targets;
  std::vector<torch::Tensor> duals;
  for (size_t i = 0; i < weights.size(); ++i) {
    targets.push_back(projections()[i](weights[i]).weight);
    duals.push_back(torch::zeros_like(weights[i]).detach());
  }
  double rho = 0.05;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    EXPECT_DOUBLE_EQ(optimizer.rho(), rho);
    for (int64_t t = 2 * epoch; t < 2 * epoch + 2; ++t) {
      train(optimizer, problem, t, t + 1);
      base.step([&] {
        const auto loss = twin.backward(t);
        auto penalty = torch::zeros({}, torch::kDouble);
        for (size_t i = 0; i < weights.size(); ++i) {
          penalty = penalty + rho / 2 * (weights[i] - targets[i] + duals[i]).square().sum();
        }
        penalty.backward();
        return loss;
      });
      const auto mine = problem.values();
      const auto theirs = twin.values();
      for (size_t i = 0; i < mine.size(); ++i) {
        EXPECT_TRUE(torch::allclose(mine[i], theirs[i], 0,
                                    lawn::testing::tolerance(torch::kDouble).trajectory))
            << "step " << t << ", parameter " << i;
      }
    }
    optimizer.update();
    const torch::NoGradGuard no_grad;
    const double grown = std::min(2 * rho, 0.15);
    for (size_t i = 0; i < weights.size(); ++i) {
      targets[i] = projections()[i](weights[i] + duals[i]).weight;
      duals[i] = (duals[i] + weights[i] - targets[i]) * rho / grown;
    }
    rho = grown;
  }
}

TYPED_TEST(AdmmOptimizer, KeepsTheStructureInRetraining) {
  Problem problem;
  Admm<typename TypeParam::Opt> optimizer(TypeParam::make(problem.groups()), problem.weights(),
                                          projections(), options());
  train(optimizer, problem, 0, 4);
  optimizer.update();
  train(optimizer, problem, 4, 6);
  EXPECT_TRUE(optimizer.structures().empty());
  optimizer.finalize();
  EXPECT_TRUE(optimizer.finalized());
  const auto at_projection = problem.values();
  expect_structure(optimizer.structures(), "at the projection");
  for (int64_t t = 6; t < 12; ++t) {
    train(optimizer, problem, t, t + 1);
    expect_structure(optimizer.structures(), "step " + std::to_string(t));
  }
  EXPECT_FALSE(torch::equal(problem.values()[0], at_projection[0])) << "values are trained";
  optimizer.finalize();
  expect_structure(optimizer.structures(), "no effect when called again");
}

TYPED_TEST(AdmmOptimizer, ContinuesCheckpointsOfBothPhasesToTheSameBits) {
  using Opt = typename TypeParam::Opt;
  for (const bool finalized : {false, true}) {
    Problem problem;
    const auto make = [](Problem& of) {
      return Admm<Opt>(TypeParam::make(of.groups()), of.weights(), projections(), options());
    };
    auto optimizer = make(problem);
    train(optimizer, problem, 0, 3);
    optimizer.update();
    if (finalized) optimizer.finalize();
    train(optimizer, problem, 3, 5);
    const auto bytes = saved(optimizer);
    const auto at_saving = problem.values();
    const auto go_on = [&](Admm<Opt>& with, Problem& on) {
      train(with, on, 5, 8);
      if (!finalized) with.update();
      with.finalize();
      train(with, on, 8, 10);
    };
    go_on(optimizer, problem);

    Problem other;
    auto continued = make(other);
    {
      const torch::NoGradGuard no_grad;
      const auto parameters = other.model->parameters();
      for (size_t i = 0; i < parameters.size(); ++i) parameters[i].copy_(at_saving[i]);
    }
    load(continued, bytes);
    EXPECT_EQ(continued.finalized(), finalized);
    go_on(continued, other);
    expect_equal(other.values(), problem.values(), finalized ? "retraining" : "penalty");
    EXPECT_EQ(continued.rho(), optimizer.rho());
  }
}

TYPED_TEST(AdmmOptimizer, KeepsNormsAndStructureInsideLAWN) {
  using Opt = typename TypeParam::Opt;
  Problem problem;
  Admm<Opt> inner(TypeParam::make(problem.groups()), problem.weights(), projections(), options());
  inner.finalize();
  LAWN<Admm<Opt>> optimizer(std::move(inner), problem.weights(), TypeParam::lawn().free_steps(2));
  train(optimizer, problem, 0, 6);
  expect_structure(optimizer.structures(), "inside LAWN");
  for (const auto& layer : optimizer.report().layers) {
    EXPECT_LE(layer.norm_error.value(), lawn::testing::tolerance(torch::kFloat).norm) << layer.name;
  }
}

class AdmmDtype : public ::testing::TestWithParam<torch::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(All, AdmmDtype,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16),
                         lawn::testing::dtype_name);

TEST_P(AdmmDtype, AddsThePenaltysGradientForEveryLayout) {
  torch::manual_seed(2);
  const auto make = [](const std::string& layout) {
    if (layout == "large") return torch::randn({300, 400});  // several chunks
    const auto weight = torch::randn({6, 8, 3, 3});
    if (layout == "channels-last") return weight.contiguous(torch::MemoryFormat::ChannelsLast);
    if (layout == "with gaps") return weight.slice(1, 0, 8, 2);
    return weight;
  };
  const auto wide = GetParam() == torch::kDouble ? torch::kDouble : torch::kFloat;
  for (const char* layout : {"contiguous", "large", "channels-last", "with gaps"}) {
    for (const bool same_order : {true, false}) {
      const auto weight = make(layout).to(GetParam());
      auto gradient = torch::randn_like(weight);
      if (!same_order) gradient = torch::randn(weight.sizes()).to(GetParam());
      const lawn::detail::unification::PenaltyTerm term{
          weight, gradient, torch::randn_like(weight).to(wide), torch::randn_like(weight).to(wide)};
      const auto double_of = [](const torch::Tensor& tensor) { return tensor.to(torch::kDouble); };
      const auto expected =
          double_of(gradient) +
          0.3 * (double_of(weight) - double_of(term.target) + double_of(term.dual));
      const auto before = weight.clone();
      auto twin = term;
      twin.gradient = gradient.clone();
      lawn::detail::unification::add_penalty_({term}, 0.3);
      lawn::detail::unification::aten::add_penalty_(twin, 0.3);
      // Of numbers of size 1, summed with cancellation.
      const double rounding = lawn::testing::tolerance(GetParam()).step;
      EXPECT_TRUE(torch::allclose(double_of(gradient), expected, rounding, rounding)) << layout;
      EXPECT_TRUE(torch::allclose(double_of(twin.gradient), expected, rounding, rounding))
          << layout;
      EXPECT_TRUE(torch::equal(weight, before));
    }
  }
}

TEST_P(AdmmDtype, ComesNearerToTheStructureAndKeepsIt) {
  torch::manual_seed(3);
  // Pulled towards a point that has not the structure.
  const auto goal = torch::randn({8, 12}).to(GetParam());
  const auto weight = goal.clone().set_requires_grad(true);
  Admm optimizer(SGD({weight}, SGDOptions(0.1)), lawn::select({weight}), unify(),
                 AdmmOptions().rho(0.1).rho_growth(1.5).max_rho(4));
  const double at_start = optimizer.residual();
  const auto step = [&] {
    weight.mutable_grad() = (weight.detach() - goal);
    optimizer.step();
  };
  for (int epoch = 0; epoch < 20; ++epoch) {
    for (int t = 0; t < 10; ++t) step();
    optimizer.update();
  }
  EXPECT_GT(at_start, 0.1);
  EXPECT_LT(optimizer.residual(), at_start / 5);
  EXPECT_EQ(optimizer.rho(), 4);
  optimizer.finalize();
  EXPECT_EQ(optimizer.residual(), 0);
  step();
  expect_structure(optimizer.structures(), "retraining");
}

/// Of each difference and sum under autocast on the CPU, where the second operand lies.
std::vector<const void*> second_operands;

torch::Tensor observed_difference(const torch::Tensor& a, const torch::Tensor& b,
                                  const torch::Scalar& alpha) {
  const c10::impl::ExcludeDispatchKeyGuard once(c10::DispatchKey::AutocastCPU);
  second_operands.push_back(b.const_data_ptr());
  return a.sub(b, alpha);
}

torch::Tensor observed_sum(const torch::Tensor& a, const torch::Tensor& b,
                           const torch::Scalar& alpha) {
  const c10::impl::ExcludeDispatchKeyGuard once(c10::DispatchKey::AutocastCPU);
  second_operands.push_back(b.const_data_ptr());
  return a.add(b, alpha);
}

TEST(Admm, WritesWhatItUpdatesWhereACapturedStepReadsIt) {
  // In bfloat16 on the CPU, ATen takes W - Z + U.
  const auto weight = torch::randn({4, 1, 3, 3}, torch::kBFloat16)
                          .contiguous(torch::MemoryFormat::ChannelsLast)
                          .requires_grad_();
  Admm optimizer(SGD({weight}, SGDOptions(0.1)), lawn::select({weight}),
                 Projection::prune_magnitude(0.5), options());
  auto observer = MAKE_TORCH_LIBRARY_IMPL(aten, AutocastCPU);
  observer.impl("sub.Tensor", observed_difference);
  observer.impl("add.Tensor", observed_sum);
  const auto read_in_a_step = [&] {
    weight.mutable_grad() = torch::ones_like(weight);
    second_operands.clear();
    const lawn::Autocast autocast(torch::kCPU, torch::kBFloat16);
    optimizer.step();
    return std::pair(second_operands.at(0), second_operands.at(1));  // Z and U
  };
  const auto [target, dual] = read_in_a_step();
  EXPECT_NE(target, dual);
  const double residual = optimizer.residual();
  for (int i = 0; i < 3; ++i) {
    optimizer.update();
    EXPECT_NE(optimizer.residual(), residual) << "there is a new Z";
    EXPECT_EQ(read_in_a_step(), std::pair(target, dual));
  }
}

TEST(Admm, MeasuresTheResidual) {
  const auto weight = torch::tensor({{3.0, 1.0}, {4.0, 0.0}}, torch::requires_grad());
  const Admm optimizer(SGD({weight}, SGDOptions(0.1)), lawn::select({weight}),
                       Projection::prune_magnitude(0.5));
  EXPECT_DOUBLE_EQ(optimizer.residual(), std::sqrt(1.0 / 26));
}

TEST(Admm, LeavesWeightsWithoutGradientAlone) {
  Problem problem;
  Admm optimizer(SGD(problem.groups(), SGDOptions(0.1)), problem.weights(), projections(),
                 options());
  const auto before = problem.values();
  optimizer.step();
  expect_equal(problem.values(), before, "no gradients");
}

TEST(Admm, GoesBetweenLAWNAndTheGradients) {
  // LAWN inside: the penalty's gradient is made tangent with the rest, and norms are kept.
  Problem problem(torch::kDouble);
  LAWN inner(SGD(problem.groups(), SGDOptions(0.1)), problem.weights());
  Admm optimizer(std::move(inner), problem.weights(), projections(), options());
  const auto weight = problem.model->parameters()[0];
  optimizer.step([&] { return problem.backward(0); });
  const auto radius = weight.norm().item<double>();
  optimizer.update();
  const auto before = weight.detach().clone();
  optimizer.step([&] { return problem.backward(1); });
  const auto cosine = (weight.grad() * before).sum() / (weight.grad().norm() * before.norm());
  EXPECT_NEAR(cosine.item<double>(), 0, tolerance(torch::kDouble).step);
  EXPECT_NEAR(weight.norm().item<double>() / radius, 1, tolerance(torch::kDouble).step);
}

TEST(Admm, NestsWithMasks) {
  Problem problem;
  const auto masks = lawn::magnitude_masks(problem.weights());
  Admm<Masked<Adam>> optimizer(Masked(Adam(problem.groups(), AdamOptions(0.01)), masks),
                               problem.weights(), Projection::prune_magnitude(0.75), options());
  train(optimizer, problem, 0, 4);
  optimizer.update();
  optimizer.finalize();
  train(optimizer, problem, 4, 8);
  expect_structure(optimizer.structures(), "outside Masked");
  for (const auto& mask : masks) {
    EXPECT_EQ(mask.weight.masked_select(mask.keep.logical_not()).count_nonzero().item<int64_t>(),
              0);
  }
  const auto bytes = saved(optimizer);
  load(optimizer, bytes);
  EXPECT_TRUE(optimizer.finalized());
}

/// Exactly zero where a mask prunes; elsewhere one absolute value, not 0, in each unified block.
void expect_unified_beside(const lawn::Masks& masks,
                           const std::vector<lawn::FrozenStructure>& structures,
                           const std::string& where) {
  for (std::size_t i = 0; i < masks.size(); ++i) {
    const auto weight = masks[i].weight.detach();
    const auto keep = masks[i].keep;
    EXPECT_EQ(weight.masked_select(keep.logical_not()).count_nonzero().item<int64_t>(), 0) << where;
    const auto& [name, of, block, chosen, signs, pruned] = structures[i];
    const lawn::detail::companions::BlockGrid grid("test", name, weight, block);
    const auto most = grid.tiles(weight.abs(), 0).amax({1, 3});
    const auto unified = grid.spread(chosen).logical_and(keep);
    EXPECT_TRUE(
        torch::equal(weight.abs().masked_select(unified), grid.spread(most).masked_select(unified)))
        << where << ", " << name;
    EXPECT_GT(weight.abs().masked_select(unified).min().item<double>(), 0) << where << ", " << name;
  }
}

/// ADMM, then retraining, of weights that masks prune to a half.
template <class Optimizer>
void expect_to_unify_what_masks_keep(Optimizer& optimizer, Problem& problem, lawn::Masks masks) {
  const auto learning_rate = [&](double lr) {
    static_cast<SGDOptions&>(optimizer.param_groups()[0].options()).lr(lr);
  };
  learning_rate(0);
  for (int64_t t = 0; t < 3; ++t) {
    train(optimizer, problem, t, t + 1);
    optimizer.update();
  }
  EXPECT_GT(optimizer.residual(), 0);
  optimizer.finalize();
  expect_unified_beside(masks, optimizer.structures(), "at the projection");
  EXPECT_EQ(optimizer.residual(), 0);
  const auto at_projection = problem.values();
  train(optimizer, problem, 3, 8);
  expect_equal(problem.values(), at_projection, "nothing moves, and nothing decays");
  learning_rate(0.02);
  train(optimizer, problem, 8, 12);
  expect_unified_beside(masks, optimizer.structures(), "retraining");
  EXPECT_FALSE(torch::equal(problem.values()[0], at_projection[0])) << "values are trained";

  masks = lawn::magnitude_masks(problem.weights(), lawn::MagnitudeOptions().amount(0.7), masks);
  optimizer.set_masks(masks);
  learning_rate(0);
  const auto at_pruning = problem.values();
  train(optimizer, problem, 12, 15);
  expect_equal(problem.values(), at_pruning, "nothing decays under other masks either");
}

TEST(Admm, UnifiesWhatMasksKeepWhicheverIsOutside) {
  const auto sgd = [](const Problem& problem) { return SGD(problem.groups(), SGDOptions(0.05)); };
  {
    Problem problem;
    const auto masks = lawn::magnitude_masks(problem.weights());
    Admm<Masked<SGD>> optimizer(Masked(sgd(problem), masks), problem.weights(), unify(), options());
    expect_to_unify_what_masks_keep(optimizer, problem, masks);
  }
  Problem problem;
  const auto masks = lawn::magnitude_masks(problem.weights());
  Masked<Admm<SGD>> optimizer(Admm(sgd(problem), problem.weights(), unify(), options()), masks);
  expect_to_unify_what_masks_keep(optimizer, problem, masks);
}

TEST(Admm, MeasuresHowFarWhatIsOutsideMovesWeightsFromTheFrozenStructure) {
  for (const auto& projection : {unify(), Projection::prune_magnitude(0.5)}) {
    Problem problem;
    lawn::Centered<Admm<SGD>> optimizer(
        Admm(SGD(problem.groups(), SGDOptions(0.05)), problem.weights(), projection),
        problem.weights());
    optimizer.finalize();
    EXPECT_EQ(optimizer.residual(), 0);
    train(optimizer, problem, 0, 1);
    EXPECT_GT(optimizer.residual(), 1e-3) << projection.describe();
  }
}

TEST(AdmmRefused, OptionsOutOfRange) {
  Problem problem;
  const auto refuse = [&](const AdmmOptions& with, const std::string& part) {
    expect_refusal(
        [&] { Admm(SGD(problem.groups(), SGDOptions(0.1)), problem.weights(), unify(), with); },
        part);
  };
  refuse(AdmmOptions().rho(0), "lawn::Admm: rho must be finite and > 0, got 0");
  refuse(AdmmOptions().rho(std::numeric_limits<double>::infinity()), "rho must be finite");
  refuse(AdmmOptions().rho_growth(0.5), "rho_growth must be finite and >= 1, got 0.5");
  refuse(AdmmOptions().rho(2).max_rho(1), "max_rho must be finite and >= rho, 2, got 1");
}

TEST(AdmmRefused, WeightsAndProjectionsThatDoNotFit) {
  Problem problem;
  const auto before = problem.values();
  const auto refuse = [&](const lawn::Subnetwork& selection, std::vector<Projection> with,
                          const std::string& part) {
    expect_refusal(
        [&] { Admm(SGD(problem.groups(), SGDOptions(0.1)), selection, std::move(with)); }, part);
  };
  const auto weights = problem.weights();
  refuse(weights, {Projection::unify_blocks({4, 4}, 0.5)},
         "expected blocks that fit the matrix 3x8 of 2.weight, got 4x4; take smaller ones");
  refuse(weights, {Projection::unify_blocks({1, 1}, -1)}, "fraction must be in [0, 1], got -1");
  refuse(weights, {Projection::prune_magnitude(1)},
         "expected something of 0.weight to stay, got everything pruned");
  refuse(weights, {}, "expected one projection, or one for each of 2 weights, got 0");
  refuse(weights, {unify(), unify(), unify()}, "got 3");
  refuse(lawn::select({torch::ones({4, 4})}), {unify()},
         "expected the optimizer to hold every weight, got parameter 0 which it does not hold");
  expect_equal(problem.values(), before, "refused");
}

TEST(AdmmRefused, UpdatesAfterTheEndAndOfWeightsThatAreNotFinite) {
  Problem problem;
  Admm optimizer(SGD(problem.groups(), SGDOptions(0.1)), problem.weights(), projections());
  const auto weight = problem.model->parameters()[2];
  const auto good = weight.detach().clone();
  const torch::NoGradGuard no_grad;
  weight.fill_(std::numeric_limits<float>::quiet_NaN());
  const auto before = saved(optimizer);
  const auto values = problem.values();
  expect_refusal([&] { optimizer.update(); },
                 "expected finite weights, got NaN or an infinity in 2.weight");
  expect_refusal([&] { optimizer.finalize(); }, "an infinity in 2.weight");
  EXPECT_EQ(saved(optimizer), before);
  EXPECT_TRUE(torch::equal(problem.values()[0], values[0]));
  weight.copy_(good);
  optimizer.finalize();
  expect_refusal([&] { optimizer.update(); }, "expected update() before finalize(), got it after");
}

TEST(AdmmRefused, SparseGradients) {
  const auto weight = torch::randn({4, 2}, torch::requires_grad());
  Admm optimizer(SGD({weight}, SGDOptions(0.1)), lawn::select({weight}),
                 Projection::prune_magnitude(0.5));
  weight.mutable_grad() = torch::ones({4, 2}).to_sparse();
  const auto before = weight.detach().clone();
  expect_refusal([&] { optimizer.step(); }, "expected a dense gradient for parameter 0");
  EXPECT_TRUE(torch::equal(weight, before));
}

TEST(AdmmRefused, CheckpointsOfOtherProjectionsDecoratorsAndNesting) {
  Problem problem;
  const auto sgd = [&] { return SGD(problem.groups(), SGDOptions(0.1).momentum(0.9)); };
  const auto weights = problem.weights();
  const auto refuse = [&](auto& into, const std::string& bytes, const std::string& part) {
    const auto before = saved(into);
    expect_refusal([&] { load(into, bytes); }, part);
    EXPECT_EQ(saved(into), before) << part;
  };
  Admm optimizer(sgd(), weights, projections());
  refuse(optimizer, saved(Admm(sgd(), weights, unify())),
         "lawn::Admm: expected a checkpoint of the projections [unify_blocks 2x3 0.75, "
         "prune_blocks 1x2 0.5], got one of [unify_blocks 2x3 0.75, unify_blocks 2x3 0.75]");
  refuse(optimizer, saved(Admm(sgd(), lawn::select({weights.parameters()[1]}), unify())),
         "expected a checkpoint of the weights [0.weight, 2.weight], got one of [parameter 0]");
  const auto masks = lawn::magnitude_masks(weights);
  refuse(optimizer, saved(Masked(sgd(), masks)),
         "expected a checkpoint of lawn::Admm in place 1 of the decorators, got one of "
         "lawn::Masked: nest them as they were saved");
  Masked<Admm<SGD>> outer(Admm(sgd(), weights, projections()), masks);
  Admm<Masked<SGD>> inner(Masked(sgd(), masks), weights, projections());
  refuse(outer, saved(inner), "expected a checkpoint of lawn::Masked in place 2");
}

TEST(AdmmAroundLAWN, LeavesTheGradientsWhereTheSwitchIsRefused) {
  for (const auto radius : {lawn::Radius::kCaptured, lawn::Radius::kGiven}) {
    const auto w = torch::ones({2, 2}, torch::requires_grad());
    auto inner = lawn::LAWNOptions().radius(radius);
    if (radius == lawn::Radius::kGiven) inner.radii({1.0});
    Admm optimizer(LAWN(SGD({w}, SGDOptions(0.1)), lawn::select({w}), inner), lawn::select({w}),
                   Projection::prune_magnitude(0.5), AdmmOptions().rho(1));
    w.mutable_grad() = torch::ones({2, 2});
    {
      const torch::NoGradGuard no_grad;
      w.zero_();
    }
    EXPECT_THROW(optimizer.check_step(), c10::Error);
    expect_refusal([&] { optimizer.step(); }, "at the switch, got 0");
    EXPECT_TRUE(torch::equal(w.grad(), torch::ones({2, 2})));
    {
      const torch::NoGradGuard no_grad;
      w.fill_(2);
    }
    optimizer.step();
    EXPECT_EQ(optimizer.phase(), lawn::Phase::kConstrained);
  }
}

}  // namespace
