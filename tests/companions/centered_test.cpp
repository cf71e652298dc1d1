// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/mimicnorm/center_rows.h>
#include <lawn/companions/mimicnorm/centered.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/lawn.h>

#include "tests/support/refusal.h"
#include "tests/support/rows.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::Centered;
using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::Masked;
using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::Problem;

/// Steps [from, to), with a closure, which every optimizer takes.
void train(torch::optim::Optimizer& optimizer, Problem& problem, int64_t from, int64_t to) {
  for (int64_t t = from; t < to; ++t) optimizer.step([&] { return problem.backward(t); });
}

/// The largest mean of an output unit of a weight.
double largest_mean(const Problem& problem) {
  double largest = 0;
  for (const auto& w : problem.weights().parameters()) {
    const auto means = w.detach().to(torch::kDouble).mean(1);
    largest = std::max(largest, means.abs().max().item<double>());
  }
  return largest;
}

void center_plainly(const Problem& problem) {
  const torch::NoGradGuard no_grad;
  for (auto& w : problem.weights().parameters()) w.copy_(w - w.mean({1}, /*keepdim=*/true));
}

template <class Row>
class CenteredConformance : public ::testing::Test {
 protected:
  static auto wrap(Problem& problem) {
    return Centered<typename Row::Opt>(Row::make(problem.groups()), problem.weights());
  }
};

TYPED_TEST_SUITE(CenteredConformance, lawn::testing::Rows);

TYPED_TEST(CenteredConformance, IsTheBaseOptimizerAndThenTheProjectionBitForBit) {
  Problem problem;
  Problem twin;
  auto optimizer = this->wrap(problem);
  auto base = TypeParam::make(twin.groups());
  std::vector<lawn::WeightRows> rows;
  for (const auto& w : twin.weights().parameters()) rows.push_back({w});
  for (int64_t t = 0; t < 6; ++t) {
    train(optimizer, problem, t, t + 1);
    train(base, twin, t, t + 1);
    lawn::center_rows_(rows);
    expect_equal(problem.values(), twin.values(), "step " + std::to_string(t));
  }
}

TYPED_TEST(CenteredConformance, EqualsAPlainFloat64TwinAndKeepsMeansAtZero) {
  Problem problem(torch::kDouble);
  Problem twin(torch::kDouble);
  auto optimizer = this->wrap(problem);
  auto base = TypeParam::make(twin.groups());
  const double before = largest_mean(problem);
  optimizer.center();
  center_plainly(twin);
  EXPECT_GT(before, 0.01);
  for (int64_t t = 0; t < TypeParam::kTwinSteps; ++t) {
    train(optimizer, problem, t, t + 1);
    train(base, twin, t, t + 1);
    center_plainly(twin);
    ASSERT_LE(largest_mean(problem), 1e-15) << "step " << t;
  }
  const auto actual = problem.values();
  const auto expected = twin.values();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_LE((actual[i] - expected[i]).abs().max().template item<double>(),
              lawn::testing::tolerance(torch::kDouble).trajectory);
  }
}

TYPED_TEST(CenteredConformance, KeepsMeansAtZeroToRoundingInEveryDtype) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    Problem problem(dtype);
    auto optimizer = this->wrap(problem);
    train(optimizer, problem, 0, 10);
    EXPECT_LE(largest_mean(problem), lawn::testing::tolerance(dtype).norm) << dtype;
    for (const auto& value : problem.values()) {
      EXPECT_EQ(value.scalar_type(), dtype);
      EXPECT_TRUE(value.isfinite().all().template item<bool>());
    }
  }
}

TYPED_TEST(CenteredConformance, SavedLoadedAndContinuedEqualsUninterruptedBitForBit) {
  Problem straight;
  auto whole = this->wrap(straight);
  train(whole, straight, 0, 8);

  Problem first;
  auto before = this->wrap(first);
  train(before, first, 0, 5);
  std::stringstream model_file;
  std::stringstream optimizer_file;
  torch::save(first.model, model_file);
  torch::save(before, optimizer_file);

  Problem second(torch::kFloat, /*seed=*/5);
  second.x = first.x;
  second.y = first.y;
  torch::load(second.model, model_file);
  auto after = this->wrap(second);  // on weights that are centred already, and must not move
  torch::load(after, optimizer_file);
  train(after, second, 5, 8);
  expect_equal(second.values(), straight.values(), "stopped after 5");
}

