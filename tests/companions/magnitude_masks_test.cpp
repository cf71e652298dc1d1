// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/pruning_schedule.h>
#include <lawn/subnetwork/selection.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::CubicSparsity;
using lawn::CubicSparsityOptions;
using lawn::magnitude_masks;
using lawn::MagnitudeOptions;
using lawn::Masks;
using lawn::PruneScope;
using lawn::PruneUnit;
using lawn::testing::expect_refusal;

int64_t pruned_of(const lawn::Mask& mask) { return mask.keep.logical_not().sum().item<int64_t>(); }

/// The units of a weight of two dimensions, as lists of indices into it, and the mean |w|^n of
/// each: plain loops.
struct Units {
  std::vector<std::vector<int64_t>> elements;
  std::vector<double> scores;

  Units(const torch::Tensor& weight, const MagnitudeOptions& options) {
    const auto rows = weight.size(0);
    const auto columns = weight.numel() / rows;
    int64_t down = 1;
    int64_t across = 1;
    if (options.unit() == PruneUnit::kRow) {
      (options.dim() == 0 ? across : down) = options.dim() == 0 ? columns : rows;
    } else if (options.unit() == PruneUnit::kBlock) {
      down = options.block().rows;
      across = options.block().columns;
    }
    const auto flat = weight.to(torch::kDouble).reshape({-1});
    for (int64_t r = 0; r < rows; r += down) {
      for (int64_t c = 0; c < columns; c += across) {
        std::vector<int64_t> unit;
        double sum = 0;
        for (int64_t i = r; i < std::min(r + down, rows); ++i) {
          for (int64_t j = c; j < std::min(c + across, columns); ++j) {
            unit.push_back(i * columns + j);
            sum += std::pow(std::abs(flat[i * columns + j].item<double>()), options.n());
          }
        }
        scores.push_back(std::pow(sum / static_cast<double>(unit.size()), 1 / options.n()));
        elements.push_back(unit);
      }
    }
  }
};

/// The smallest `count` of all units, sorted plainly: what must be pruned of each weight.
std::vector<torch::Tensor> twin(const std::vector<torch::Tensor>& weights,
                                const MagnitudeOptions& options) {
  struct Scored {
    double score;
    size_t weight;
    std::vector<int64_t> elements;
  };
  std::vector<std::vector<Scored>> lists(options.scope() == PruneScope::kGlobal ? 1
                                                                                : weights.size());
  std::vector<torch::Tensor> keep;
  for (size_t w = 0; w < weights.size(); ++w) {
    const Units units(weights[w], options);
    keep.push_back(torch::ones({weights[w].numel()}, torch::kBool));
    auto& list = lists[options.scope() == PruneScope::kGlobal ? 0 : w];
    for (size_t u = 0; u < units.scores.size(); ++u) {
      list.push_back({units.scores[u], w, units.elements[u]});
    }
  }
  for (auto& list : lists) {
    std::stable_sort(list.begin(), list.end(),
                     [](const Scored& a, const Scored& b) { return a.score < b.score; });
    const auto count =
        static_cast<size_t>(std::nearbyint(options.amount() * static_cast<double>(list.size())));
    for (size_t i = 0; i < count; ++i) {
      for (const int64_t element : list[i].elements) keep[list[i].weight][element] = false;
    }
  }
  for (size_t w = 0; w < weights.size(); ++w) keep[w] = keep[w].view(weights[w].sizes());
  return keep;
}

class MagnitudeMasks : public ::testing::TestWithParam<torch::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(All, MagnitudeMasks,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16),
                         lawn::testing::dtype_name);

