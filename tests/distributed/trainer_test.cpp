// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/trainer.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "examples/apps/support/classification.h"
#include "examples/apps/support/generated.h"
#include "examples/apps/support/mlp.h"
#include "examples/apps/support/mpi_ranks.h"
#include "tests/distributed/ranks.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::tolerance;

using examples::Settings;

constexpr int64_t kEpochs = 3;
constexpr int64_t kBatch = 3;           // among two ranks uneven, among four with an empty part
constexpr int64_t kStepsPerEpoch = 13;  // of 40 images: the last one is left out
constexpr int64_t kSteps = kEpochs * kStepsPerEpoch;
constexpr int64_t kFreeSteps = 16;  // the switch is in the second epoch

/// Has a gradient that overflows on the last rank alone, in the fifth step.
class Overflowing : public examples::Classification {
 public:
  using Classification::Classification;

 protected:
  Batch on_batch(const at::Tensor& images, const at::Tensor& labels) override {
    Batch batch = Classification::on_batch(images, labels);
    if (++batches_ == 5 && ranks().rank() == ranks().size() - 1) {
      batch.loss = batch.loss * std::numeric_limits<double>::infinity();
    }
    return batch;
  }

 private:
  int64_t batches_ = 0;
};

/// All objects of one run, new, as a process makes them: of a network without batch norm.
struct Job {
  Job(examples::Ranks& ranks, const std::string& optimizer, bool lawn,
      const examples::TrainerOptions& options, Settings settings = {}) {
    at::set_num_threads(1);
    torch::manual_seed(11);
    examples::GeneratedOptions generated;
    generated.train_size = 40;
    generated.test_size = 21;
    generated.image_size = 12;
    const examples::Split data = examples::generate_images(generated);
    network = examples::MLP(examples::MLPOptions{3 * 12 * 12, {32, 16}, 10}).ptr();
    const lawn::Subnetwork weights = lawn::select_all_weights(*network);
    examples::StepperOptions stepping;
    stepping.optimizer = optimizer;
    stepping.learning_rate = 0.01;
    stepping.lawn = lawn;
    stepping.free_steps = kFreeSteps;
    stepping.warmup_steps = 2;
    stepping.total_steps = kSteps;
    stepper = examples::make_stepper(network->parameters(), weights, stepping);
    const examples::Feeding feeding = {examples::channel_statistics(data.train), at::kCPU};
    const examples::ClassificationOptions classifying = {/*augment=*/true, /*probe_size=*/17};
    if (options.scale_gradients) {
      task = std::make_unique<Overflowing>(network, data, feeding, classifying, ranks);
    } else {
      task = std::make_unique<examples::Classification>(network, data, feeding, classifying, ranks);
    }
    settings.emplace_back("optimizer", optimizer);
    trainer = std::make_unique<examples::Trainer>(*task, *stepper, weights, options, settings);
  }

  /// Trains until `steps` steps are done in all, which `asked` alone wants.
  bool train_to(int64_t steps, bool asked = true) {
    examples::Progress progress(out, "run", 1, 0, false, "images");
    return trainer->run(progress, [&] { return asked && trainer->steps() >= steps; });
  }

  std::ostringstream out;
  std::shared_ptr<examples::Classifier> network;
  std::unique_ptr<examples::Stepper> stepper;
  std::unique_ptr<examples::Classification> task;
  std::unique_ptr<examples::Trainer> trainer;
};

examples::TrainerOptions options_for(const std::filesystem::path& checkpoint = {}) {
  examples::TrainerOptions options;
  options.epochs = kEpochs;
  options.batch_size = kBatch;
  options.checkpoint = checkpoint;
  return options;
}

/// Adam divides by the size of a gradient, so that where that is next to nothing its rounding
/// moves a weight.
double weight_tolerance(const std::string& optimizer) {
  return optimizer == "sgd" ? 1e-5 : lawn::testing::tolerance(at::kFloat).trajectory;
}

void expect_near(const torch::nn::Module& expected, const torch::nn::Module& got, double tolerance,
                 const std::string& what) {
  const auto others = got.named_parameters();
  for (const auto& item : expected.named_parameters()) {
    EXPECT_LT((item.value() - others[item.key()]).abs().max().item<double>(), tolerance)
        << what << ": " << item.key();
  }
}

/// The figures of each epoch but its times.
void expect_near(const examples::History& expected, const examples::History& got,
                 const std::string& what) {
  ASSERT_EQ(expected.size(), got.size()) << what;
  for (size_t row = 0; row < got.size(); ++row) {
    for (size_t column = 0; column < got.columns().size(); ++column) {
      const std::string& name = got.columns()[column];
      if (name == "seconds" || name == "images_per_second") continue;
      EXPECT_NEAR(expected.rows()[row][column], got.rows()[row][column],
                  tolerance(torch::kFloat).step)
          << what << ": " << name << " of epoch " << row + 1;
    }
  }
}

class TrainerOnRanks : public lawn::testing::Ranks {
 protected:
  /// Everywhere the bits of rank 0.
  void expect_one_network(const Job& job, const std::string& what) {
    for (const auto& item : job.network->named_parameters()) {
      expect_same_everywhere(item.value(), what + ": " + item.key());
    }
  }

  /// What `action` throws nothing in, on rank 0; the others wait for it.
  template <class Action>
  void on_root(const Action& action) {
    if (rank() == 0) action();
    ranks.gather("");
  }

