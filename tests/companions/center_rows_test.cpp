// SPDX-License-Identifier: Apache-2.0
//
// Centring of rows against a plain loop in double.

#include <limits>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/mimicnorm/center_rows.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::center_rows_;
using lawn::WeightRows;
using lawn::sphere::cpu::kChunk;
using lawn::testing::expect_refusal;
using torch::ScalarType;

constexpr ScalarType kDtypes[] = {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf};

/// The twin: rows one after the other, sums and differences in double.
torch::Tensor centered_plainly(const WeightRows& rows) {
  auto result = rows.weight.to(torch::kDouble).clone();
  auto units = result.transpose(0, rows.unit_dim);
  auto pruned = rows.pruned.defined() ? rows.pruned.transpose(0, rows.unit_dim) : torch::Tensor();
  for (int64_t r = 0; r < units.size(0); ++r) {
    auto row = units[r].contiguous().flatten();
    const auto out = pruned.defined() ? pruned[r].contiguous().flatten()
                                      : torch::zeros({row.numel()}, torch::kBool);
    double sum = 0;
    int64_t kept = 0;
    for (int64_t i = 0; i < row.numel(); ++i) {
      if (out.data_ptr<bool>()[i]) continue;
      sum += row.data_ptr<double>()[i];
      ++kept;
    }
    for (int64_t i = 0; i < row.numel(); ++i) {
      if (!out.data_ptr<bool>()[i]) row.data_ptr<double>()[i] -= sum / static_cast<double>(kept);
    }
    units[r].copy_(row.view(units[r].sizes()));
  }
  return result;
}

/// A weight with a mean that centring has to find.
torch::Tensor weight(const std::vector<int64_t>& shape, ScalarType dtype) {
  return (torch::randn(shape, torch::kDouble) + 0.5).to(dtype);
}

double difference(const torch::Tensor& actual, const torch::Tensor& expected) {
  if (expected.numel() == 0) return 0;
  return (actual.to(torch::kDouble) - expected).abs().max().item<double>();
}

/// Both paths equal the twin, in the strides that the weight had.
void expect_centered(const WeightRows& rows, const std::string& what) {
  const auto expected = centered_plainly(rows);
  // Elements are of the size 1, rounded once.
  const double limit = lawn::testing::tolerance(rows.weight.scalar_type()).norm * 4;
  auto slow = rows;
  slow.weight = rows.weight.clone();
  lawn::detail::mimicnorm::aten::center_rows_(slow);
  EXPECT_LE(difference(slow.weight, expected), limit) << what << ", ATen";
  const auto strides = rows.weight.strides().vec();
  center_rows_(rows);
  EXPECT_LE(difference(rows.weight, expected), limit) << what;
  EXPECT_EQ(rows.weight.strides(), torch::IntArrayRef(strides)) << what;
}

class CenterRows : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(11); }
};

TEST_F(CenterRows, EqualsAPlainLoopForEveryDtypeAndSize) {
  for (const auto dtype : kDtypes) {
    for (const auto& shape : std::vector<std::vector<int64_t>>{
             {7, 300}, {5, 3, 3, 3}, {3, 511}, {3, 512}, {2, 2049}, {40, 2}, {2, kChunk + 5}}) {
      const WeightRows rows{weight(shape, dtype)};
      EXPECT_TRUE(lawn::detail::mimicnorm::takes(rows));
      expect_centered(rows, c10::toString(dtype) + (", " + std::to_string(shape[1])));
    }
  }
}

TEST_F(CenterRows, EqualsAPlainLoopForEveryLayout) {
  for (const auto dtype : kDtypes) {
    const std::string what = c10::toString(dtype);
    const WeightRows channels_last{
        weight({6, 5, 3, 3}, dtype).contiguous(torch::MemoryFormat::ChannelsLast)};
    EXPECT_TRUE(lawn::detail::mimicnorm::takes(channels_last));
    expect_centered(channels_last, what + ", channels last");
    const WeightRows transposed{weight({6, 5}, dtype).t()};
    EXPECT_FALSE(lawn::detail::mimicnorm::takes(transposed));
    expect_centered(transposed, what + ", transposed");
    const WeightRows columns{weight({6, 5, 2}, dtype), 1};
    EXPECT_FALSE(lawn::detail::mimicnorm::takes(columns));
    expect_centered(columns, what + ", output units along the second dimension");
    const WeightRows columns_in_order{weight({6, 5}, dtype).t(), 1};
    EXPECT_TRUE(lawn::detail::mimicnorm::takes(columns_in_order));
    expect_centered(columns_in_order, what + ", columns that follow one another");
    const WeightRows strided{weight({6, 10}, dtype).slice(1, 0, 10, 2)};
    EXPECT_FALSE(lawn::detail::mimicnorm::takes(strided));
    expect_centered(strided, what + ", strided");
  }
}