TEST_P(MagnitudeMasks, EqualThoseOfPlainSorting) {
  torch::manual_seed(5);
  const std::vector<torch::Tensor> weights = {torch::randn({10, 7}).to(GetParam()),
                                              (0.8 * torch::randn({6, 13})).to(GetParam())};
  const auto selection = lawn::select(weights);
  for (const auto scope : {PruneScope::kPerLayer, PruneScope::kGlobal}) {
    for (const auto unit : {PruneUnit::kElement, PruneUnit::kRow, PruneUnit::kBlock}) {
      for (const int64_t dim : {0, 1}) {
        for (const double n : {1.0, 2.0}) {
          const auto options =
              MagnitudeOptions().amount(0.4).scope(scope).unit(unit).dim(dim).n(n).block({3, 4});
          const auto masks = magnitude_masks(selection, options);
          const auto expected = twin(weights, options);
          for (size_t i = 0; i < weights.size(); ++i) {
            EXPECT_TRUE(torch::equal(masks[i].keep, expected[i]))
                << "unit " << static_cast<int>(unit) << " dim " << dim << " n " << n << " weight "
                << i << "\n"
                << masks[i].keep << expected[i];
          }
        }
      }
    }
  }
}

TEST_P(MagnitudeMasks, PruneExactCountsUnderTiesAndTheFirstOfEqualOnes) {
  const auto equal = torch::ones({4, 5}).to(GetParam());
  const auto selection = lawn::select({equal});
  for (int64_t count = 0; count < 20; ++count) {
    const auto mask =
        magnitude_masks(selection, MagnitudeOptions().amount(static_cast<double>(count) / 20))[0];
    const auto expected = torch::arange(20).ge(count).view({4, 5});
    EXPECT_TRUE(torch::equal(mask.keep, expected)) << count;
  }
  // Half of the elements are zero, of both signs: a threshold would prune all of them or none.
  auto zeros = torch::randn({6, 6}).to(GetParam());
  zeros.slice(0, 0, 3).fill_(0.0);
  zeros[0].neg_();
  const auto mask = magnitude_masks(lawn::select({zeros}), MagnitudeOptions().amount(0.25))[0];
  EXPECT_EQ(pruned_of(mask), 9);
  EXPECT_TRUE(mask.keep.reshape({-1}).slice(0, 9).all().item<bool>());
}

TEST(MagnitudeMasks, CountAsPythonDoes) {
  const auto count = [](int64_t size, double amount) {
    return pruned_of(magnitude_masks(lawn::select({torch::arange(size, torch::kFloat)}),
                                     MagnitudeOptions().amount(amount))[0]);
  };
  EXPECT_EQ(count(5, 0.5), 2) << "2.5 goes to the even number";
  EXPECT_EQ(count(7, 0.5), 4) << "and so does 3.5";
  EXPECT_EQ(count(10, 0.26), 3);
  EXPECT_EQ(count(10, 0.0), 0);
}

TEST_P(MagnitudeMasks, AreNestedAsTheAmountGrows) {
  torch::manual_seed(6);
  auto weight = torch::randn({12, 12}).to(GetParam());
  weight.slice(0, 2, 6).fill_(0.125);  // ties
  for (const auto unit : {PruneUnit::kElement, PruneUnit::kRow, PruneUnit::kBlock}) {
    auto smaller = torch::ones({12, 12}, torch::kBool);
    for (const double amount : {0.1, 0.3, 0.35, 0.6, 0.8}) {
      const auto keep =
          magnitude_masks(lawn::select({weight}), MagnitudeOptions().amount(amount).unit(unit))[0]
              .keep;
      EXPECT_FALSE(keep.logical_and(smaller.logical_not()).any().item<bool>()) << amount;
      smaller = keep;
    }
  }
}

