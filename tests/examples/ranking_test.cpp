// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/ranking.h"
#include "tests/support/tolerance.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace {

using lawn::testing::tolerance;

/// Scores of one held-out item and eleven others, of which the first `better` are higher.
std::vector<float> scores_with(int64_t better) {
  std::vector<float> scores = {0.5F};
  for (int64_t other = 0; other < 11; ++other) scores.push_back(other < better ? 0.9F : 0.1F);
  return scores;
}

TEST(Ranking, FiguresOfAnExampleByHand) {
  // The held-out items of five users are first, second, fourth, tenth and eleventh.
  std::vector<at::Tensor> rows;
  for (const int64_t better : {0, 1, 3, 9, 10}) rows.push_back(torch::tensor(scores_with(better)));
  const at::Tensor ranks = examples::ranks_of_first(torch::stack(rows));
  EXPECT_TRUE(torch::equal(ranks, torch::tensor({0, 1, 3, 9, 10}, torch::kLong)));
  const auto figures = examples::ranking_figures(ranks);
  EXPECT_DOUBLE_EQ(figures.hit_rate, 4.0 / 5);
  // 1/log2(2) = 1, 1/log2(3) = 0.63093, 1/log2(5) = 0.43068, 1/log2(11) = 0.28906.
  EXPECT_NEAR(figures.ndcg, (1 + 0.63093 + 0.43068 + 0.28906) / 5, tolerance(torch::kFloat).step);
}

TEST(Ranking, CountsATieAsAMiss) {
  const at::Tensor ranks = examples::ranks_of_first(torch::zeros({3, 12}));
  EXPECT_TRUE(torch::equal(ranks, torch::full({3}, 11, torch::kLong)));
  EXPECT_EQ(examples::ranking_figures(ranks).hit_rate, 0);
}

TEST(Ranking, CountsWhatIsNoNumberAsAMiss) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  at::Tensor scores = torch::stack({torch::tensor(scores_with(0)), torch::tensor(scores_with(0))});
  scores[0][0] = nan;
  scores[1].slice(0, 1).fill_(nan);
  EXPECT_TRUE(torch::equal(examples::ranks_of_first(scores), torch::full({2}, 11, torch::kLong)));
}

TEST(Ranking, EqualsASortUserByUser) {
  torch::manual_seed(1);
  const at::Tensor scores = torch::randn({200, 100}).mul(4).round();  // with ties
  double hits = 0;
  double gains = 0;
  for (int64_t user = 0; user < 200; ++user) {
    // As in the paper's program: the ten best of a list, those that stand first before their
    // equals, the held-out item at the end of the list.
    std::vector<int64_t> list(100);
    std::iota(list.begin(), list.end(), 1);
    list.back() = 0;
    const at::Tensor row = scores[user];
    std::stable_sort(list.begin(), list.end(), [&](int64_t a, int64_t b) {
      return row[a].item<float>() > row[b].item<float>();
    });
    for (size_t place = 0; place < 10; ++place) {
      if (list[place] != 0) continue;
      hits += 1;
      gains += std::log(2.0) / std::log(static_cast<double>(place) + 2);
    }
  }
  ASSERT_GT(hits, 5);
  const auto figures = examples::ranking_figures(examples::ranks_of_first(scores));
  EXPECT_DOUBLE_EQ(figures.hit_rate, hits / 200);
  EXPECT_NEAR(figures.ndcg, gains / 200, tolerance(torch::kDouble).step);
}

TEST(PairFigures, EqualPlainTwinsPairByPair) {
  const std::vector<double> logits = {0, 1.5, -2, 8, -12, 30, -40};
  for (const double label : {0.0, 1.0}) {
    const at::Tensor figures = examples::pair_figures(
        torch::tensor(logits, torch::kDouble), torch::full({7}, label, torch::kDouble), 1e-4);
    for (int64_t pair = 0; pair < 7; ++pair) {
      const long double x = logits[static_cast<size_t>(pair)];
      const long double against = label == 1 ? -x : x;
      EXPECT_NEAR(figures[0][pair].item<double>(), static_cast<double>(log1pl(expl(against))),
                  1e-12);
      EXPECT_EQ(figures[1][pair].item<double>(), std::abs(static_cast<double>(x)));
      const bool vanished = 1 / (1 + expl(-against)) < 1e-4L;
      EXPECT_EQ(figures[2][pair].item<double>(), vanished ? 1 : 0) << static_cast<double>(x);
    }
  }
}

TEST(PairFigures, TellVanishedGradientsFromRoundingAlsoOfFloat) {
  // sigmoid(20) is 1 in float32: 1 - sigmoid would be 0. At a threshold below e^-20 it is not.
  const at::Tensor figures =
      examples::pair_figures(torch::tensor({20.0F, -20.0F}), torch::tensor({1.0F, 1.0F}), 1e-9);
  EXPECT_EQ(figures[2][0].item<double>(), 0);
  EXPECT_NEAR(figures[0][0].item<double>() / std::exp(-20.0), 1, tolerance(torch::kFloat).norm);
  EXPECT_NEAR(figures[0][1].item<double>(), 20, tolerance(torch::kFloat).norm);
}

}  // namespace