TEST_F(CenterRows, LeavesTheGapsOfAStridedWeightAlone) {
  auto whole = weight({6, 10}, torch::kFloat);
  const auto before = whole.clone();
  center_rows_(WeightRows{whole.slice(1, 0, 10, 2)});
  EXPECT_TRUE(torch::equal(whole.slice(1, 1, 10, 2), before.slice(1, 1, 10, 2)));
  EXPECT_FALSE(torch::equal(whole.slice(1, 0, 10, 2), before.slice(1, 0, 10, 2)));
}

TEST_F(CenterRows, TakesTheMeanOverTheElementsThatStay) {
  for (const auto dtype : kDtypes) {
    WeightRows rows{weight({6, 5, 3, 3}, dtype)};
    rows.pruned = torch::rand({6, 5, 3, 3}) < 0.7;
    rows.pruned[2].fill_(true);  // nothing of this row stays
    rows.pruned[3].fill_(false);
    const auto before = rows.weight.clone();
    rows.weight.masked_fill_(rows.pruned, std::numeric_limits<double>::quiet_NaN());
    center_rows_(rows);
    EXPECT_TRUE(rows.weight.isnan().equal(rows.pruned)) << "pruned elements have no say";
    rows.weight.copy_(before);
    const auto moved = centered_plainly(rows);
    center_rows_(rows);
    EXPECT_LE(difference(rows.weight, moved), lawn::testing::tolerance(dtype).norm * 4);
    EXPECT_TRUE(
        torch::equal(rows.weight.masked_select(rows.pruned), before.masked_select(rows.pruned)));
    WeightRows columns{weight({4, 6}, dtype), 1, torch::rand({4, 6}) < 0.3};
    columns.pruned[0].fill_(false);
    expect_centered(columns, "columns");
  }
}

TEST_F(CenterRows, MakesMeansZeroToRoundingAndASecondTimeChangesNoMoreThanThat) {
  for (const auto dtype : kDtypes) {
    const WeightRows rows{weight({16, 1000}, dtype)};
    center_rows_(rows);
    const auto once = rows.weight.to(torch::kDouble);
    const double limit = lawn::testing::tolerance(dtype).norm;
    EXPECT_LE(once.mean(1).abs().max().item<double>(), limit) << c10::toString(dtype);
    EXPECT_GT(once.std().item<double>(), 0.9);
    center_rows_(rows);
    EXPECT_LE(difference(rows.weight, once), limit * 2) << c10::toString(dtype);
  }
}

TEST_F(CenterRows, GivesTheSameBitsForAnyNumberOfThreads) {
  std::vector<torch::Tensor> start;
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {64, 27}, {256, 2304}, {3, kChunk + 7}, {17, 33}, {512, 512, 3, 3}}) {
    start.push_back(weight(shape, torch::kFloat));
    start.push_back(weight(shape, torch::kBFloat16));
  }
  const int before = at::get_num_threads();
  std::vector<std::vector<torch::Tensor>> runs;
  for (const int threads : {1, 2, 3, 16}) {
    at::set_num_threads(threads);
    std::vector<WeightRows> rows;
    runs.emplace_back();
    for (const auto& w : start) {
      runs.back().push_back(w.clone());
      rows.push_back({runs.back().back()});
    }
    center_rows_(rows);
  }
  at::set_num_threads(before);
  for (std::size_t run = 1; run < runs.size(); ++run) {
    for (std::size_t i = 0; i < start.size(); ++i) {
      EXPECT_TRUE(torch::equal(runs[run][i], runs[0][i])) << run << ", weight " << i;
    }
  }
}

