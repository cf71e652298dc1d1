// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/trainer.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "examples/apps/support/classification.h"
#include "examples/apps/support/generated.h"
#include "examples/apps/support/resnet.h"
#include "tests/support/contents.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tolerance.h"

namespace {

namespace fs = std::filesystem;
using examples::Settings;
using lawn::testing::contents;
using lawn::testing::FileSizeLimit;
using lawn::testing::refusal;
using lawn::testing::tolerance;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A folder of its own for each test.
class TrainerTest : public testing::Test {
 protected:
  size_t files() const { return temporary_.entries(); }

  TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

/// A small residual network (batch norm has state of its own) with dropout, which draws from
/// torch's default generator. It is no narrower, since oneDNN 3.10, where it has AVX2 alone, writes
/// beyond the end of gradients of channels-last convolutions with fewer than eight channels.
class Small : public examples::Classifier {
 public:
  Small()
      : resnet_(
            register_module("resnet", examples::ResNet(examples::ResNetOptions{
                                          {8, 16}, 1, examples::Shortcut::kConvolution, 3, 10}))) {}
  at::Tensor forward(const at::Tensor& images) override {
    return gain * resnet_->forward(torch::dropout(images, 0.1, is_training()));
  }

  double gain = 1;  ///< of the logits, and so of the gradients behind them

 private:
  examples::ResNet resnet_;
};

/// With a score that a test can choose.
class Scored : public examples::Classification {
 public:
  using Classification::Classification;
  Measured measure() override {
    Measured measured = Classification::measure();
    if (score) measured.score = *score;
    return measured;
  }

  std::optional<double> score;
};

constexpr int64_t kEpochs = 3;
constexpr int64_t kStepsPerEpoch = 5;  // of 16 images out of 90: the last ten are left out
constexpr int64_t kFreeSteps = 7;      // the switch is in the second epoch

/// All objects of one run, new: as another process would make them.
struct Job {
  Job(const std::string& optimizer, bool lawn, const examples::TrainerOptions& options) {
    at::set_num_threads(1);  // two that wait for each other are slower on so small a network
    torch::manual_seed(11);
    examples::GeneratedOptions generated;
    generated.train_size = 90;
    generated.test_size = 40;
    generated.image_size = 12;
    const examples::Split data = examples::generate_images(generated);
    network = std::make_shared<Small>();
    if (options.scale_gradients) network->gain = 100;
    examples::to_channels_last(*network);
    const lawn::Subnetwork weights = lawn::select_all_weights(*network);
    examples::StepperOptions stepping;
    stepping.optimizer = optimizer;
    stepping.learning_rate = 0.01;
    stepping.weight_decay = 0.01;
    stepping.lawn = lawn;
    stepping.free_steps = kFreeSteps;
    stepping.warmup_steps = 2;
    stepping.total_steps = kEpochs * kStepsPerEpoch;
    stepper = examples::make_stepper(network->parameters(), weights, stepping);
    const examples::Feeding feeding = {examples::channel_statistics(data.train), at::kCPU,
                                       options.scale_gradients ? at::kHalf : at::kFloat};
    task = std::make_unique<Scored>(network, data, feeding,
                                    examples::ClassificationOptions{/*augment=*/true, 30});
    trainer = std::make_unique<examples::Trainer>(*task, *stepper, weights, options,
                                                  Settings{{"optimizer", optimizer}});
  }

  /// Trains until `steps` steps are done in all.
  bool train_to(int64_t steps) {
    examples::Progress progress(out, "run", 1, 0, false, "images");
    return trainer->run(progress, [&] { return trainer->steps() >= steps; });
  }

