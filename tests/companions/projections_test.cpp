// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/unification/admm_projection.h>
#include <lawn/companions/unification/frozen_structure.h>
#include <lawn/companions/unification/projections.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::BlockShape;
using lawn::Projected;
using lawn::Projection;
using lawn::prune_blocks;
using lawn::prune_magnitude;
using lawn::unify_blocks;
using lawn::testing::expect_refusal;

/// Calls `visit(block row, block column, values)` for each block, in order, by plain loops; a block
/// at an edge has fewer values.
template <class Visit>
void for_each_block(const torch::Tensor& weight, BlockShape block, const Visit& visit) {
  const auto rows = weight.dim() > 0 ? weight.size(0) : 1;
  const auto columns = weight.numel() / rows;
  const auto matrix = weight.to(torch::kDouble).reshape({rows, columns}).contiguous();
  const auto at = matrix.accessor<double, 2>();
  for (int64_t r = 0; r < rows; r += block.rows) {
    for (int64_t c = 0; c < columns; c += block.columns) {
      std::vector<double> values;
      for (int64_t i = r; i < std::min(r + block.rows, rows); ++i) {
        for (int64_t j = c; j < std::min(c + block.columns, columns); ++j) {
          values.push_back(at[i][j]);
        }
      }
      visit(r / block.rows, c / block.columns, values);
    }
  }
}

/// NaN marks pruned elements, which take no part.
double mean_size(const std::vector<double>& values) {
  double sum = 0;
  double count = 0;
  for (const double value : values) {
    if (std::isnan(value)) continue;
    sum += std::abs(value);
    ++count;
  }
  return count > 0 ? sum / count : 0;
}

/// How far a block is from the nearest one with the structure.
double squared_error(const std::vector<double>& values, bool unify) {
  const double a = unify ? mean_size(values) : 0;
  double error = 0;
  for (const double value : values) {
    if (!std::isnan(value)) error += (std::abs(value) - a) * (std::abs(value) - a);
  }
  return error;
}

/// The definition, by plain loops: sort blocks by their error, change the first of them.
torch::Tensor twin(const torch::Tensor& weight, BlockShape block, double fraction, bool unify) {
  std::vector<std::vector<double>> blocks;
  for_each_block(weight, block,
                 [&](int64_t, int64_t, const auto& values) { blocks.push_back(values); });
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return squared_error(blocks[a], unify) < squared_error(blocks[b], unify);
  });
  order.resize(static_cast<size_t>(std::nearbyint(fraction * static_cast<double>(blocks.size()))));
  const auto rows = weight.dim() > 0 ? weight.size(0) : 1;
  const auto columns = weight.numel() / rows;
  const auto across = (columns + block.columns - 1) / block.columns;
  auto result = weight.to(torch::kDouble).reshape({rows, columns}).clone();
  auto at = result.accessor<double, 2>();
  for (const size_t chosen : order) {
    const double a = unify ? mean_size(blocks[chosen]) : 0;
    const auto r = static_cast<int64_t>(chosen) / across * block.rows;
    const auto c = static_cast<int64_t>(chosen) % across * block.columns;
    for (int64_t i = r; i < std::min(r + block.rows, rows); ++i) {
      for (int64_t j = c; j < std::min(c + block.columns, columns); ++j) {
        if (!std::isnan(at[i][j])) at[i][j] = at[i][j] < 0 ? -a : a;
      }
    }
  }
  return result.view(weight.sizes());
}

torch::Tensor weight_of(const std::string& layout, torch::ScalarType dtype) {
  torch::manual_seed(4);
  auto weight = torch::randn({10, 6, 3, 3}).to(dtype);  // 10 x 54: ragged for blocks of 4 x 4
  if (layout == "channels-last") return weight.contiguous(torch::MemoryFormat::ChannelsLast);
  if (layout == "with gaps") return weight.slice(0, 0, 10, 2);
  if (layout == "vector") return torch::randn({10}).to(dtype);
  return weight;
}