TEST_F(CenterRows, LeavesARowWithBadNumbersAsItIsAndCentresTheOthers) {
  for (const double bad :
       {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    for (const int64_t unit_dim : {0, 1}) {  // the loops, and ATen
      const WeightRows rows{weight({8, 8}, torch::kFloat), unit_dim};
      rows.weight[3][3] = bad;
      const auto before = rows.weight.clone();
      center_rows_(rows);
      EXPECT_TRUE(torch::allclose(rows.weight.select(unit_dim, 3), before.select(unit_dim, 3), 0, 0,
                                  /*equal_nan=*/true));
      EXPECT_NEAR(rows.weight.select(unit_dim, 2).mean().item<double>(), 0, 1e-7);
    }
  }
}

TEST_F(CenterRows, TakesEmptyAndOneElementRows) {
  const WeightRows empty{torch::empty({0, 3})};
  const WeightRows hollow{torch::empty({3, 0})};
  const WeightRows vector{torch::randn({5})};
  const WeightRows strided{torch::randn({10}).slice(0, 0, 10, 2)};
  center_rows_({empty, hollow, vector, strided});
  EXPECT_EQ(vector.weight.abs().max().item<double>(), 0) << "an element is its own mean";
  EXPECT_EQ(strided.weight.abs().max().item<double>(), 0);
}

TEST_F(CenterRows, SaysToAutogradThatMemoryHasChanged) {
  const WeightRows rows{torch::randn({4, 9}, torch::requires_grad())};
  const auto version = rows.weight._version();
  center_rows_(rows);
  EXPECT_GT(rows.weight._version(), version);
  EXPECT_TRUE(rows.weight.is_leaf());
}

TEST_F(CenterRows, RefusesWhatHasNoMeanBeforeAnythingIsChanged) {
  const WeightRows good{torch::randn({4, 9})};
  const auto before = good.weight.clone();
  expect_refusal(
      [&] {
        center_rows_({good, {torch::ones({2, 2}, torch::kLong)}});
      },
      "expected a weight of floating point, got Long");
  expect_refusal(
      [&] {
        center_rows_({good, {torch::Tensor()}});
      },
      "expected a weight of floating point, got an undefined tensor");
  expect_refusal(
      [&] {
        center_rows_({good, {torch::ones({2, 2}), 2}});
      },
      "unit_dim must be a dimension of the weight, which has 2, got 2");
  expect_refusal([&] { center_rows_({good, {torch::ones({})}}); }, "which has 0, got 0");
  expect_refusal(
      [&] {
        center_rows_({good, {torch::ones({2, 2}), 0, torch::zeros({2}, torch::kBool)}});
      },
      "expected pruned elements as Bool of the weight's shape [2, 2], got Bool of shape [2]");
  expect_refusal(
      [&] {
        center_rows_({good, {torch::ones({2, 2}), 0, torch::zeros({2, 2})}});
      },
      "got Float of shape [2, 2]");
  EXPECT_TRUE(torch::equal(good.weight, before));
}

/// Each loop as compiled for any CPU against itself as compiled for this one.
TEST_F(CenterRows, LoopsForAWiderInstructionSetEqualThoseForAnyCPU) {
  using lawn::detail::mimicnorm::cpu::SubtractMean;
  using lawn::detail::mimicnorm::cpu::SumOfElements;
  using lawn::sphere::cpu::run_avx2;
  using lawn::sphere::cpu::run_baseline;
  if (!lawn::sphere::cpu::has_avx2()) GTEST_SKIP() << "this CPU has no AVX2";
  for (const int64_t numel : {0, 7, 600, 5000}) {
    const auto w = torch::randn({numel});
    EXPECT_NEAR(run_baseline<SumOfElements>(w.data_ptr<float>(), numel),
                run_avx2<SumOfElements>(w.data_ptr<float>(), numel),
                1e-6 * static_cast<double>(numel + 1));
    auto baseline = w.clone();
    auto wide = w.clone();
    run_baseline<SubtractMean>(baseline.data_ptr<float>(), numel, 0.3F);
    run_avx2<SubtractMean>(wide.data_ptr<float>(), numel, 0.3F);
    EXPECT_TRUE(torch::equal(baseline, wide));
  }
}

}  // namespace