TYPED_TEST(CenteredConformance, KeepsMeansAndNormsWithinLAWN) {
  using Opt = typename TypeParam::Opt;
  Problem problem;
  auto inner = this->wrap(problem);
  inner.center();
  LAWN<Centered<Opt>> optimizer(std::move(inner), problem.weights(),
                                TypeParam::lawn().free_steps(3));
  train(optimizer, problem, 0, 12);
  EXPECT_LE(largest_mean(problem), 1e-7);
  for (const auto& layer : optimizer.report().layers) {
    EXPECT_LE(layer.norm_error.value(), lawn::testing::tolerance(torch::kFloat).norm);
  }

  std::stringstream file;
  std::stringstream model_file;
  torch::save(optimizer, file);
  torch::save(problem.model, model_file);
  Problem other;
  LAWN<Centered<Opt>> loaded(this->wrap(other), other.weights(), TypeParam::lawn().free_steps(3));
  torch::load(other.model, model_file);
  torch::load(loaded, file);
  train(optimizer, problem, 12, 15);
  train(loaded, other, 12, 15);
  expect_equal(other.values(), problem.values(), "loaded");

  file.seekg(0);
  Problem third;
  const auto untouched = third.values();
  Centered<LAWN<Opt>> other_order(
      LAWN<Opt>(TypeParam::make(third.groups()), third.weights(), TypeParam::lawn().free_steps(3)),
      third.weights());
  expect_refusal([&] { torch::load(other_order, file); }, "nest them as they were saved");
  expect_equal(third.values(), untouched, "refused");
  EXPECT_EQ(other_order.steps(), 0);
}

TYPED_TEST(CenteredConformance, TakesTheMeanOverWhatAMaskKeepsInEitherOrder) {
  using Opt = typename TypeParam::Opt;
  const auto masks_of = [](const Problem& problem) {
    torch::manual_seed(3);
    lawn::Masks masks;
    int64_t number = 0;
    for (const auto& w : problem.weights().parameters()) {
      masks.push_back({std::to_string(number++), w, torch::rand(w.sizes()) < 0.6});
    }
    return masks;
  };
  const auto expect_sparse_and_centred = [](const lawn::Masks& masks) {
    for (const auto& mask : masks) {
      const auto w = mask.weight.detach().to(torch::kDouble);
      EXPECT_EQ(w.masked_select(mask.keep.logical_not()).abs().sum().template item<double>(), 0);
      EXPECT_LE(w.mean(1).abs().max().template item<double>(), 1e-7);
      EXPECT_GT(w.abs().max().template item<double>(), 0.01);
    }
  };
  Problem one;
  const auto masks_of_one = masks_of(one);
  Centered<Masked<Opt>> outside(Masked<Opt>(TypeParam::make(one.groups()), masks_of_one),
                                one.weights());
  outside.center();
  train(outside, one, 0, 6);
  expect_sparse_and_centred(masks_of_one);

  Problem two;
  const auto masks_of_two = masks_of(two);
  Masked<Centered<Opt>> inside(this->wrap(two), masks_of_two);
  static_cast<Centered<Opt>&>(inside).center();
  train(inside, two, 0, 6);
  expect_sparse_and_centred(masks_of_two);
  expect_equal(two.values(), one.values(), "the order does not matter");
}

/// SGD in all its forms is linear in the gradients and the weights.
template <class Row>
class CenteredSGD : public ::testing::Test {};

using LinearRows = ::testing::Types<lawn::testing::PlainSGD, lawn::testing::MomentumSGD,
                                    lawn::testing::NesterovSGD, lawn::testing::FusedMomentumSGD,
                                    lawn::testing::FusedNesterovSGD>;
TYPED_TEST_SUITE(CenteredSGD, LinearRows);

/// Trains `base` on gradients that are centred, from a centred start.
template <class Opt>
void train_on_centred_gradients(Opt& base, Problem& problem, int64_t steps) {
  center_plainly(problem);
  for (int64_t t = 0; t < steps; ++t) {
    problem.backward(t);
    for (const auto& w : problem.weights().parameters()) {
      w.mutable_grad() = w.grad() - w.grad().mean({1}, /*keepdim=*/true);
    }
    base.step();
  }
}

double largest_difference(const Problem& a, const Problem& b) {
  double largest = 0;
  const auto one = a.values();
  const auto two = b.values();
  for (std::size_t i = 0; i < one.size(); ++i) {
    largest = std::max(largest, (one[i] - two[i]).abs().max().item<double>());
  }
  return largest;
}

TYPED_TEST(CenteredSGD, EqualsCentringTheGradientsFromACentredStart) {
  Problem problem(torch::kDouble);
  Problem twin(torch::kDouble);
  Centered<typename TypeParam::Opt> optimizer(TypeParam::make(problem.groups()), problem.weights());
  optimizer.center();
  for (int64_t t = 0; t < 50; ++t) {
    problem.backward(t);
    optimizer.step();
  }
  auto base = TypeParam::make(twin.groups());
  train_on_centred_gradients(base, twin, 50);
  EXPECT_LE(largest_difference(problem, twin), 1e-12);
}