class Projections : public ::testing::TestWithParam<torch::ScalarType> {
 protected:
  /// What rounding to the dtype may change.
  static double rounding() { return lawn::testing::tolerance(GetParam()).step; }
};
INSTANTIATE_TEST_SUITE_P(All, Projections,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16),
                         lawn::testing::dtype_name);

TEST_P(Projections, EqualTheDefinitionForEveryLayoutAndRaggedEdges) {
  for (const char* layout : {"contiguous", "channels-last", "with gaps", "vector"}) {
    const auto weight = weight_of(layout, GetParam());
    const auto before = weight.clone();
    const std::vector<BlockShape> shapes =
        weight.dim() == 1 ? std::vector<BlockShape>{{1, 1}, {4, 1}, {10, 1}}
                          : std::vector<BlockShape>{{1, 1}, {4, 4}, {2, 27}, {5, 54}, {3, 7}};
    for (const auto shape : shapes) {
      for (const double fraction : {0.0, 0.3, 0.9}) {
        const auto where = std::string(layout) + " " + std::to_string(shape.rows) + "x" +
                           std::to_string(shape.columns) + " " + std::to_string(fraction);
        for (const bool unify : {true, false}) {
          const lawn::detail::companions::BlockGrid grid("test", "weight", weight, shape);
          const auto blocks = grid.blocks();
          if (!unify && lawn::detail::pruning::count_of(fraction, blocks) == blocks)
            continue;  // refused
          const auto result =
              unify ? unify_blocks(weight, shape, fraction) : prune_blocks(weight, shape, fraction);
          const auto expected = twin(weight, shape, fraction, unify);
          EXPECT_TRUE(torch::allclose(result.weight.to(torch::kDouble), expected, rounding(), 0))
              << where;
          EXPECT_EQ(result.weight.scalar_type(), GetParam());
        }
      }
    }
    EXPECT_TRUE(torch::equal(weight, before)) << "nothing but the result changes";
  }
}

TEST_P(Projections, UnifyExactlySoManyBlocksAndKeepTheSigns) {
  const auto weight = weight_of("contiguous", GetParam());
  weight.view({-1}).slice(0, 0, 5).fill_(0);  // zero has a side too
  for (const auto& cut :
       {std::pair{BlockShape{4, 4}, 0.5}, {{3, 7}, 0.5}, {{1, 54}, 0.5}, {{4, 4}, 1.0}}) {
    const auto result = unify_blocks(weight, cut.first, cut.second);
    int64_t unified = 0;
    int64_t blocks = 0;
    for_each_block(result.weight.abs(), cut.first, [&](int64_t r, int64_t c, const auto& sizes) {
      ++blocks;
      if (!result.chosen[r][c].template item<bool>()) return;
      ++unified;
      const auto [least, most] = std::minmax_element(sizes.begin(), sizes.end());
      EXPECT_EQ(*most - *least, 0) << r << ", " << c;
      EXPECT_GT(*least, 0);
    });
    EXPECT_EQ(result.chosen.numel(), blocks);
    EXPECT_EQ(unified,
              static_cast<int64_t>(std::nearbyint(cut.second * static_cast<double>(blocks))));
    const auto not_zero = weight.ne(0);
    EXPECT_TRUE(torch::equal(result.weight.sign().masked_select(not_zero),
                             weight.sign().masked_select(not_zero)));
  }
}

