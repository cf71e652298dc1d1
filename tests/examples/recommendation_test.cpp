// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/recommendation.h"

#include <gtest/gtest.h>
#include <lawn/lawn.h>
#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/generated_interactions.h"
#include "examples/apps/support/trainer.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::tolerance;

using examples::Interactions;
using Pair = std::pair<int64_t, int64_t>;

Interactions small_interactions() {
  examples::GeneratedInteractionsOptions options;
  options.users = 40;
  options.items = 130;
  options.interactions_per_user = 9;
  return examples::generate_interactions(options);
}

std::multiset<Pair> pairs(const at::Tensor& users, const at::Tensor& items) {
  std::multiset<Pair> all;
  for (int64_t row = 0; row < users.size(0); ++row) {
    all.emplace(users[row].item<int64_t>(), items[row].item<int64_t>());
  }
  return all;
}

std::shared_ptr<examples::Recommender> small_network(const Interactions& data) {
  torch::manual_seed(3);
  return examples::make_recommender("neumf", data.user_count, data.item_count, 4);
}

TEST(RankingData, AsksForTheItemHeldOutAmongDifferentItemsNeverTaken) {
  const Interactions all = small_interactions();
  const auto taken = pairs(all.users, all.items);
  for (const bool validation : {false, true}) {
    const auto data = examples::make_ranking_data(all, validation);
    ASSERT_EQ(data.candidates.sizes(), (std::vector<int64_t>{40, 100}));
    EXPECT_TRUE(
        torch::equal(data.candidates.select(1, 0), examples::leave_one_out(all, validation).items));
    EXPECT_EQ(data.train.size(), 40 * (validation ? 7 : 8));
    for (int64_t user = 0; user < 40; ++user) {
      std::set<int64_t> others;
      for (int64_t place = 1; place < 100; ++place) {
        const int64_t item = data.candidates[user][place].item<int64_t>();
        EXPECT_EQ(taken.count({user, item}), 0U) << user;
        others.insert(item);
      }
      EXPECT_EQ(others.size(), 99U) << user;
    }
    EXPECT_TRUE(
        torch::equal(examples::make_ranking_data(all, validation).candidates, data.candidates));
  }
}

TEST(RankingData, IsRefusedWhereThereAreTooFewItemsToAskFor) {
  examples::GeneratedInteractionsOptions options;
  options.users = 4;
  options.items = 107;
  options.interactions_per_user = 9;
  lawn::testing::expect_refusal(
      [&] { examples::make_ranking_data(examples::generate_interactions(options), false); },
      "user 0 has not taken 98 items only; expected at least 99 to draw from");
}

TEST(Recommendation, ShowsEachInteractionOnceInAnEpochAndFourItemsNotTakenBesideIt) {
  const auto data = examples::make_ranking_data(small_interactions(), false);
  examples::Recommendation task(small_network(data.train), data, {});
  EXPECT_EQ(task.size(), 5 * data.train.size());
  const auto taken = pairs(data.train.users, data.train.items);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  const auto state = generator.get_state();

  std::vector<at::Tensor> epochs;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    task.begin_epoch(generator);
    epochs.push_back(task.epoch_items());
    ASSERT_EQ(task.epoch_items().size(0), task.size());
    const at::Tensor positive = task.epoch_labels().gt(0).nonzero().squeeze(1);
    EXPECT_EQ(pairs(task.epoch_users().index_select(0, positive),
                    task.epoch_items().index_select(0, positive)),
              taken);
    const at::Tensor negative = task.epoch_labels().eq(0).nonzero().squeeze(1);
    std::map<int64_t, int64_t> drawn;
    for (const auto& [user, item] : pairs(task.epoch_users().index_select(0, negative),
                                          task.epoch_items().index_select(0, negative))) {
      EXPECT_EQ(taken.count({user, item}), 0U) << user << ' ' << item;
      ++drawn[user];
    }
    ASSERT_EQ(drawn.size(), 40U);
    for (const auto& [user, count] : drawn) EXPECT_EQ(count, 4 * 8) << user;
    // Shuffled: the labels are not in one block.
    EXPECT_GT(task.epoch_labels().slice(0, 0, task.size() / 2).sum().item<double>(),
              0.3 * static_cast<double>(data.train.size()));
  }
  EXPECT_FALSE(torch::equal(epochs[0], epochs[1]));
  generator.set_state(state);
  task.begin_epoch(generator);
  EXPECT_TRUE(torch::equal(task.epoch_items(), epochs[0]));
}