  examples::MpiRanks team{ranks};
};

TEST_F(TrainerOnRanks, TrainsAsOneProcessDoes) {
  for (const std::string optimizer : {"sgd", "adam"}) {
    for (const bool lawn : {false, true}) {
      const std::string what = (lawn ? "lawn-" : "") + optimizer;
      Job one(examples::alone(), optimizer, lawn, options_for());
      ASSERT_TRUE(one.train_to(kSteps));
      Job all(team, optimizer, lawn, options_for());
      ASSERT_TRUE(all.train_to(kSteps));
      EXPECT_EQ(all.stepper->constrained(), lawn);
      expect_near(*one.network, *all.network, weight_tolerance(optimizer), what);
      expect_near(one.trainer->history(), all.trainer->history(), what);
      expect_one_network(all, what);
      EXPECT_EQ(one.trainer->best_epoch(), all.trainer->best_epoch());

      const auto whole = one.task->on_test_data();
      const auto in_parts = all.task->on_test_data();
      EXPECT_NEAR(whole.loss, in_parts.loss, tolerance(torch::kFloat).step) << what;
      EXPECT_EQ(whole.accuracy, in_parts.accuracy) << what;
      EXPECT_NEAR(whole.logit_norm, in_parts.logit_norm, tolerance(torch::kFloat).step) << what;
      EXPECT_NEAR(whole.calibration, in_parts.calibration, tolerance(torch::kFloat).step) << what;
    }
  }
}

TEST_F(TrainerOnRanks, ResumesWithAnotherNumberOfRanks) {
  const TemporaryFolder folder;  // each rank has one of its own: rank 0's has the files
  for (const bool lawn : {false, true}) {
    Job whole(examples::alone(), "adam", lawn, options_for());
    ASSERT_TRUE(whole.train_to(kSteps));
    // Within an epoch on both sides of the switch, at the end of one, and on the last step.
    for (const int64_t stop : {7, 13, 30, 38}) {
      const std::string what = (lawn ? "lawn, " : "") + std::to_string(stop);
      const auto theirs = folder.path() / (what + " of all.pt");
      Job all(team, "adam", lawn, options_for(theirs));
      ASSERT_FALSE(all.train_to(stop)) << what;
      EXPECT_EQ(std::filesystem::exists(theirs), rank() == 0) << what;
      on_root([&] {
        Job one(examples::alone(), "adam", lawn, options_for());
        one.trainer->load(theirs);
        ASSERT_EQ(one.trainer->steps(), stop) << what;
        ASSERT_TRUE(one.train_to(kSteps)) << what;
        expect_near(*whole.network, *one.network, weight_tolerance("adam"),
                    what + " of all, on by one");
        expect_near(whole.trainer->history(), one.trainer->history(), what);
      });

      const auto its = folder.path() / (what + " of one.pt");
      Job one(examples::alone(), "adam", lawn, options_for(its));
      ASSERT_FALSE(one.train_to(stop)) << what;
      Job more(team, "adam", lawn, options_for());
      more.trainer->load(its);
      ASSERT_EQ(more.trainer->steps(), stop) << what;
      ASSERT_TRUE(more.train_to(kSteps)) << what;
      expect_near(*whole.network, *more.network, weight_tolerance("adam"),
                  what + " of one, on by all");
      expect_near(whole.trainer->history(), more.trainer->history(), what);
      expect_one_network(more, what);
    }
  }
}

TEST_F(TrainerOnRanks, StopsAfterTheSameStepWhicheverRankIsAsked) {
  for (int64_t asked = 0; asked < size64(); ++asked) {
    Job job(team, "sgd", false, options_for());
    EXPECT_FALSE(job.train_to(5 + asked, rank64() == asked));
    EXPECT_EQ(job.trainer->steps(), 5 + asked);
  }
}

TEST_F(TrainerOnRanks, SkipsAStepOnAllWhereTheGradientOverflowsOnOne) {
  auto options = options_for();
  options.scale_gradients = true;
  Job job(team, "adam", true, options);
  ASSERT_TRUE(job.train_to(kSteps));
  EXPECT_EQ(job.trainer->skipped_steps(), 1);
  EXPECT_EQ(job.trainer->loss_scale(), 32768);
  expect_one_network(job, "after a step that was skipped");
  for (const auto& parameter : job.network->parameters()) {
    EXPECT_TRUE(parameter.isfinite().all().item<bool>());
  }
}

TEST_F(TrainerOnRanks, NamesARankThatTrainsOnOtherDataOrFromAnotherStep) {
  if (size() < 2) GTEST_SKIP() << "it takes two ranks for one to differ";
  const bool odd = rank() == 1;
  Job job(team, "adam", false, options_for(), {{"training data", odd ? "22" : "11"}});
  // Of two as many, rank 0 is right.
  EXPECT_NE(lawn::testing::refusal([&] {
              job.train_to(1);
            }).find("rank 1: expected 'training data 11', got 'training data 22'"),
            std::string::npos);

  const TemporaryFolder folder;
  const auto path = folder.path() / "run.pt";
  Job first(examples::alone(), "adam", false, options_for(path));
  first.train_to(odd ? 4 : 3);
  Job second(team, "adam", false, options_for());
  second.trainer->load(path);
  EXPECT_NE(lawn::testing::refusal([&] {
              second.train_to(9);
            }).find("rank 1: expected 'steps done 3', got 'steps done 4'"),
            std::string::npos);
}

}  // namespace