TEST_P(Projections, AreIdempotentToTheBit) {
  for (const auto shape : {BlockShape{3, 3}, BlockShape{3, 7}, BlockShape{5, 11}}) {
    for (const double fraction : {0.0, 0.3, 0.6, 0.8}) {
      const auto weight = weight_of("contiguous", GetParam());
      const auto once = unify_blocks(weight, shape, fraction);
      const auto twice = unify_blocks(once.weight, shape, fraction);
      EXPECT_TRUE(torch::equal(once.weight, twice.weight)) << shape.rows << " " << fraction;
      EXPECT_TRUE(torch::equal(once.chosen, twice.chosen)) << shape.rows << " " << fraction;
      const auto pruned = prune_blocks(weight, shape, fraction);
      EXPECT_TRUE(torch::equal(pruned.weight, prune_blocks(pruned.weight, shape, fraction).weight));
      const auto small = prune_magnitude(weight, fraction);
      EXPECT_TRUE(torch::equal(small.weight, prune_magnitude(small.weight, fraction).weight));
    }
  }
}

TEST(Projections, AreNeverFartherThanARandomFeasiblePoint) {
  torch::manual_seed(8);
  const BlockShape shape{3, 4};
  for (int trial = 0; trial < 200; ++trial) {
    const auto weight = torch::randn({7, 9}, torch::kDouble);
    const auto distance = [&](const torch::Tensor& point) {
      return (point - weight).norm().item<double>();
    };
    const double unified = distance(unify_blocks(weight, shape, 0.5).weight);
    const double pruned = distance(prune_blocks(weight, shape, 0.5).weight);
    const double elements = distance(prune_magnitude(weight, 0.5).weight);
    // A feasible point near the weight: other blocks, and a value or a sign that is a bit off.
    const lawn::detail::companions::BlockGrid grid("test", "weight", weight, shape);
    auto chosen = torch::zeros({grid.blocks()}, torch::kBool);
    chosen.index_fill_(
        0, torch::randperm(grid.blocks()).slice(0, 0, grid.blocks() / 2 + grid.blocks() % 2), true);
    chosen = grid.spread(chosen);
    const auto value = grid.spread(grid.sums(weight.abs()) / grid.counts(weight) +
                                   0.1 * torch::randn(grid.shape(), torch::kDouble));
    const auto signs = torch::where(torch::rand({7, 9}) < 0.02, -weight.sign(), weight.sign());
    EXPECT_LE(unified, distance(torch::where(chosen, signs * value.abs(), weight)));
    EXPECT_LE(pruned, distance(weight.masked_fill(chosen, 0)));
    const auto some = torch::zeros({63}, torch::kBool)
                          .index_fill_(0, torch::randperm(63).slice(0, 0, 32), true)
                          .view({7, 9});
    EXPECT_LE(elements, distance(weight.masked_fill(some, 0)));
  }
}

TEST_P(Projections, PruneExactlySoManyUnderTies) {
  const auto equal = torch::ones({6, 6}).to(GetParam());
  EXPECT_EQ(prune_magnitude(equal, 0.5).weight.eq(0).sum().item<int64_t>(), 18);
  EXPECT_EQ(prune_blocks(equal, {2, 3}, 0.5).chosen.sum().item<int64_t>(), 3);
  const auto unified = unify_blocks(equal, {2, 3}, 0.5);
  EXPECT_EQ(unified.chosen.sum().item<int64_t>(), 3);
  EXPECT_TRUE(torch::equal(unified.weight, equal));
  EXPECT_TRUE(unified.chosen.reshape({-1}).slice(0, 0, 3).all().item<bool>()) << "the first";
}

lawn::FrozenStructure frozen(const torch::Tensor& weight, const Projection& projection) {
  return projection.freeze("w", weight, projection(weight));
}