TEST(Recommendation, TrainsOnTheMeanBinaryCrossEntropyOfABatch) {
  const auto data = examples::make_ranking_data(small_interactions(), false);
  const auto network = small_network(data.train);
  examples::Recommendation task(network, data, {});
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  task.begin_epoch(generator);
  const auto batch = task.batch(20, 50, generator);
  double expected = 0;
  for (int64_t row = 20; row < 50; ++row) {
    const at::Tensor logit = network->forward(task.epoch_users().slice(0, row, row + 1),
                                              task.epoch_items().slice(0, row, row + 1));
    const double chance = 1 / (1 + std::exp(-logit.item<double>()));
    expected -= std::log(task.epoch_labels()[row].item<double>() == 1 ? chance : 1 - chance) / 30;
  }
  EXPECT_NEAR(batch.loss.item<double>(), expected, tolerance(torch::kFloat).step);
  EXPECT_NEAR(batch.sums[0].item<double>(), 30 * expected, 1e-4);
  EXPECT_TRUE(batch.loss.requires_grad());
  EXPECT_FALSE(batch.sums.requires_grad());
}

TEST(Recommendation, MeasuresWhatAPlainTwinDoes) {
  const auto data = examples::make_ranking_data(small_interactions(), false);
  const auto network = small_network(data.train);
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : network->parameters()) parameter.normal_(0, 1.5);
  }
  examples::Recommendation task(network, data, {});
  const auto got = task.on_all_data();

  const torch::NoGradGuard no_grad;
  double hits = 0;
  double gains = 0;
  double loss = 0;
  double size = 0;
  double vanished = 0;
  for (int64_t user = 0; user < 40; ++user) {
    const at::Tensor logits =
        network->forward(torch::full({100}, user, torch::kLong), data.candidates[user])
            .to(torch::kDouble);
    int64_t before = 0;
    for (int64_t place = 0; place < 100; ++place) {
      const double x = logits[place].item<double>();
      const double against = place == 0 ? -x : x;
      const double weight = place == 0 ? 1.0 / 5 : 4.0 / 5 / 99;
      loss += weight * (std::max(against, 0.0) + std::log1p(std::exp(-std::abs(against)))) / 40;
      size += weight * std::abs(x) / 40;
      if (1 / (1 + std::exp(-against)) < 1e-4) vanished += weight / 40;
      if (place > 0 && x >= logits[0].item<double>()) ++before;
    }
    if (before < 10) {
      hits += 1.0 / 40;
      gains += std::log(2.0) / std::log(static_cast<double>(before) + 2) / 40;
    }
  }
  EXPECT_GT(hits, 0);
  EXPECT_GT(vanished, 0);
  EXPECT_NEAR(got.ranking.hit_rate, hits, tolerance(torch::kDouble).step);
  EXPECT_NEAR(got.ranking.ndcg, gains, tolerance(torch::kDouble).step);
  EXPECT_NEAR(got.test.loss / loss, 1, tolerance(torch::kFloat).norm);
  EXPECT_NEAR(got.test.logit / size, 1, tolerance(torch::kFloat).norm);
  EXPECT_NEAR(got.test.vanished, vanished, 1e-9);
  // Of the probe, too, the figures are as many as their columns.
  EXPECT_EQ(task.measure().figures.size(), task.columns().size());
  EXPECT_EQ(task.measure().score, got.ranking.hit_rate);
}