  std::ostringstream out;
  std::shared_ptr<Small> network;
  std::unique_ptr<examples::Stepper> stepper;
  std::unique_ptr<Scored> task;
  std::unique_ptr<examples::Trainer> trainer;
};

examples::TrainerOptions small_options() {
  examples::TrainerOptions options;
  options.epochs = kEpochs;
  options.batch_size = 16;
  return options;
}

/// Without the columns that hold times.
std::string figures(const examples::History& history) {
  const auto& names = history.columns();
  const at::Tensor rows = history.to_tensor();
  std::ostringstream text;
  text.precision(17);
  for (size_t column = 0; column < names.size(); ++column) {
    if (names[column] == "seconds" || names[column] == "images_per_second") continue;
    for (int64_t row = 0; row < rows.size(0); ++row) {
      text << names[column] << ' ' << rows[row][static_cast<int64_t>(column)].item<double>()
           << '\n';
    }
  }
  return text.str();
}

/// A column of a history.
std::vector<double> column_of(const examples::History& history, const std::string& name) {
  const auto& names = history.columns();
  const auto place = std::find(names.begin(), names.end(), name) - names.begin();
  std::vector<double> column;
  for (const auto& row : history.rows()) column.push_back(row.at(static_cast<size_t>(place)));
  return column;
}

void expect_same_bits(const torch::nn::Module& a, const torch::nn::Module& b,
                      const std::string& what) {
  const auto other_parameters = b.named_parameters();
  for (const auto& item : a.named_parameters()) {
    EXPECT_TRUE(torch::equal(item.value(), other_parameters[item.key()]))
        << what << ": " << item.key();
  }
  const auto other_buffers = b.named_buffers();
  for (const auto& item : a.named_buffers()) {
    EXPECT_TRUE(torch::equal(item.value(), other_buffers[item.key()]))
        << what << ": " << item.key();
  }
}

TEST_F(TrainerTest, ResumesToTheSameBitsFromAnyStepOnBothSidesOfTheSwitch) {
  for (const std::string optimizer : {"sgd", "adam", "adamw"}) {
    for (const bool lawn : {false, true}) {
      const std::string run = (lawn ? "lawn-" : "") + optimizer;
      Job whole(optimizer, lawn, small_options());
      ASSERT_TRUE(whole.train_to(kEpochs * kStepsPerEpoch));
      EXPECT_EQ(whole.stepper->constrained(), lawn);
      // In the first epoch, at its end, at the switch and on either side of it, in the last epoch.
      const std::vector<int64_t> stops = optimizer == "adam"
                                             ? std::vector<int64_t>{3, 5, 6, 7, 8, 14}
                                             : std::vector<int64_t>{6, 8};
      for (const int64_t stop : stops) {
        const std::string what = run + " stopped after " + std::to_string(stop);
        examples::TrainerOptions options = small_options();
        options.checkpoint = folder_ / (what + ".pt");
        {
          Job first(optimizer, lawn, options);
          ASSERT_FALSE(first.train_to(stop)) << what;
          ASSERT_EQ(first.trainer->steps(), stop) << what;
        }
        Job second(optimizer, lawn, options);
        torch::manual_seed(12345);  // a process of its own would not be at the same place
        second.trainer->load(options.checkpoint);
        EXPECT_EQ(second.trainer->steps(), stop) << what;
        ASSERT_TRUE(second.train_to(kEpochs * kStepsPerEpoch)) << what;
        expect_same_bits(*whole.network, *second.network, what);
        EXPECT_EQ(figures(whole.trainer->history()), figures(second.trainer->history())) << what;
        EXPECT_EQ(whole.trainer->best_score(), second.trainer->best_score()) << what;
        EXPECT_EQ(whole.trainer->best_epoch(), second.trainer->best_epoch()) << what;
        EXPECT_EQ(whole.trainer->initial_norm(), second.trainer->initial_norm()) << what;
      }
    }
  }
}

TEST_F(TrainerTest, ScalesGradientsInFloat16AndResumesToTheSameBitsAndScale) {
  examples::TrainerOptions options = small_options();
  options.scale_gradients = true;
  Job whole("adam", true, options);
  EXPECT_EQ(whole.trainer->loss_scale(), 65536);
  ASSERT_TRUE(whole.train_to(kEpochs * kStepsPerEpoch));
  // With such logits 65536 is too much for a half: steps are skipped until the scale is small.
  EXPECT_GT(whole.trainer->skipped_steps(), 0);
  EXPECT_LT(whole.trainer->skipped_steps(), kEpochs * kStepsPerEpoch - kFreeSteps);
  EXPECT_EQ(whole.trainer->loss_scale(),
            std::ldexp(65536, -static_cast<int>(whole.trainer->skipped_steps())));
  // The schedule stands where LAWN does: as many steps on as were not skipped.
  const Job fresh("adam", true, options);
  for (int64_t step = whole.trainer->skipped_steps(); step < kEpochs * kStepsPerEpoch; ++step) {
    fresh.stepper->optimizer().step();
    fresh.stepper->advance_schedule();
  }
  EXPECT_EQ(whole.stepper->learning_rate(), fresh.stepper->learning_rate());
  EXPECT_GT(whole.stepper->learning_rate(), 0);
  for (const int64_t stop : {1, 12}) {
    options.checkpoint = folder_ / "run.pt";
    {
      Job first("adam", true, options);
      ASSERT_FALSE(first.train_to(stop));
    }
    Job second("adam", true, options);
    second.trainer->load(options.checkpoint);
    ASSERT_TRUE(second.train_to(kEpochs * kStepsPerEpoch));
    expect_same_bits(*whole.network, *second.network, "stopped after " + std::to_string(stop));
    EXPECT_EQ(figures(whole.trainer->history()), figures(second.trainer->history()));
    EXPECT_EQ(whole.trainer->loss_scale(), second.trainer->loss_scale());
    EXPECT_EQ(whole.trainer->skipped_steps(), second.trainer->skipped_steps());
  }
}

TEST_F(TrainerTest, MeasuresTheUpdateOfTheLastStepOfEachEpoch) {
  Job run("adam", false, small_options());
  const auto weights = lawn::select_all_weights(*run.network).parameters();
  std::vector<at::Tensor> before;
  std::vector<double> expected;
  examples::Progress progress(run.out, "run", 1, 0, false, "images");
  run.trainer->run(progress, [&] {
    const int64_t step = run.trainer->steps();
    std::vector<at::Tensor> now;
    for (const at::Tensor& weight : weights) now.push_back(weight.detach().clone());
    if (step % kStepsPerEpoch == 0) {
      std::vector<at::Tensor> moved;
      for (size_t index = 0; index < now.size(); ++index)
        moved.push_back(now[index] - before[index]);
      expected.push_back(examples::joint_norm(examples::norms(moved)));
    }
    before = now;
    return false;
  });
  const std::vector<double> column = column_of(run.trainer->history(), "update_norm");
  ASSERT_EQ(expected.size(), column.size() - 1);  // `stop` is not asked after the last step
  for (size_t row = 0; row < expected.size(); ++row) {
    EXPECT_GT(expected[row], 0);
    EXPECT_EQ(column[row], expected[row]) << row;
  }
}

TEST_F(TrainerTest, RecordsTheRateOfTheLastStepOfEachEpochAlsoOfOneThatWasResumedBeforeIt) {
  examples::TrainerOptions options = small_options();
  Job whole("adam", true, options);
  std::vector<double> expected;
  examples::Progress progress(whole.out, "run", 1, 0, false, "images");
  whole.trainer->run(progress, [&] {
    const double of_next_step = whole.stepper->learning_rate();
    if ((whole.trainer->steps() + 1) % kStepsPerEpoch == 0) expected.push_back(of_next_step);
    return false;
  });
  EXPECT_GT(expected.back(), 0);  // what is left at the end of the schedule is 0
  EXPECT_EQ(column_of(whole.trainer->history(), "learning_rate"), expected);
  options.checkpoint = folder_ / "run.pt";
  Job first("adam", true, options);
  first.train_to(kEpochs * kStepsPerEpoch - 1);
  Job second("adam", true, options);
  second.trainer->load(options.checkpoint);
  ASSERT_TRUE(second.train_to(kEpochs * kStepsPerEpoch));
  EXPECT_EQ(column_of(second.trainer->history(), "learning_rate"), expected);
}

TEST_F(TrainerTest, FindsTheBestEpochWhateverTheScores) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  struct Case {
    std::vector<double> scores;  // of each epoch
    double best;
    int64_t epoch;
  };
  for (const Case& wanted : {Case{{0, 0, 0}, 0, 1}, Case{{-3, -2, -2}, -2, 2},
                             Case{{nan, -1, -2}, -1, 2}, Case{{0.5, nan, 0.25}, 0.5, 1},
                             Case{{nan, nan, nan}, -std::numeric_limits<double>::infinity(), 0}}) {
    examples::TrainerOptions options = small_options();
    options.checkpoint = folder_ / "run.pt";
    std::unique_ptr<Job> run;
    for (int64_t epoch = 1; epoch <= kEpochs; ++epoch) {  // each by a run that goes on
      run = std::make_unique<Job>("sgd", false, options);
      if (epoch > 1) run->trainer->load(options.checkpoint);
      run->task->score = wanted.scores[static_cast<size_t>(epoch - 1)];
      run->train_to(epoch * kStepsPerEpoch);
    }
    EXPECT_EQ(run->trainer->best_score(), wanted.best) << wanted.scores[0];
    EXPECT_EQ(run->trainer->best_epoch(), wanted.epoch) << wanted.scores[0];
  }
}

TEST_F(TrainerTest, KeepsTheNormsUnderLAWNAndLetsThemGoWithout) {
  for (const bool lawn : {false, true}) {
    Job run("adam", lawn, small_options());
    run.train_to(kFreeSteps);
    const auto weights = lawn::select_all_weights(*run.network).parameters();
    const auto at_switch = examples::norms(weights);
    run.train_to(kEpochs * kStepsPerEpoch);
    const auto at_end = examples::norms(weights);
    double largest = 0;
    for (size_t index = 0; index < weights.size(); ++index) {
      largest = std::max(largest, std::abs(at_end[index] / at_switch[index] - 1));
    }
    if (lawn) {
      EXPECT_LT(largest, tolerance(torch::kFloat).norm);
    } else {
      EXPECT_GT(largest, 1e-3);
    }
  }
}

TEST_F(TrainerTest, RestoresAFinishedRunWithoutTrainingOn) {
  examples::TrainerOptions options = small_options();
  options.checkpoint = folder_ / "done.pt";
  Job whole("adam", true, options);
  ASSERT_TRUE(whole.train_to(kEpochs * kStepsPerEpoch));
  Job again("adam", true, options);
  again.trainer->load(options.checkpoint);
  EXPECT_TRUE(again.trainer->finished());
  EXPECT_TRUE(again.train_to(0));
  expect_same_bits(*whole.network, *again.network, "restored");
  EXPECT_EQ(figures(whole.trainer->history()), figures(again.trainer->history()));
}

TEST_F(TrainerTest, WritesTheCsvOfAFinishedRunThatIsResumedIntoAnotherFolder) {
  examples::TrainerOptions options = small_options();
  options.checkpoint = folder_ / "done.pt";
  Job whole("adam", false, options);
  ASSERT_TRUE(whole.train_to(kEpochs * kStepsPerEpoch));
  options.csv = folder_ / "other.csv";
  Job again("adam", false, options);
  again.trainer->load(options.checkpoint);
  EXPECT_TRUE(again.train_to(0));
  EXPECT_EQ(contents(options.csv), whole.trainer->history().csv());
}

TEST_F(TrainerTest, WritesNoCsvOfARunThatStopsBeforeItsFirstEpochIsDone) {
  examples::TrainerOptions options = small_options();
  options.csv = folder_ / "run.csv";
  Job run("adam", false, options);
  EXPECT_FALSE(run.train_to(2));
  EXPECT_FALSE(fs::exists(options.csv));
}

TEST_F(TrainerTest, SavesEverySoManyEpochsAndWritesTheCsvEachEpoch) {
  examples::TrainerOptions options = small_options();
  options.checkpoint = folder_ / "run.pt";
  options.csv = folder_ / "run.csv";
  options.checkpoint_every = 2;
  Job first("adam", false, options);
  EXPECT_EQ(files(), 0U);
  bool seen_without = false;
  examples::Progress progress(first.out, "run", 1, 0, false, "images");
  first.trainer->run(progress, [&] {
    if (first.trainer->steps() == kStepsPerEpoch) {
      seen_without = fs::exists(options.csv) && !fs::exists(options.checkpoint);
    }
    if (first.trainer->steps() == 2 * kStepsPerEpoch) {
      EXPECT_TRUE(fs::exists(options.checkpoint));
      fs::copy_file(options.checkpoint, folder_ / "second_epoch.pt");
    }
    return false;
  });
  EXPECT_TRUE(seen_without);
  EXPECT_EQ(contents(options.csv), first.trainer->history().csv());
  EXPECT_EQ(first.trainer->history().size(), static_cast<size_t>(kEpochs));
  Job second("adam", false, options);
  second.trainer->load(folder_ / "second_epoch.pt");
  EXPECT_EQ(second.trainer->steps(), 2 * kStepsPerEpoch);
}

TEST_F(TrainerTest, RefusesACheckpointOfAnotherOptimizerBeforeItChangesAnything) {
  examples::TrainerOptions options = small_options();
  options.checkpoint = folder_ / "adam.pt";
  Job adam("adam", true, options);
  adam.train_to(8);
  Job sgd("sgd", true, options);
  Job untouched("sgd", true, options);
  const std::string text = refusal([&] { sgd.trainer->load(options.checkpoint); });
  EXPECT_TRUE(contains(text, "a checkpoint of another run: optimizer is adam there and sgd here"))
      << text;
  expect_same_bits(*sgd.network, *untouched.network, "after the refusal");
  EXPECT_EQ(sgd.trainer->steps(), 0);
}

TEST_F(TrainerTest, StopsWithTheOldCheckpointInPlaceWhenTheDiskIsFull) {
  examples::TrainerOptions options = small_options();
  options.checkpoint = folder_ / "run.pt";
  Job first("adam", true, options);
  first.train_to(3);
  const std::string before = contents(options.checkpoint);
  {
    const FileSizeLimit limit(4000);
    EXPECT_TRUE(contains(refusal([&] { first.train_to(8); }), "could not be written"));
  }
  EXPECT_EQ(contents(options.checkpoint), before);
  EXPECT_EQ(files(), 1U);
}

}  // namespace