/// The nearest weight of a frozen structure, by plain loops.
torch::Tensor frozen_twin(const torch::Tensor& moved, const lawn::FrozenStructure& structure) {
  if (structure.pruned.defined()) return moved.masked_fill(structure.pruned, 0);
  const auto rows = moved.size(0);
  const auto columns = moved.numel() / rows;
  const auto signs = structure.signs.to(torch::kDouble).reshape({rows, columns}).contiguous();
  auto result = moved.to(torch::kDouble).reshape({rows, columns}).clone();
  auto at = result.accessor<double, 2>();
  const auto sign = signs.accessor<double, 2>();
  for (int64_t r = 0; r < rows; r += structure.block.rows) {
    for (int64_t c = 0; c < columns; c += structure.block.columns) {
      if (sign[r][c] == 0) continue;
      double sum = 0;
      int64_t count = 0;
      const auto last_row = std::min(r + structure.block.rows, rows);
      const auto last_column = std::min(c + structure.block.columns, columns);
      for (int64_t i = r; i < last_row; ++i) {
        for (int64_t j = c; j < last_column; ++j) {
          if (std::isnan(at[i][j])) continue;  // pruned
          sum += sign[i][j] * at[i][j];
          ++count;
        }
      }
      const double a = std::max(0.0, sum / static_cast<double>(count));
      for (int64_t i = r; i < last_row; ++i) {
        for (int64_t j = c; j < last_column; ++j) {
          if (!std::isnan(at[i][j])) at[i][j] = sign[i][j] * a;
        }
      }
    }
  }
  return result.view(moved.sizes());
}

TEST_P(Projections, FrozenBringWeightsBackToTheNearestPointOfTheStructure) {
  for (const char* layout : {"contiguous", "channels-last", "with gaps"}) {
    for (const auto& projection :
         {Projection::unify_blocks({4, 4}, 0.7), Projection::unify_blocks({3, 7}, 1),
          Projection::prune_blocks({4, 4}, 0.7), Projection::prune_magnitude(0.7)}) {
      auto weight = weight_of(layout, GetParam());
      const auto projected = projection(weight);
      const auto structure = projection.freeze("w", weight, projected);
      weight.copy_(projected.weight);
      const auto version = weight._version();
      lawn::project_({structure});
      EXPECT_TRUE(torch::equal(weight, projected.weight))
          << layout << " " << projection.describe() << ": no bit moves where nothing has moved";
      EXPECT_GT(weight._version(), version);
      weight.add_(0.5 * torch::randn_like(weight));
      const auto expected = frozen_twin(weight, structure);
      const auto free =
          structure.signs.defined() ? structure.signs.eq(0) : structure.pruned.logical_not();
      const auto untouched = weight.masked_select(free);
      lawn::project_({structure});
      EXPECT_TRUE(torch::allclose(weight.to(torch::kDouble), expected.to(torch::kDouble),
                                  rounding(), 1e-12))
          << layout << " " << projection.describe();
      EXPECT_TRUE(torch::equal(weight.masked_select(free), untouched)) << "the rest stays";
      const auto once = weight.clone();
      lawn::project_({structure});
      EXPECT_TRUE(torch::equal(weight, once)) << layout << " " << projection.describe();
    }
  }
}

TEST_P(Projections, UnifyWhatIsNotPruned) {
  constexpr double kPruned = std::numeric_limits<double>::quiet_NaN();
  for (const char* layout : {"contiguous", "channels-last", "with gaps"}) {
    for (const auto shape : {BlockShape{4, 4}, BlockShape{3, 7}, BlockShape{1, 2}}) {
      auto weight = weight_of(layout, GetParam());
      auto pruned = torch::rand(weight.sizes()) < 0.4;
      pruned[0].fill_(true);  // of 1x2, whole blocks
      const auto marked = [&] { return weight.to(torch::kDouble).masked_fill(pruned, kPruned); };
      const auto close = [](const torch::Tensor& one, const torch::Tensor& twin) {
        return torch::allclose(one.to(torch::kDouble), twin, rounding(), 1e-12);
      };
      const auto result = unify_blocks(weight, shape, 0.7, "w", pruned);
      EXPECT_TRUE(close(result.weight, twin(marked(), shape, 0.7, true).nan_to_num(0))) << layout;

      weight.copy_(result.weight);
      const auto structure = Projection::unify_blocks(shape, 0.7).freeze("w", weight, result);
      lawn::project_({structure}, {pruned});
      EXPECT_TRUE(torch::equal(weight, result.weight)) << layout << ": nothing has moved";
      weight.add_(0.5 * torch::randn_like(weight));
      const auto expected = frozen_twin(marked(), structure);
      const auto of_pruned = weight.masked_select(pruned);
      lawn::project_({structure}, {pruned});
      EXPECT_TRUE(close(weight.masked_fill(pruned, 0), expected.nan_to_num(0))) << layout;
      EXPECT_TRUE(torch::equal(weight.masked_select(pruned), of_pruned)) << "they stay";
    }
  }
}

