// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/interactions.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "examples/apps/support/generated_interactions.h"
#include "examples/apps/support/unseen_items.h"
#include "tests/support/refusal.h"

namespace {

using examples::Interactions;
using lawn::testing::expect_refusal;

std::vector<int64_t> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.reshape(-1).contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

Interactions listed(const std::vector<std::tuple<int64_t, int64_t, int64_t>>& rows, int64_t users,
                    int64_t items) {
  std::vector<int64_t> columns[3];
  for (const auto& [user, item, time] : rows) {
    columns[0].push_back(user);
    columns[1].push_back(item);
    columns[2].push_back(time);
  }
  return {"rows",
          torch::tensor(columns[0]),
          torch::tensor(columns[1]),
          torch::tensor(columns[2]),
          users,
          items};
}

/// Each user takes about a third of the items, at times that often coincide.
Interactions random_interactions(int64_t users, int64_t items) {
  torch::manual_seed(5);
  const at::Tensor pairs =
      torch::logical_or(torch::rand({users, items}) < 0.3,
                        torch::arange(items).unsqueeze(0) < 3)  // three at least
          .nonzero();
  const at::Tensor shuffled = pairs.index_select(0, torch::randperm(pairs.size(0)));
  return {"random",
          shuffled.select(1, 0).contiguous(),
          shuffled.select(1, 1).contiguous(),
          torch::randint(4, {pairs.size(0)}, torch::kLong),
          users,
          items};
}

TEST(LeaveOneOut, HoldsOutTheLatestOfEachUser) {
  const Interactions data =
      listed({{1, 0, 30}, {0, 4, 20}, {0, 2, 10}, {1, 3, 50}, {0, 1, 15}, {1, 2, 40}}, 2, 5);
  const auto test = examples::leave_one_out(data, /*validation=*/false);
  EXPECT_EQ(values(test.items), (std::vector<int64_t>{4, 3}));
  EXPECT_EQ(values(test.train.users), (std::vector<int64_t>{0, 0, 1, 1}));
  EXPECT_EQ(values(test.train.items), (std::vector<int64_t>{2, 1, 0, 2}));
  EXPECT_EQ(values(test.train.times), (std::vector<int64_t>{10, 15, 30, 40}));
}

TEST(LeaveOneOut, HoldsOutTheLatestButOneForValidationAndNeverShowsTheTestItem) {
  const Interactions data =
      listed({{1, 0, 30}, {0, 4, 20}, {0, 2, 10}, {1, 3, 50}, {0, 1, 15}, {1, 2, 40}}, 2, 5);
  const auto validation = examples::leave_one_out(data, /*validation=*/true);
  EXPECT_EQ(values(validation.items), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(values(validation.train.items), (std::vector<int64_t>{2, 0}));
}

TEST(LeaveOneOut, DoesNotDependOnTheOrderOfLinesAlsoWhereTimesCoincide) {
  const Interactions data = random_interactions(30, 40);
  const auto expected = examples::leave_one_out(data, false);
  Interactions turned = data;
  turned.users = data.users.flip(0);
  turned.items = data.items.flip(0);
  turned.times = data.times.flip(0);
  const auto got = examples::leave_one_out(turned, false);
  EXPECT_TRUE(torch::equal(got.items, expected.items));
  EXPECT_TRUE(torch::equal(got.train.items, expected.train.items));
  EXPECT_TRUE(torch::equal(got.train.times, expected.train.times));
}

TEST(LeaveOneOut, KeepsEveryInteractionButOneOfTheLatestTime) {
  const Interactions data = random_interactions(30, 40);
  const auto split = examples::leave_one_out(data, false);
  std::map<int64_t, std::map<int64_t, int64_t>> times;  // by user and item
  for (int64_t row = 0; row < data.size(); ++row) {
    times[data.users[row].item<int64_t>()][data.items[row].item<int64_t>()] =
        data.times[row].item<int64_t>();
  }
  for (int64_t user = 0; user < data.user_count; ++user) {
    const int64_t held_out = split.items[user].item<int64_t>();
    ASSERT_EQ(times[user].count(held_out), 1U) << user;
    for (const auto& [item, time] : times[user]) EXPECT_LE(time, times[user][held_out]) << item;
    times[user].erase(held_out);
  }
  std::map<int64_t, std::map<int64_t, int64_t>> trained;
  for (int64_t row = 0; row < split.train.size(); ++row) {
    trained[split.train.users[row].item<int64_t>()][split.train.items[row].item<int64_t>()] =
        split.train.times[row].item<int64_t>();
  }
  EXPECT_EQ(trained, times);
}

TEST(LeaveOneOut, DoesNotFavourLowOrHighNumbersWhereTimesCoincide) {
  constexpr int64_t kUsers = 400;
  constexpr int64_t kItems = 50;
  const at::Tensor all = torch::ones({kUsers, kItems}).nonzero();
  const Interactions data = {"ties",
                             all.select(1, 0).contiguous(),
                             all.select(1, 1).contiguous(),
                             torch::zeros({kUsers * kItems}, torch::kLong),
                             kUsers,
                             kItems};
  const int64_t last = examples::leave_one_out(data, false).items[0].item<int64_t>();
  EXPECT_NE(last, 0);
  EXPECT_NE(last, kItems - 1);
}

TEST(LeaveOneOut, RefusesAUserOfWhomNothingWouldBeLeft) {
  const Interactions data = listed({{0, 0, 1}, {0, 1, 2}, {0, 2, 3}, {1, 1, 1}, {1, 2, 2}}, 2, 3);
  EXPECT_NO_THROW(examples::leave_one_out(data, false));
  expect_refusal([&] { examples::leave_one_out(data, true); },
                 "rows: user 1 has 2 interactions; expected at least 3, 2 of which are not");
}

TEST(Interactions, AreRefusedWhenTheirPartsDoNotFit) {
  expect_refusal(
      [] {
        examples::check_interactions(listed({{0, 3, 1}}, 1, 3));
      },
      "rows: item 3 of interaction 0 is out of range; expected 0 to 2");
  expect_refusal(
      [] {
        examples::check_interactions(listed({{0, 2, 1}, {-1, 2, 1}}, 1, 3));
      },
      "rows: user -1 of interaction 1 is out of range; expected 0 to 0");
  expect_refusal(
      [] {
        examples::check_interactions(listed({{0, 2, 1}, {0, 2, 5}}, 1, 3));
      },
      "rows: user 0 takes item 2 more than once");
  Interactions short_times = listed({{0, 2, 1}, {0, 1, 5}}, 1, 3);
  short_times.times = torch::zeros({1}, torch::kLong);
  expect_refusal([&] { examples::check_interactions(short_times); },
                 "expected users, items and times as int64 [2], got Long [1]");
  Interactions none = listed({{0, 2, 1}}, 1, 3);
  none.users = none.users.slice(0, 0, 0);
  expect_refusal([&] { examples::check_interactions(none); }, "rows: holds no interactions");
}

/// The plain twin: what each user has taken.
std::vector<std::set<int64_t>> taken(const Interactions& data) {
  std::vector<std::set<int64_t>> items(static_cast<size_t>(data.user_count));
  for (int64_t row = 0; row < data.size(); ++row) {
    items[static_cast<size_t>(data.users[row].item<int64_t>())].insert(
        data.items[row].item<int64_t>());
  }
  return items;
}

TEST(UnseenItems, AreNeverTakenOnes) {
  const Interactions data = random_interactions(20, 30);
  const auto seen = taken(data);
  const examples::UnseenItems unseen(data);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(1);
  const at::Tensor users = torch::arange(20).repeat({500});
  const auto items = values(unseen.draw(users, generator));
  std::vector<std::set<int64_t>> drawn(20);
  for (size_t index = 0; index < items.size(); ++index) {
    const size_t user = index % 20;
    ASSERT_GE(items[index], 0);
    ASSERT_LT(items[index], 30);
    ASSERT_EQ(seen[user].count(items[index]), 0U) << "user " << user;
    drawn[user].insert(items[index]);
  }
  for (size_t user = 0; user < 20; ++user) {  // and every one of them turns up
    EXPECT_EQ(drawn[user].size() + seen[user].size(), 30U) << "user " << user;
  }
}

TEST(UnseenItems, HaveEqualChances) {
  // Items 0, 2, 3 and 7 of ten are taken, at both ends and in a row.
  const Interactions data = listed({{0, 2, 1}, {0, 0, 1}, {0, 7, 1}, {0, 3, 1}, {1, 9, 1}}, 2, 10);
  const examples::UnseenItems unseen(data);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(2);
  constexpr int64_t kDraws = 60'000;
  const at::Tensor counts =
      unseen.draw(torch::zeros({kDraws}, torch::kLong), generator).bincount({}, 10);
  const double deviation = std::sqrt(kDraws * (1.0 / 6) * (5.0 / 6));
  for (int64_t item = 0; item < 10; ++item) {
    const bool was_taken = item == 0 || item == 2 || item == 3 || item == 7;
    EXPECT_NEAR(counts[item].item<double>(), was_taken ? 0 : kDraws / 6.0,
                was_taken ? 0 : 5 * deviation)
        << item;
  }
}

TEST(UnseenItems, AreDifferentOnesWhereThatIsAskedFor) {
  const Interactions data = random_interactions(600, 30);  // in more than one part
  const auto seen = taken(data);
  const examples::UnseenItems unseen(data);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const at::Tensor drawn = unseen.draw_distinct(10, generator);
  ASSERT_EQ(drawn.sizes(), (std::vector<int64_t>{600, 10}));
  for (int64_t user = 0; user < 600; ++user) {
    const auto items = values(drawn[user]);
    EXPECT_EQ(std::set<int64_t>(items.begin(), items.end()).size(), 10U) << user;
    for (const int64_t item : items) {
      EXPECT_EQ(seen[static_cast<size_t>(user)].count(item), 0U) << user;
      EXPECT_TRUE(item >= 0 && item < 30) << item;
    }
  }
  auto same_seed = at::make_generator<at::CPUGeneratorImpl>(3);
  EXPECT_TRUE(torch::equal(unseen.draw_distinct(10, same_seed), drawn));
}

TEST(UnseenItems, AreAllOfThemWhenJustAsManyAreLeft) {
  const Interactions data = listed({{0, 2, 1}, {0, 0, 1}, {1, 1, 1}, {1, 4, 1}}, 2, 5);
  const examples::UnseenItems unseen(data);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(4);
  const at::Tensor drawn = std::get<0>(unseen.draw_distinct(3, generator).sort(1));
  EXPECT_EQ(values(drawn), (std::vector<int64_t>{1, 3, 4, 0, 2, 3}));
  expect_refusal([&] { unseen.draw_distinct(4, generator); },
                 "user 0 has not taken 3 items only; expected at least 4 to draw from");
}

TEST(UnseenItems, AreRefusedForAUserWhoHasTakenAll) {
  expect_refusal(
      [] {
        examples::UnseenItems(listed({{0, 0, 1}, {1, 0, 1}, {1, 1, 1}}, 2, 2));
      },
      "rows: user 1 has taken all 2 items");
}

TEST(GeneratedInteractions, AreEqualForEqualSeedsAndFitTogether) {
  examples::GeneratedInteractionsOptions options;
  const Interactions data = examples::generate_interactions(options);
  examples::check_interactions(data);
  EXPECT_EQ(data.size(), options.users * options.interactions_per_user);
  EXPECT_TRUE(torch::equal(data.items, examples::generate_interactions(options).items));
  options.seed = 1;
  EXPECT_FALSE(torch::equal(data.items, examples::generate_interactions(options).items));
}

TEST(GeneratedInteractions, AreMoreLikelyWithMoreAffinity) {
  examples::GeneratedInteractionsOptions options;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(options.seed);
  const at::Tensor affinity = examples::draw_affinities(options, generator);
  const Interactions data = examples::generate_interactions(options);
  const at::Tensor of_taken = affinity.index({data.users, data.items});
  EXPECT_GT(of_taken.mean().item<double>(),
            affinity.mean().item<double>() + 1.5 * affinity.std().item<double>());
}

TEST(GeneratedInteractions, AreRefusedForAbsurdOptions) {
  examples::GeneratedInteractionsOptions options;
  options.items = options.interactions_per_user;
  expect_refusal([&] { examples::generate_interactions(options); },
                 "expected more items than the 20 that a user takes, got 20");
  options.users = 0;
  expect_refusal([&] { examples::generate_interactions(options); }, "must be > 0, got 0, 4 and 20");
}

}  // namespace