/// All objects of one run, new: as another process would make them.
struct Job {
  Job(const std::string& network_name, bool lawn, int64_t epochs, Interactions interactions,
      const std::filesystem::path& checkpoint = {}, double rate = 0.01) {
    at::set_num_threads(1);
    const auto data = examples::make_ranking_data(interactions, false);
    torch::manual_seed(11);
    network =
        examples::make_recommender(network_name, data.train.user_count, data.train.item_count, 4);
    const at::Tensor some = torch::zeros({2}, torch::kLong);
    const auto weights = lawn::final_homogeneous_subnetwork(network->forward(some, some), *network);
    task = std::make_unique<examples::Recommendation>(network, data,
                                                      examples::RecommendationOptions());
    examples::TrainerOptions options;
    options.epochs = epochs;
    options.batch_size = 256;
    options.checkpoint = checkpoint;
    examples::StepperOptions stepping;
    stepping.learning_rate = rate;
    stepping.lawn = lawn;
    stepping.free_steps = 9;
    stepping.warmup_steps = 2;
    stepping.total_steps =
        epochs * examples::Trainer::steps_per_epoch(task->size(), options.batch_size);
    stepper = examples::make_stepper(network->parameters(), weights, stepping);
    trainer = std::make_unique<examples::Trainer>(*task, *stepper, weights, options,
                                                  examples::Settings{{"network", network_name}});
  }

  bool train_to(int64_t steps) {
    examples::Progress progress(out, "run", 1, 0, false, "samples");
    return trainer->run(progress, [&] { return trainer->steps() >= steps; });
  }

  std::ostringstream out;
  std::shared_ptr<examples::Recommender> network;
  std::unique_ptr<examples::Recommendation> task;
  std::unique_ptr<examples::Stepper> stepper;
  std::unique_ptr<examples::Trainer> trainer;
};

TEST(Recommendation, ResumesToTheSameBitsFromWithinAnEpochOnBothSidesOfTheSwitch) {
  const TemporaryFolder folder;
  const auto checkpoint = folder.path() / "run.pt";
  for (const bool lawn : {false, true}) {
    Job whole("neumf", lawn, 3, small_interactions());
    ASSERT_TRUE(whole.train_to(1000));
    ASSERT_EQ(whole.trainer->steps(), 18);  // six of 256 samples an epoch out of 1600
    for (const int64_t stop : {2, 6, 8, 9, 10, 17}) {
      {
        Job first("neumf", lawn, 3, small_interactions(), checkpoint);
        ASSERT_FALSE(first.train_to(stop));
      }
      Job second("neumf", lawn, 3, small_interactions(), checkpoint);
      torch::manual_seed(12345);  // a process of its own would not be at the same place
      second.trainer->load(checkpoint);
      ASSERT_TRUE(second.train_to(1000));
      const auto expected = whole.network->named_parameters();
      for (const auto& item : second.network->named_parameters()) {
        EXPECT_TRUE(torch::equal(item.value(), expected[item.key()])) << stop << ' ' << item.key();
      }
      for (const std::string column :
           {"batch_loss", "train_loss", "test_loss", "hit_rate", "ndcg"}) {
        EXPECT_EQ(second.trainer->history().last(column), whole.trainer->history().last(column))
            << stop << ' ' << column;
      }
      EXPECT_EQ(second.trainer->history().size(), 3U);
    }
  }
}

TEST(Recommendation, LearnsTastesFarBeyondChanceAndPopularity) {
  const Interactions all = examples::generate_interactions({});
  const auto data = examples::make_ranking_data(all, false);
  const at::Tensor popularity =
      data.train.items.bincount({}, data.train.item_count).to(torch::kDouble);
  // Ties, of which counts have many, are broken at random.
  torch::manual_seed(1);
  const at::Tensor scores =
      popularity.index_select(0, data.candidates.reshape(-1)).view_as(data.candidates) +
      0.5 * torch::rand(data.candidates.sizes(), torch::kDouble);
  const double popular = examples::ranking_figures(examples::ranks_of_first(scores)).hit_rate;
  EXPECT_NEAR(popular, 0.2, 0.1);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(0);
  const at::Tensor affinity = examples::draw_affinities({}, generator).gather(1, data.candidates);
  const double best = examples::ranking_figures(examples::ranks_of_first(affinity)).hit_rate;
  EXPECT_GT(best, 0.9);

  Job untrained("gmf", false, 6, all);
  EXPECT_NEAR(untrained.task->on_all_data().ranking.hit_rate, 0.1, 0.05);
  ASSERT_TRUE(untrained.train_to(1'000'000));
  const double learned = untrained.task->on_all_data().ranking.hit_rate;
  EXPECT_GT(learned, popular + 0.3);
  EXPECT_LT(learned, best + 0.05);
}

}  // namespace