TEST(Projections, FrozenBlocksKeepTheirSignsThroughZero) {
  auto weight = torch::tensor({{1.0F, -1.0F}, {-1.0F, 1.0F}});
  const auto structure = frozen(weight, Projection::unify_blocks({2, 2}, 1));
  const auto signs = weight.clone();
  weight.copy_(-3 * signs);
  lawn::project_({structure});
  EXPECT_TRUE(torch::equal(weight, torch::zeros({2, 2})));
  weight.copy_(0.25 * signs);
  lawn::project_({structure});
  EXPECT_TRUE(torch::equal(weight, 0.25 * signs));
  weight[0][0] = std::numeric_limits<float>::quiet_NaN();
  lawn::project_({structure});
  EXPECT_TRUE(weight.isnan().all().item<bool>()) << "a NaN is not hidden";
}

TEST(Projections, FrozenByLoopsEqualATenAndGiveTheSameBitsForAnyNumberOfThreads) {
  torch::manual_seed(9);
  for (const auto shape : {BlockShape{4, 4}, BlockShape{5, 7}, BlockShape{64, 300}}) {
    const auto start = torch::randn({150, 700});
    const auto structure = frozen(start.clone(), Projection::unify_blocks(shape, 0.6));
    const auto moved = start + 0.1 * torch::randn_like(start);
    const int before = at::get_num_threads();
    const auto run = [&](int threads) {
      at::set_num_threads(threads);
      auto weight = moved.clone();
      lawn::detail::unification::unify_frozen_({{weight, structure.signs, shape}});
      return weight;
    };
    const auto one = run(1);
    EXPECT_TRUE(torch::equal(run(2), one));
    EXPECT_TRUE(torch::equal(run(3), one));
    at::set_num_threads(before);
    auto aten = moved.clone();
    lawn::detail::unification::aten::unify_frozen_(aten, structure.signs, shape);
    EXPECT_TRUE(torch::allclose(aten, one, 2e-7, 0)) << shape.rows;
  }
}

TEST(Projections, EncodeAsCounted) {
  // 8 x 8 in blocks of 4 x 4: 4 blocks of 16.
  const auto weight = torch::randn({8, 8});
  const auto half = lawn::encoded_size({frozen(weight, Projection::unify_blocks({4, 4}, 0.5))});
  EXPECT_EQ(half.dense, 256);
  // 4 bits of flags, 2 values of 32 bits, 32 signs, 32 values.
  EXPECT_EQ(half.encoded, (4 + 2 * 32 + 32 + 32 * 32 + 7) / 8);
  const auto none = lawn::encoded_size({frozen(weight, Projection::unify_blocks({4, 4}, 0))});
  EXPECT_EQ(none.encoded, 257) << "one byte of flags";
  const auto pruned = lawn::encoded_size({frozen(weight, Projection::prune_blocks({4, 4}, 0.5))});
  EXPECT_EQ(pruned.encoded, (4 + 32 * 32 + 7) / 8);
  const auto bits16 = weight.to(torch::kBFloat16);
  const auto elements = lawn::encoded_size({frozen(bits16, Projection::prune_magnitude(0.75))});
  EXPECT_EQ(elements.dense, 128);
  EXPECT_EQ(elements.encoded, (64 + 16 * 16) / 8);
  const auto both = lawn::encoded_size({frozen(weight, Projection::unify_blocks({3, 5}, 1)),
                                        frozen(bits16, Projection::prune_magnitude(0.75))});
  EXPECT_EQ(both.dense, 256 + 128);
  EXPECT_EQ(both.encoded, (6 + 6 * 32 + 64 + 7) / 8 + 40) << "ragged edges";
}