TEST(MagnitudeMasks, KeepWhatEarlierMasksPrunedAndCountIt) {
  torch::manual_seed(7);
  const auto weight = torch::randn({10, 10});
  const auto selection = lawn::select({weight});
  const auto first = magnitude_masks(selection, MagnitudeOptions().amount(0.3));
  lawn::apply_masks_(first);
  // What was small is large by now, and what is large is zero, but not pruned.
  weight.masked_fill_(first[0].keep.logical_not(), 100);
  weight.masked_fill_(weight.abs() > 1.5, 0).masked_fill_(first[0].keep.logical_not(), 100);
  for (const auto scope : {PruneScope::kPerLayer, PruneScope::kGlobal}) {
    const auto second =
        magnitude_masks(selection, MagnitudeOptions().amount(0.5).scope(scope), first);
    EXPECT_EQ(pruned_of(second[0]), 50);
    EXPECT_FALSE(second[0].keep.logical_and(first[0].keep.logical_not()).any().item<bool>());
    const auto fewer =
        magnitude_masks(selection, MagnitudeOptions().amount(0.1).scope(scope), first);
    EXPECT_TRUE(torch::equal(fewer[0].keep, first[0].keep)) << "nothing comes back";
  }
  const auto rows = MagnitudeOptions().amount(0.5).unit(PruneUnit::kRow);
  const auto both = magnitude_masks(selection, rows, first)[0].keep;
  EXPECT_FALSE(both.logical_and(first[0].keep.logical_not()).any().item<bool>());
  EXPECT_EQ(both.any(1).logical_not().sum().item<int64_t>(), 5);
}

TEST(MagnitudeMasks, LeaveTheWeightsAndFollowTheirOrderOfMemory) {
  const auto weight = torch::randn({8, 4, 3, 3}).contiguous(torch::MemoryFormat::ChannelsLast);
  const auto before = weight.clone();
  const auto mask = magnitude_masks(lawn::select({weight}))[0];
  EXPECT_TRUE(torch::equal(weight, before));
  EXPECT_EQ(mask.keep.strides(), weight.strides());
  EXPECT_EQ(mask.weight.unsafeGetTensorImpl(), weight.unsafeGetTensorImpl());
  const auto contiguous = magnitude_masks(lawn::select({weight.contiguous()}))[0];
  EXPECT_TRUE(torch::equal(mask.keep, contiguous.keep));
}

TEST(MagnitudeMasks, CompareUnitsByNormsOfAnyOrderAndSize) {
  const auto rows = torch::tensor({5.0, 1.0, 4.0, 2.0}, torch::kDouble).view({4, 1});
  const auto expected = torch::tensor({true, false, true, false}).view({4, 1});
  // Powers of these sizes are beyond the range of float64.
  for (const double size : {1e-300, 1e-4, 1.0, 1e300}) {
    for (const double n : {0.1, 2.0, 100.0, 5000.0}) {
      for (const auto unit : {PruneUnit::kRow, PruneUnit::kBlock}) {
        const auto weight = (rows * size).expand({4, 6}).contiguous();
        const auto mask = magnitude_masks(lawn::select({weight}),
                                          MagnitudeOptions().unit(unit).n(n).block({1, 6}))[0];
        EXPECT_TRUE(torch::equal(mask.keep, expected.expand({4, 6}))) << size << ", n " << n;
      }
    }
  }
}

TEST(MagnitudeMasks, CompareRowsOfLayersByTheirMean) {
  // The rows of `wide` have the larger norms and the smaller elements.
  const auto narrow = torch::full({4, 2}, 2.0);
  const auto wide = torch::full({4, 64}, 1.0);
  const auto masks = magnitude_masks(
      lawn::select({narrow, wide}),
      MagnitudeOptions().unit(PruneUnit::kRow).scope(PruneScope::kGlobal).amount(0.25));
  EXPECT_EQ(pruned_of(masks[0]), 0);
  EXPECT_EQ(pruned_of(masks[1]), 128);
}

TEST(MagnitudeMasksRefused, ForOptionsOutOfRange) {
  const auto selection = lawn::select({torch::ones({4, 4})});
  const auto refuse = [&](const MagnitudeOptions& options, const std::string& part) {
    expect_refusal([&] { magnitude_masks(selection, options); }, part);
  };
  refuse(MagnitudeOptions().amount(1.5),
         "lawn::magnitude_masks: amount must be in [0, 1], got 1.5");
  refuse(MagnitudeOptions().amount(-0.1), "amount must be in [0, 1], got -0.1");
  refuse(MagnitudeOptions().amount(std::nan("")), "amount must be in [0, 1], got nan");
  refuse(MagnitudeOptions().n(0), "n must be finite and > 0, got 0");
  refuse(MagnitudeOptions().unit(PruneUnit::kRow).dim(2),
         "expected a dimension of parameter 0, of shape [4, 4], got dim 2");
  refuse(MagnitudeOptions().unit(PruneUnit::kBlock).block({5, 1}),
         "expected blocks that fit the matrix 4x4 of parameter 0, got 5x1; take smaller ones");
  refuse(MagnitudeOptions().unit(PruneUnit::kBlock).block({0, 1}),
         "expected blocks of at least one row and one column, got 0x1");
}