TEST(CenteredAdam, DoesNotEqualCentringTheGradientsWhichLetsMeansGo) {
  using Row = lawn::testing::PlainAdam;
  Problem problem(torch::kDouble);
  Problem twin(torch::kDouble);
  Centered<torch::optim::Adam> optimizer(Row::make(problem.groups()), problem.weights());
  optimizer.center();
  for (int64_t t = 0; t < 50; ++t) {
    problem.backward(t);
    optimizer.step();
  }
  auto base = Row::make(twin.groups());
  train_on_centred_gradients(base, twin, 50);
  EXPECT_GT(largest_difference(problem, twin), 1e-2);
  EXPECT_GT(largest_mean(twin), 1e-2);
  EXPECT_LE(largest_mean(problem), 1e-15);
}

class CenteredWeights : public ::testing::Test {
 protected:
  Problem problem_;
  torch::optim::SGD sgd() const {
    return torch::optim::SGD(problem_.model->parameters(), torch::optim::SGDOptions(0.1));
  }
  torch::Tensor weight(std::size_t i) const { return problem_.model->parameters()[2 * i]; }
};

TEST_F(CenteredWeights, LeavesConstructionUntouchedAndOtherTensorsBitIdentical) {
  const auto before = problem_.values();
  Centered<torch::optim::SGD> optimizer(sgd(), lawn::select({weight(0)}));
  expect_equal(problem_.values(), before, "constructed");
  optimizer.center();
  const auto after = problem_.values();
  EXPECT_FALSE(torch::equal(after[0], before[0]));
  for (std::size_t i = 1; i < after.size(); ++i) EXPECT_TRUE(torch::equal(after[i], before[i]));

  Problem plain;
  {
    const torch::NoGradGuard no_grad;
    plain.model->parameters()[0].copy_(after[0]);
  }
  torch::optim::SGD base(plain.model->parameters(), torch::optim::SGDOptions(0.1));
  plain.backward(0);
  base.step();
  problem_.backward(0);
  optimizer.step();
  for (std::size_t i = 1; i < after.size(); ++i) {
    EXPECT_TRUE(torch::equal(problem_.values()[i], plain.values()[i])) << i;
  }
  EXPECT_EQ(optimizer.centered(), std::vector<std::string>{"parameter 0"});
}

TEST_F(CenteredWeights, FollowTheDimensionOfTheOutputUnits) {
  torch::nn::ConvTranspose2d layer(torch::nn::ConvTranspose2dOptions(3, 4, 3));
  Centered<torch::optim::SGD> optimizer(torch::optim::SGD(layer->parameters(), 0.1),
                                        lawn::select_all_weights(*layer));
  optimizer.center();
  EXPECT_LE(layer->weight.detach().mean({0, 2, 3}).abs().max().item<double>(), 1e-7);
  EXPECT_GT(layer->weight.detach().mean({1, 2, 3}).abs().max().item<double>(), 1e-3);
}

TEST_F(CenteredWeights, RefusesWhatCannotBeCentredBeforeAnythingIsChanged) {
  const auto before = problem_.values();
  const auto refuse = [&](const lawn::Subnetwork& selection, const std::string& part) {
    expect_refusal([&] { Centered<torch::optim::SGD>(sgd(), selection); }, part);
  };
  refuse(lawn::select({problem_.model->parameters()[1]}),
         "lawn::Centered: expected weights with more than one element to an output unit, got "
         "parameter 0 of shape [8], which centring would make zero; leave it out");
  refuse(lawn::select({torch::ones({4, 1, 1, 1})}), "of shape [4, 1, 1, 1]");
  refuse(lawn::select({torch::ones({})}), "of shape []");
  refuse(lawn::select({torch::ones({0, 3})}), "expected weights with elements");
  refuse(lawn::select({torch::eye(3).to_sparse()}), "expected dense weights");
  refuse(lawn::select({torch::ones({4, 4})}),
         "lawn::Centered: expected the optimizer to hold every weight, got parameter 0 which it "
         "does not hold");
  expect_refusal(
      [&] {
        lawn::select({torch::ones({4, 4}, torch::kLong)});
      },
      "expected parameters of a real floating-point type");
  expect_equal(problem_.values(), before, "refused");
}

TEST_F(CenteredWeights, RefusesACheckpointOfOtherWeights) {
  Centered<torch::optim::SGD> saved(sgd(), lawn::select({weight(0)}));
  std::stringstream file;
  torch::save(saved, file);
  Centered<torch::optim::SGD> other(sgd(), lawn::select({weight(1)}));
  expect_refusal([&] { torch::load(other, file); },
                 "lawn::Centered: expected a checkpoint of the weights");
}

}  // namespace