TEST(ProjectionsRefused, ForFractionsOutOfRange) {
  const auto weight = torch::ones({4, 4});
  expect_refusal(
      [&] {
        unify_blocks(weight, {2, 2}, 1.5);
      },
      "lawn::unify_blocks: fraction must be in [0, 1], got 1.5");
  expect_refusal([&] { unify_blocks(weight, {2, 2}, std::nan("")); }, "got nan");
  expect_refusal(
      [&] {
        prune_blocks(weight, {2, 2}, -0.5);
      },
      "lawn::prune_blocks: fraction must be in [0, 1], got -0.5");
  expect_refusal([&] { prune_magnitude(weight, 2); },
                 "lawn::prune_magnitude: amount must be in [0, 1], got 2");
}

TEST(ProjectionsRefused, WhenEverythingWouldBePruned) {
  const auto weight = torch::randn({4, 4});
  expect_refusal(
      [&] {
        prune_blocks(weight, {2, 2}, 1, "head");
      },
      "expected something of head to stay, got everything pruned by the fraction 1 of 4");
  expect_refusal([&] { prune_magnitude(weight, 0.99); },
                 "expected something of the weight to stay, got everything pruned");
}

TEST(ProjectionsRefused, ForBlocksThatDoNotFit) {
  const auto weight = torch::ones({4, 2, 3});
  expect_refusal(
      [&] {
        unify_blocks(weight, {5, 2}, 0.5, "conv1");
      },
      "lawn::unify_blocks: expected blocks that fit the matrix 4x6 of conv1, got 5x2; "
      "take smaller ones, or leave it out");
  expect_refusal([&] { prune_blocks(weight, {4, 7}, 0.5); }, "got 4x7");
  expect_refusal(
      [&] {
        unify_blocks(weight, {0, 2}, 0.5);
      },
      "expected blocks of at least one row and one column, got 0x2");
}

TEST(ProjectionsRefused, ForPrunedElementsThatDoNotFit) {
  const auto weight = torch::ones({4, 4});
  expect_refusal(
      [&] {
        unify_blocks(weight, {2, 2}, 0.5, "head", torch::ones({4}, torch::kBool));
      },
      "expected pruned elements as Bool of the shape [4, 4] of head, got Bool of shape [4]");
  expect_refusal(
      [&] {
        unify_blocks(weight, {2, 2}, 0.5, "head", weight);
      },
      "got Float of shape [4, 4]");
  const auto structure = frozen(weight, Projection::unify_blocks({2, 2}, 1));
  expect_refusal(
      [&] {
        lawn::project_({structure}, {torch::Tensor(), torch::Tensor()});
      },
      "lawn::project_: expected pruned elements of each of 1 weights, or none at all, got a list "
      "of 2");
}

TEST(ProjectionsRefused, ForWeightsThatCannotBeProjected) {
  expect_refusal(
      [] {
        unify_blocks(torch::ones({4, 4}, torch::kLong), {2, 2}, 0.5);
      },
      "expected weights of floating point, got Long for the weight");
  expect_refusal(
      [] {
        prune_magnitude(torch::ones({4, 4}) / 0, 0.5);
      },
      "expected finite weights, got NaN or an infinity in the weight");
  expect_refusal(
      [] {
        prune_blocks(torch::ones({0, 4}), {1, 1}, 0.5);
      },
      "expected weights with elements, got none");
  expect_refusal(
      [] {
        prune_blocks(torch::Tensor(), {1, 1}, 0.5);
      },
      "expected a tensor for the weight, got an undefined one");
}

}  // namespace