TEST(MagnitudeMasksRefused, WhenEverythingOfAWeightWouldBePruned) {
  const auto small = torch::full({4, 4}, 0.1);
  const auto large = torch::full({8, 8}, 1.0);
  expect_refusal([&] { magnitude_masks(lawn::select({large}), MagnitudeOptions().amount(1)); },
                 "expected something of parameter 0 to stay, got everything pruned at amount 1");
  expect_refusal(
      [&] {
        magnitude_masks(lawn::select({large, small}),
                        MagnitudeOptions().amount(0.5).scope(PruneScope::kGlobal));
      },
      "expected something of parameter 1 to stay");
}

TEST(MagnitudeMasksRefused, ForWeightsThatCannotBeRanked) {
  auto weight = torch::ones({4, 4});
  weight[1][1] = std::numeric_limits<float>::quiet_NaN();
  expect_refusal([&] { magnitude_masks(lawn::select({weight})); },
                 "expected finite weights, got NaN or an infinity in parameter 0");
  expect_refusal(
      [&] {
        magnitude_masks(lawn::select({torch::ones({0, 3})}));
      },
      "expected weights with elements, got none in parameter 0 of shape [0, 3]");
  const auto other = torch::ones({3});
  const Masks previous = {{"other", other, torch::ones({3}, torch::kBool)}};
  expect_refusal([&] { magnitude_masks(lawn::select({torch::ones({4})}), {}, previous); },
                 "expected previous masks of selected weights, got one of other");
}

TEST(CubicSparsity, RisesFastAtFirstAndEndsExactly) {
  const CubicSparsity schedule(
      CubicSparsityOptions().initial(0.2).target(0.9).begin(100).end(500).every(150));
  EXPECT_EQ(schedule.at(0), 0.2);
  EXPECT_EQ(schedule.at(100), 0.2);
  EXPECT_DOUBLE_EQ(schedule.at(300), 0.9 - 0.7 / 8);
  EXPECT_DOUBLE_EQ(schedule.at(200), 0.9 - 0.7 * 27 / 64);
  EXPECT_EQ(schedule.at(500), 0.9);
  EXPECT_EQ(schedule.at(10000), 0.9);
  for (int64_t step = 0; step < 600; ++step) {
    EXPECT_LE(schedule.at(step), schedule.at(step + 1)) << step;
  }
  std::vector<int64_t> due;
  for (int64_t step = 0; step < 1000; ++step) {
    if (schedule.due(step)) due.push_back(step);
  }
  EXPECT_EQ(due, (std::vector<int64_t>{100, 250, 400, 500}));
}

TEST(CubicSparsityRefused, ForOptionsOutOfRange) {
  const auto refuse = [](const CubicSparsityOptions& options, const std::string& part) {
    expect_refusal([&] { const CubicSparsity schedule(options); }, part);
  };
  refuse(CubicSparsityOptions().initial(-1), "lawn::CubicSparsity: initial must be in [0, 1]");
  refuse(CubicSparsityOptions().target(1.1), "target must be in [0, 1], got 1.1");
  refuse(CubicSparsityOptions().initial(0.5).target(0.4),
         "target must be >= initial, 0.5, got 0.4");
  refuse(CubicSparsityOptions().begin(-1), "begin must be >= 0, got -1");
  refuse(CubicSparsityOptions().begin(5).end(5), "end must be > begin, 5, got 5");
  refuse(CubicSparsityOptions().every(0), "every must be >= 1, got 0");
}

}  // namespace
