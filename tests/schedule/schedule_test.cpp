// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <lawn/optimizer.h>
#include <lawn/options.h>
#include <lawn/schedule/lawn_schedule.h>
#include <lawn/schedule/warmup_decay.h>
#include <lawn/subnetwork/selection.h>

#include "tests/support/refusal.h"

namespace {

using lawn::Decay;
using lawn::LAWNSchedule;
using lawn::LAWNScheduleOptions;
using lawn::WarmupDecay;
using lawn::WarmupDecayOptions;
using torch::optim::OptimizerParamGroup;

constexpr double kPi = 3.14159265358979323846;

/// r(p) as the documentation writes it.
double remaining(Decay decay, double p, double power) {
  switch (decay) {
    case Decay::kNone:
      return 1;
    case Decay::kLinear:
      return 1 - p;
    case Decay::kCosine:
      return (1 + std::cos(kPi * p)) / 2;
    case Decay::kPolynomial:
      break;
  }
  return std::pow(1 - p, power);
}

/// The equations of WarmupDecay, written plainly.
double twin(const WarmupDecayOptions& o, int64_t t) {
  const auto step = static_cast<double>(t);
  const auto warmup = static_cast<double>(o.warmup_steps());
  const auto total = static_cast<double>(o.total_steps());
  const double f = o.decay() == Decay::kNone ? 1 : o.final_factor();
  if (step < warmup) {
    return (step + 1) / (warmup + 1);
  }
  if (step < total) {
    return f + (1 - f) * remaining(o.decay(), (step - warmup) / (total - warmup), o.power());
  }
  return f;
}

/// The equations of LAWNSchedule: two schedules of the other kind, one after the other.
double twin(const LAWNScheduleOptions& o, int64_t t) {
  const int64_t free_steps = *o.free_steps();
  if (t < free_steps) {
    return twin(WarmupDecayOptions()
                    .warmup_steps(o.warmup_steps())
                    .total_steps(free_steps)
                    .decay(o.free_decay())
                    .power(o.power())
                    .final_factor(o.free_final_factor()),
                t);
  }
  return twin(WarmupDecayOptions()
                  .warmup_steps(o.second_warmup_steps())
                  .total_steps(o.total_steps() - free_steps)
                  .decay(o.decay())
                  .power(o.power())
                  .final_factor(o.final_factor()),
              t - free_steps);
}

double lr(torch::optim::Optimizer& optimizer, size_t group = 0) {
  return optimizer.param_groups().at(group).options().get_lr();
}

OptimizerParamGroup group_with_lr(double rate) {
  return {{torch::ones(2)}, std::make_unique<torch::optim::SGDOptions>(rate)};
}

class Schedule : public ::testing::Test {
 protected:
  Schedule() : sgd_({torch::ones(3)}, torch::optim::SGDOptions(kBase)) {}

  std::string refusal(const WarmupDecayOptions& options) {
    return lawn::testing::refusal([&] { WarmupDecay schedule(sgd_, options); });
  }

  std::string refusal(const LAWNScheduleOptions& options) {
    return lawn::testing::refusal([&] { LAWNSchedule schedule(sgd_, options); });
  }

  static constexpr double kBase = 0.3;
  static constexpr double kTolerance = 1e-15;  // a few roundings of numbers of at most 1
  torch::optim::SGD sgd_;
};

using WarmupDecayTest = Schedule;
using LAWNScheduleTest = Schedule;

// --- the closed forms ---------------------------------------------------------------------------

TEST_F(WarmupDecayTest, FollowsItsEquationAtEveryStepForEveryShape) {
  for (const Decay decay : {Decay::kNone, Decay::kLinear, Decay::kCosine, Decay::kPolynomial}) {
    for (const int64_t warmup : {0, 1, 7}) {
      for (const double final_factor : {0.0, 0.1, 1.0}) {
        for (const double power : {0.5, 1.0, 3.0}) {
          const auto options = WarmupDecayOptions()
                                   .warmup_steps(warmup)
                                   .total_steps(40)
                                   .decay(decay)
                                   .power(power)
                                   .final_factor(final_factor);
          torch::optim::SGD optimizer({torch::ones(1)}, torch::optim::SGDOptions(kBase));
          WarmupDecay schedule(optimizer, options);
          for (int64_t step = 0; step < 50; ++step) {
            ASSERT_NEAR(schedule.factor(step), twin(options, step), kTolerance)
                << schedule << " at step " << step;
            ASSERT_EQ(lr(optimizer), kBase * schedule.factor(step))
                << schedule << " at step " << step;
            schedule.step();
          }
        }
      }
    }
  }
}

TEST_F(LAWNScheduleTest, FollowsItsEquationAtEveryStepForEveryPairOfShapes) {
  const auto shapes = {Decay::kNone, Decay::kLinear, Decay::kCosine, Decay::kPolynomial};
  for (const Decay free_decay : shapes) {
    for (const Decay decay : shapes) {
      for (const int64_t warmup : {0, 5, 20}) {
        for (const int64_t second_warmup : {0, 4}) {
          const auto options = LAWNScheduleOptions()
                                   .free_steps(20)
                                   .total_steps(60)
                                   .warmup_steps(warmup)
                                   .second_warmup_steps(second_warmup)
                                   .free_decay(free_decay)
                                   .free_final_factor(0.2)
                                   .decay(decay)
                                   .power(2)
                                   .final_factor(0.01);
          torch::optim::SGD optimizer({torch::ones(1)}, torch::optim::SGDOptions(kBase));
          LAWNSchedule schedule(optimizer, options);
          for (int64_t step = 0; step < 70; ++step) {
            ASSERT_NEAR(schedule.factor(step), twin(options, step), kTolerance)
                << schedule << " at step " << step;
            ASSERT_EQ(lr(optimizer), kBase * schedule.factor(step))
                << schedule << " at step " << step;
            schedule.step();
          }
        }
      }
    }
  }
}

TEST_F(WarmupDecayTest, RisesEvenlyAndReachesTheFullRateAtTheFirstStepAfterTheWarmup) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().warmup_steps(4).total_steps(10));
  for (int64_t step = 0; step < 4; ++step) {
    EXPECT_DOUBLE_EQ(schedule.factor(step), 0.2 * static_cast<double>(step + 1));
  }
  EXPECT_EQ(schedule.factor(4), 1);
  EXPECT_LT(schedule.factor(5), 1);
}

TEST_F(WarmupDecayTest, MovesAtTheLastStepAndStaysAtTheFinalFactorForGood) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().total_steps(100).decay(Decay::kCosine));
  EXPECT_GT(schedule.factor(99), 0);
  EXPECT_EQ(schedule.factor(100), 0);
  EXPECT_EQ(schedule.factor(int64_t{1} << 60), 0);
}

TEST_F(WarmupDecayTest, KeepsItsRelativePrecisionAtTheEndOfALongDecay) {
  const int64_t total = 1'000'000;
  const double p_left = 1.0 / static_cast<double>(total);
  WarmupDecay cosine(sgd_, WarmupDecayOptions().total_steps(total).decay(Decay::kCosine));
  EXPECT_NEAR(cosine.factor(total - 1) / std::pow(kPi / 2 * p_left, 2), 1, 1e-11);
  WarmupDecay cubic(sgd_,
                    WarmupDecayOptions().total_steps(total).decay(Decay::kPolynomial).power(3));
  EXPECT_NEAR(cubic.factor(total - 1) / std::pow(p_left, 3), 1, 1e-11);
}

TEST_F(LAWNScheduleTest, WarmsUpAgainAtTheSwitchAndEndsAtZero) {
  LAWNSchedule schedule(
      sgd_,
      LAWNScheduleOptions().free_steps(10).total_steps(30).warmup_steps(3).second_warmup_steps(4));
  EXPECT_EQ(schedule.factor(3), 1);
  EXPECT_EQ(schedule.factor(9), 1);
  EXPECT_DOUBLE_EQ(schedule.factor(10), 0.2);
  EXPECT_DOUBLE_EQ(schedule.factor(13), 0.8);
  EXPECT_EQ(schedule.factor(14), 1);
  EXPECT_DOUBLE_EQ(schedule.factor(29), 1.0 / 16);
  EXPECT_EQ(schedule.factor(30), 0);
}

TEST_F(LAWNScheduleTest, WithoutAFreePhaseIsAWarmupAndADecay) {
  LAWNSchedule two_part(
      sgd_, LAWNScheduleOptions().total_steps(30).second_warmup_steps(6).decay(Decay::kCosine));
  WarmupDecay one_part(sgd_,
                       WarmupDecayOptions().total_steps(30).warmup_steps(6).decay(Decay::kCosine));
  for (int64_t step = 0; step < 40; ++step) {
    EXPECT_EQ(two_part.factor(step), one_part.factor(step));
  }
}

TEST_F(LAWNScheduleTest, TakesTheFreeStepsOfTheLAWNThatItIsMadeFor) {
  const auto options = LAWNScheduleOptions().total_steps(30).second_warmup_steps(4);
  const auto make_lawn = [](int64_t free_steps) {
    auto weight = torch::ones(3).requires_grad_();
    return lawn::LAWN<torch::optim::SGD>(
        torch::optim::SGD({weight}, torch::optim::SGDOptions(kBase)), lawn::select({weight}),
        lawn::LAWNOptions().free_steps(free_steps));
  };
  auto lawn = make_lawn(10);
  EXPECT_DOUBLE_EQ(LAWNSchedule(lawn, options).factor(10), 0.2);
  EXPECT_DOUBLE_EQ(LAWNSchedule(lawn, LAWNScheduleOptions(options).free_steps(10)).factor(10), 0.2);
  EXPECT_EQ(
      lawn::testing::refusal(
          [&] { LAWNSchedule schedule(lawn, LAWNScheduleOptions(options).free_steps(8)); }),
      "lawn::LAWNSchedule: expected the free_steps of the LAWN that it is made for, 10, got 8; "
      "leave them out to have the same");

  auto by_hand = make_lawn(lawn::LAWNOptions::kNever);
  EXPECT_DOUBLE_EQ(LAWNSchedule(by_hand, LAWNScheduleOptions(options).free_steps(8)).factor(8),
                   0.2);
  EXPECT_EQ(lawn::testing::refusal([&] { LAWNSchedule schedule(by_hand, options); }),
            "lawn::LAWNSchedule: expected free_steps for a LAWN that switches by hand, got none");
}

// --- driving an optimizer -----------------------------------------------------------------------

TEST_F(WarmupDecayTest, SetsTheRateOfStepZeroAtConstructionAndOfStepKAfterKSteps) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().warmup_steps(9).total_steps(20));
  EXPECT_EQ(schedule.steps(), 0);
  EXPECT_DOUBLE_EQ(lr(sgd_), kBase / 10);
  EXPECT_EQ(schedule.factor(), schedule.factor(0));
  for (int64_t k = 1; k <= 5; ++k) {
    schedule.step();
    EXPECT_EQ(schedule.steps(), k);
    EXPECT_EQ(schedule.factor(), schedule.factor(k));
    EXPECT_EQ(lr(sgd_), kBase * schedule.factor(k));
  }
}

TEST_F(WarmupDecayTest, StandsWhereALibTorchScheduleStands) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().total_steps(2));
  torch::optim::LRScheduler& base = schedule;
  base.step();
  EXPECT_EQ(lr(sgd_), kBase / 2);
}

TEST_F(WarmupDecayTest, TrainsTheWeightsThatTheSameRatesByHandTrain) {
  const auto run = [](const std::function<void(torch::optim::Optimizer&, int64_t)>& before_step,
                      const std::function<void()>& after_step, torch::optim::Optimizer& optimizer) {
    for (int64_t step = 0; step < 12; ++step) {
      before_step(optimizer, step);
      auto& weight = optimizer.param_groups()[0].params()[0];
      weight.mutable_grad() = 2 * weight;
      optimizer.step();
      after_step();
    }
  };
  const auto options = WarmupDecayOptions().warmup_steps(3).total_steps(10);
  torch::optim::Adam scheduled({torch::ones(4)}, 0.1);
  torch::optim::Adam by_hand({torch::ones(4)}, 0.1);
  WarmupDecay schedule(scheduled, options);
  run([](auto&, int64_t) {}, [&] { schedule.step(); }, scheduled);
  run([&](auto& o,
          int64_t step) { o.param_groups()[0].options().set_lr(0.1 * schedule.factor(step)); },
      [] {}, by_hand);
  EXPECT_TRUE(
      torch::equal(scheduled.param_groups()[0].params()[0], by_hand.param_groups()[0].params()[0]));
}

TEST_F(WarmupDecayTest, ScalesEachGroupFromItsOwnRate) {
  torch::optim::SGD optimizer({group_with_lr(0.5), group_with_lr(0.02)},
                              torch::optim::SGDOptions(1));
  WarmupDecay schedule(optimizer, WarmupDecayOptions().warmup_steps(1).total_steps(5));
  EXPECT_EQ(schedule.base_lrs(), (std::vector<double>{0.5, 0.02}));
  EXPECT_EQ(lr(optimizer, 0), 0.25);
  EXPECT_EQ(lr(optimizer, 1), 0.01);
  schedule.step();
  EXPECT_EQ(lr(optimizer, 0), 0.5);
  EXPECT_EQ(lr(optimizer, 1), 0.02);
}

TEST_F(WarmupDecayTest, TakesInAGroupThatJoinsLaterFromTheNextStepOn) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().total_steps(4));
  schedule.step();
  sgd_.add_param_group(group_with_lr(0.8));
  EXPECT_EQ(lr(sgd_, 1), 0.8);
  schedule.step();
  EXPECT_EQ(lr(sgd_, 0), kBase / 2);
  EXPECT_EQ(lr(sgd_, 1), 0.4);
  schedule.step();
  EXPECT_EQ(lr(sgd_, 1), 0.2);
  EXPECT_EQ(schedule.base_lrs(), (std::vector<double>{kBase, 0.8}));
}

TEST_F(WarmupDecayTest, RefusesToGoOnWhenAGroupWasTakenAway) {
  sgd_.add_param_group(group_with_lr(0.8));
  WarmupDecay schedule(sgd_, WarmupDecayOptions().total_steps(4));
  sgd_.param_groups().pop_back();
  EXPECT_EQ(lawn::testing::refusal([&] { schedule.step(); }),
            "lawn::WarmupDecay: the optimizer has 1 parameter groups, it had 2; groups may be "
            "added, not removed, while a schedule drives them");
  EXPECT_EQ(lr(sgd_), kBase);
}

// --- base rates ---------------------------------------------------------------------------------

constexpr const char* kRateRemedy =
    "; set it with set_lr or make the optimizer anew, since a schedule only multiplies it; to "
    "resume, make the schedule before the optimizer's checkpoint is loaded";

TEST_F(WarmupDecayTest, RefusesAnOptimizerThatAnEarlierScheduleHasDecayedToZero) {
  WarmupDecay earlier(sgd_, WarmupDecayOptions().total_steps(2));
  earlier.step();
  earlier.step();
  ASSERT_EQ(lr(sgd_), 0);
  EXPECT_EQ(refusal(WarmupDecayOptions().warmup_steps(1).total_steps(5)),
            std::string("lawn::WarmupDecay: expected a base rate > 0 in a parameter group, got "
                        "base rate 0 in group 0, the only one of the optimizer") +
                kRateRemedy);
  EXPECT_EQ(lr(sgd_), 0);

  sgd_.param_groups()[0].options().set_lr(kBase);  // as the message says
  WarmupDecay second(sgd_, WarmupDecayOptions().warmup_steps(1).total_steps(5));
  EXPECT_EQ(lr(sgd_), kBase / 2);
}

TEST_F(LAWNScheduleTest, RefusesAnOptimizerAllOfWhoseGroupsHaveRateZero) {
  torch::optim::SGD optimizer({group_with_lr(0), group_with_lr(-0.0)}, torch::optim::SGDOptions(1));
  EXPECT_EQ(lawn::testing::refusal(
                [&] { LAWNSchedule schedule(optimizer, LAWNScheduleOptions().total_steps(5)); }),
            std::string("lawn::LAWNSchedule: expected a base rate > 0 in a parameter group, got "
                        "base rate 0 in each of the groups 0 to 1 of the optimizer") +
                kRateRemedy);
}

TEST_F(WarmupDecayTest, LeavesAGroupOfRateZeroBesideOthersFrozen) {
  torch::optim::SGD optimizer({group_with_lr(0), group_with_lr(0.5)}, torch::optim::SGDOptions(1));
  WarmupDecay schedule(optimizer, WarmupDecayOptions().warmup_steps(1).total_steps(4));
  optimizer.add_param_group(group_with_lr(0));
  for (int step = 0; step < 3; ++step) {
    EXPECT_EQ(lr(optimizer, 0), 0);
    EXPECT_EQ(lr(optimizer, 1), 0.5 * schedule.factor(step));
    EXPECT_EQ(lr(optimizer, 2), 0);
    schedule.step();
  }
  EXPECT_EQ(schedule.base_lrs(), (std::vector<double>{0, 0.5, 0}));
}

TEST_F(WarmupDecayTest, RefusesABaseRateThatIsNegativeOrNotFiniteAndNamesItsGroup) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<double, const char*>> wrong = {
      {-0.5, "-0.5"}, {std::nan(""), "nan"}, {kInfinity, "inf"}, {-kInfinity, "-inf"}};
  for (const auto& [rate, printed] : wrong) {
    torch::optim::SGD optimizer({group_with_lr(0.5), group_with_lr(0.25)},
                                torch::optim::SGDOptions(1));
    optimizer.param_groups()[1].options().set_lr(rate);
    EXPECT_EQ(
        lawn::testing::refusal([&optimizer = optimizer] {
          WarmupDecay schedule(optimizer, WarmupDecayOptions().warmup_steps(1).total_steps(5));
        }),
        std::string("lawn::WarmupDecay: expected a finite base rate >= 0 in each parameter group, "
                    "got base rate ") +
            printed + " in group 1 of the optimizer" + kRateRemedy);
    EXPECT_EQ(lr(optimizer, 0), 0.5);
  }
}

TEST_F(WarmupDecayTest, RefusesTheStepAfterAGroupOfAWrongRateHasJoinedAndChangesNothing) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().total_steps(4));
  sgd_.add_param_group(group_with_lr(0.8));
  sgd_.param_groups()[1].options().set_lr(std::nan(""));
  EXPECT_EQ(lawn::testing::refusal([&] { schedule.step(); }),
            std::string("lawn::WarmupDecay: expected a finite base rate >= 0 in each parameter "
                        "group, got base rate nan in group 1 of the optimizer") +
                kRateRemedy);
  EXPECT_EQ(lr(sgd_), kBase);
  EXPECT_EQ(schedule.steps(), 0);
  EXPECT_EQ(schedule.base_lrs(), std::vector<double>{kBase});

  sgd_.param_groups()[1].options().set_lr(0.8);
  schedule.step();
  EXPECT_EQ(lr(sgd_, 0), kBase * schedule.factor(1));
  EXPECT_EQ(lr(sgd_, 1), 0.8 * schedule.factor(1));
}

TEST_F(WarmupDecayTest, DrivesEveryLibTorchOptimizer) {
  const auto check = [](auto&& optimizer) {
    WarmupDecay schedule(optimizer, WarmupDecayOptions().warmup_steps(1).total_steps(9));
    EXPECT_EQ(lr(optimizer), 0.25);
    schedule.step();
    EXPECT_EQ(lr(optimizer), 0.5);
  };
  const std::vector<torch::Tensor> weights = {torch::ones(3)};
  check(torch::optim::SGD(weights, torch::optim::SGDOptions(0.5)));
  check(torch::optim::Adam(weights, torch::optim::AdamOptions(0.5)));
  check(torch::optim::AdamW(weights, torch::optim::AdamWOptions(0.5)));
  check(torch::optim::RMSprop(weights, torch::optim::RMSpropOptions(0.5)));
  check(torch::optim::Adagrad(weights, torch::optim::AdagradOptions(0.5)));
  check(torch::optim::LBFGS(weights, torch::optim::LBFGSOptions(0.5)));
}

// --- save and load ------------------------------------------------------------------------------

TEST_F(WarmupDecayTest, ResumesWithTheSameBitsOnAFreshOptimizer) {
  const auto options = WarmupDecayOptions().warmup_steps(3).total_steps(20).decay(Decay::kCosine);
  torch::optim::SGD first({group_with_lr(0.7), group_with_lr(0.03)}, torch::optim::SGDOptions(1));
  WarmupDecay schedule(first, options);
  for (int i = 0; i < 8; ++i) {
    schedule.step();
  }
  std::stringstream file;
  torch::save(schedule, file);

  // Other base learning rates: those of the checkpoint count.
  torch::optim::SGD second({group_with_lr(1), group_with_lr(2)}, torch::optim::SGDOptions(1));
  WarmupDecay resumed(second, options);
  torch::load(resumed, file);
  EXPECT_EQ(resumed.steps(), 8);
  EXPECT_EQ(resumed.base_lrs(), schedule.base_lrs());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(lr(second, 0), lr(first, 0));
    EXPECT_EQ(lr(second, 1), lr(first, 1));
    schedule.step();
    resumed.step();
  }
}

TEST_F(LAWNScheduleTest, ResumesOnBothSidesOfTheSwitch) {
  const auto options =
      LAWNScheduleOptions().free_steps(6).total_steps(20).warmup_steps(2).second_warmup_steps(3);
  for (const int saved_after : {0, 4, 6, 7, 25}) {
    LAWNSchedule schedule(sgd_, options);
    for (int i = 0; i < saved_after; ++i) {
      schedule.step();
    }
    std::stringstream file;
    torch::save(schedule, file);
    torch::optim::SGD fresh({torch::ones(3)}, torch::optim::SGDOptions(5));
    LAWNSchedule resumed(fresh, options);
    torch::load(resumed, file);
    for (int i = 0; i < 25; ++i) {
      ASSERT_EQ(lr(fresh), lr(sgd_)) << "saved after " << saved_after << ", " << i << " steps on";
      schedule.step();
      resumed.step();
    }
    sgd_.param_groups()[0].options().set_lr(kBase);
  }
}

TEST_F(WarmupDecayTest, LoadsBeforeOrAfterTheOptimizersOwnCheckpoint) {
  const auto options = WarmupDecayOptions().total_steps(10);
  WarmupDecay schedule(sgd_, options);
  schedule.step();
  for (const bool optimizer_first : {true, false}) {
    std::stringstream optimizer_file;
    std::stringstream schedule_file;
    torch::save(sgd_, optimizer_file);
    torch::save(schedule, schedule_file);
    torch::optim::SGD fresh({torch::ones(3)}, torch::optim::SGDOptions(5));
    if (optimizer_first) {
      torch::load(fresh, optimizer_file);
    }
    WarmupDecay resumed(fresh, options);
    torch::load(resumed, schedule_file);
    if (!optimizer_first) {
      torch::load(fresh, optimizer_file);
    }
    EXPECT_EQ(lr(fresh), kBase * schedule.factor(1));
    resumed.step();
    EXPECT_EQ(lr(fresh), kBase * schedule.factor(2));
  }
}

TEST_F(WarmupDecayTest, RemembersAGroupThatJoinedJustBeforeTheCheckpoint) {
  const auto options = WarmupDecayOptions().total_steps(4);
  WarmupDecay schedule(sgd_, options);
  schedule.step();
  sgd_.add_param_group(group_with_lr(0.8));
  std::stringstream file;
  torch::save(schedule, file);
  EXPECT_EQ(schedule.base_lrs().size(), 1);  // saving takes nothing in

  torch::optim::SGD fresh({group_with_lr(1), group_with_lr(1)}, torch::optim::SGDOptions(1));
  WarmupDecay resumed(fresh, options);
  torch::load(resumed, file);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(lr(fresh, 0), lr(sgd_, 0));
    EXPECT_EQ(lr(fresh, 1), lr(sgd_, 1));
    schedule.step();
    resumed.step();
  }
}

/// Loads the checkpoint of `saved` into `target`, expects `message`, and that nothing moved.
void expect_load_refused(const lawn::detail::schedule::SegmentSchedule& saved,
                         lawn::detail::schedule::SegmentSchedule& target,
                         torch::optim::Optimizer& driven, const std::string& message) {
  std::stringstream file;
  torch::save(saved, file);
  const std::vector<double> base_lrs = target.base_lrs();
  const int64_t steps = target.steps();
  const double rate = lr(driven);
  EXPECT_EQ(lawn::testing::refusal([&] { torch::load(target, file); }), message);
  EXPECT_EQ(target.base_lrs(), base_lrs);
  EXPECT_EQ(target.steps(), steps);
  EXPECT_EQ(lr(driven), rate);
}

TEST_F(WarmupDecayTest, RefusesACheckpointOfOtherOptionsOrAnotherKind) {
  WarmupDecay saved(sgd_, WarmupDecayOptions().warmup_steps(2).total_steps(10).final_factor(0.1));
  saved.step();
  const std::string saved_text =
      "lawn::WarmupDecay(warmup_steps = 2, total_steps = 10, decay = linear, power = 1, "
      "final_factor = 0.1)";
  torch::optim::SGD other({torch::ones(3)}, torch::optim::SGDOptions(5));
  WarmupDecay longer(other, WarmupDecayOptions().warmup_steps(2).total_steps(11).final_factor(0.1));
  expect_load_refused(saved, longer, other,
                      "lawn::WarmupDecay: the checkpoint is of " + saved_text +
                          ", this schedule is lawn::WarmupDecay(warmup_steps = 2, total_steps = "
                          "11, decay = linear, power = 1, final_factor = 0.1); construct it with "
                          "the options of the checkpoint");
  WarmupDecay a_bit_higher(other, WarmupDecayOptions().warmup_steps(2).total_steps(10).final_factor(
                                      std::nextafter(0.1, 1.0)));
  expect_load_refused(saved, a_bit_higher, other,
                      "lawn::WarmupDecay: the checkpoint is of " + saved_text +
                          ", this schedule is lawn::WarmupDecay(warmup_steps = 2, total_steps = "
                          "10, decay = linear, power = 1, final_factor = 0.10000000000000002); "
                          "construct it with the options of the checkpoint");
  LAWNSchedule two_part(other, LAWNScheduleOptions().total_steps(10));
  expect_load_refused(
      saved, two_part, other,
      "lawn::LAWNSchedule: the checkpoint is of " + saved_text +
          ", this schedule is lawn::LAWNSchedule(free_steps = 0, total_steps = 10, warmup_steps = "
          "0, second_warmup_steps = 0, free_decay = none, free_final_factor = 0, decay = linear, "
          "power = 1, final_factor = 0); construct it with the options of the checkpoint");
}

TEST_F(WarmupDecayTest, RefusesACheckpointOfAnotherNumberOfGroups) {
  WarmupDecay saved(sgd_, WarmupDecayOptions().total_steps(10));
  torch::optim::SGD other({group_with_lr(1), group_with_lr(2)}, torch::optim::SGDOptions(1));
  WarmupDecay target(other, WarmupDecayOptions().total_steps(10));
  expect_load_refused(saved, target, other,
                      "lawn::WarmupDecay: the checkpoint has 1 parameter groups, the optimizer 2");
}

TEST_F(WarmupDecayTest, RefusesACheckpointOfBaseRatesThatNoScheduleIsMadeOn) {
  const auto options = WarmupDecayOptions().total_steps(10);
  WarmupDecay target(sgd_, options);
  torch::optim::SGD other({group_with_lr(1), group_with_lr(1)}, torch::optim::SGDOptions(1));
  WarmupDecay saved(other, options);
  other.add_param_group(group_with_lr(1));
  sgd_.add_param_group(group_with_lr(1));
  sgd_.add_param_group(group_with_lr(1));
  other.param_groups()[2].options().set_lr(std::nan(""));
  expect_load_refused(
      saved, target, sgd_,
      "lawn::WarmupDecay: expected a finite base rate >= 0 in each parameter group, "
      "got base rate nan in group 2 of the checkpoint; load one of a schedule that "
      "moves");
}

TEST_F(WarmupDecayTest, ResumesAFinishedRunWhenMadeBeforeTheOptimizersCheckpointIsLoaded) {
  const auto options = WarmupDecayOptions().total_steps(3);
  WarmupDecay schedule(sgd_, options);
  for (int step = 0; step < 3; ++step) {
    schedule.step();
  }
  ASSERT_EQ(lr(sgd_), 0);
  std::stringstream optimizer_file;
  std::stringstream schedule_file;
  torch::save(sgd_, optimizer_file);
  torch::save(schedule, schedule_file);

  torch::optim::SGD fresh({torch::ones(3)}, torch::optim::SGDOptions(5));
  WarmupDecay resumed(fresh, options);
  torch::load(fresh, optimizer_file);
  torch::load(resumed, schedule_file);
  EXPECT_EQ(lr(fresh), 0);
  EXPECT_EQ(resumed.steps(), 3);
  EXPECT_EQ(resumed.base_lrs(), std::vector<double>{kBase});
}

TEST_F(WarmupDecayTest, RefusesAnArchiveWithoutASchedule) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().total_steps(10));
  std::stringstream file;
  torch::save(sgd_, file);
  EXPECT_EQ(lawn::testing::refusal([&] { torch::load(schedule, file); }),
            "lawn::WarmupDecay: the archive holds no learning-rate schedule; load the one that was "
            "saved with torch::save(schedule, path)");
}

TEST_F(WarmupDecayTest, RefusesNumbersThatNoScheduleHasSaved) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().total_steps(10));
  schedule.step();
  const auto load = [&](int64_t steps, const std::vector<double>& rates, int64_t scheduled) {
    torch::serialize::OutputArchive archive;
    archive.write("schedule", c10::IValue(schedule.description()));
    archive.write("steps", c10::IValue(steps));
    archive.write("scheduled_groups", c10::IValue(scheduled));
    archive.write("base_lrs", c10::IValue(rates));
    std::stringstream file;
    archive.save_to(file);
    torch::load(schedule, file);
  };
  const std::vector<double> rates = {kBase};
  const double rate = lr(sgd_);
  using lawn::testing::expect_refusal;
  for (const int64_t steps : {int64_t{-1}, int64_t{-5}, int64_t{1} << 32}) {
    expect_refusal([&] { load(steps, rates, 1); }, "expected steps in [0, 4294967294], got");
  }
  for (const int64_t scheduled : {-1, 0, 2, 100000000}) {
    expect_refusal([&] { load(3, rates, scheduled); }, "expected scheduled_groups in [1, 1], got");
  }
  expect_refusal([&] { load(3, {std::nan("")}, 1); }, "got base rate nan in group 0");
  expect_refusal([&] { load(3, {}, 1); }, "the checkpoint has 0 parameter groups");
  EXPECT_EQ(schedule.steps(), 1);
  EXPECT_EQ(lr(sgd_), rate);
  load(3, rates, 1);
  EXPECT_EQ(schedule.steps(), 3);
}

TEST_F(WarmupDecayTest, AdvancesToAStepAsIfItHadMadeAllBefore) {
  const auto options = WarmupDecayOptions().warmup_steps(3).total_steps(10);
  WarmupDecay schedule(sgd_, options);
  torch::optim::SGD other({torch::ones(3)}, torch::optim::SGDOptions(kBase));
  WarmupDecay walked(other, options);
  for (int step = 0; step < 7; ++step) walked.step();
  schedule.advance_to(7);
  EXPECT_EQ(schedule.steps(), 7);
  EXPECT_EQ(lr(sgd_), lr(other));
  schedule.step();
  walked.step();
  EXPECT_EQ(lr(sgd_), lr(other));
  lawn::testing::expect_refusal([&] { schedule.advance_to(-1); }, "got -1");
  EXPECT_EQ(schedule.steps(), 8);
}

TEST_F(LAWNScheduleTest, RefusesALAWNThatWasLoadedWithoutIt) {
  const auto options = LAWNScheduleOptions().total_steps(20).warmup_steps(2);
  const auto make_lawn = [](const at::Tensor& weight) {
    return lawn::LAWN<torch::optim::SGD>(
        torch::optim::SGD({weight}, torch::optim::SGDOptions(kBase)), lawn::select({weight}),
        lawn::LAWNOptions().free_steps(4));
  };
  const auto make_weight = [] { return torch::ones(3).requires_grad_(); };
  auto lawn = make_lawn(make_weight());
  LAWNSchedule schedule(lawn, options);
  for (int step = 0; step < 6; ++step) {
    lawn.step();
    schedule.step();
  }
  std::stringstream file;
  torch::save(lawn, file);

  auto resumed = make_lawn(make_weight());
  LAWNSchedule anew(resumed, options);
  torch::load(resumed, file);
  resumed.step();
  const double rate = lr(resumed);
  lawn::testing::expect_refusal(
      [&] { anew.step(); },
      "lawn::LAWNSchedule: expected an optimizer with at most 1 steps at call 1 of step(), got one "
      "with 7");
  EXPECT_EQ(anew.steps(), 0);
  EXPECT_EQ(lr(resumed), rate);
  anew.advance_to(resumed.steps());
  lawn.step();
  schedule.step();
  EXPECT_EQ(lr(resumed), lr(lawn));
  resumed.step();
  anew.step();
}

// --- options ------------------------------------------------------------------------------------

TEST_F(WarmupDecayTest, RefusesOptionsOutOfRangeAndLeavesTheOptimizerAlone) {
  EXPECT_EQ(refusal(WarmupDecayOptions()),
            "lawn::WarmupDecay: total_steps must be > warmup_steps = 0, got 0");
  EXPECT_EQ(refusal(WarmupDecayOptions().warmup_steps(10).total_steps(5)),
            "lawn::WarmupDecay: total_steps must be > warmup_steps = 10, got 5");
  EXPECT_EQ(refusal(WarmupDecayOptions().warmup_steps(-1).total_steps(5)),
            "lawn::WarmupDecay: warmup_steps must be >= 0, got -1");
  EXPECT_EQ(refusal(WarmupDecayOptions().total_steps(int64_t{1} << 32)),
            "lawn::WarmupDecay: total_steps must be <= 4294967294, got 4294967296");
  EXPECT_EQ(refusal(WarmupDecayOptions().total_steps(5).power(0)),
            "lawn::WarmupDecay: power must be finite and > 0, got 0");
  EXPECT_EQ(
      refusal(WarmupDecayOptions().total_steps(5).power(std::numeric_limits<double>::infinity())),
      "lawn::WarmupDecay: power must be finite and > 0, got inf");
  EXPECT_EQ(refusal(WarmupDecayOptions().total_steps(5).final_factor(1.5)),
            "lawn::WarmupDecay: final_factor must be in [0, 1], got 1.5");
  EXPECT_EQ(refusal(WarmupDecayOptions().total_steps(5).final_factor(
                std::numeric_limits<double>::quiet_NaN())),
            "lawn::WarmupDecay: final_factor must be in [0, 1], got nan");
  EXPECT_EQ(lr(sgd_), kBase);
}

TEST_F(LAWNScheduleTest, RefusesOptionsOutOfRangeAndLeavesTheOptimizerAlone) {
  const auto valid = [] { return LAWNScheduleOptions().free_steps(10).total_steps(30); };
  EXPECT_EQ(refusal(valid().free_steps(-3)), "lawn::LAWNSchedule: free_steps must be >= 0, got -3");
  EXPECT_EQ(refusal(valid().second_warmup_steps(-1)),
            "lawn::LAWNSchedule: second_warmup_steps must be >= 0, got -1");
  EXPECT_EQ(refusal(valid().warmup_steps(11)),
            "lawn::LAWNSchedule: warmup_steps must be in [0, free_steps = 10], got 11");
  EXPECT_EQ(refusal(valid().warmup_steps(-1)),
            "lawn::LAWNSchedule: warmup_steps must be in [0, free_steps = 10], got -1");
  EXPECT_EQ(refusal(valid().total_steps(10)),
            "lawn::LAWNSchedule: total_steps must be > free_steps + second_warmup_steps = 10 + 0, "
            "got 10");
  EXPECT_EQ(refusal(valid().second_warmup_steps(20)),
            "lawn::LAWNSchedule: total_steps must be > free_steps + second_warmup_steps = 10 + 20, "
            "got 30");
  EXPECT_EQ(refusal(valid().second_warmup_steps(std::numeric_limits<int64_t>::max())),
            "lawn::LAWNSchedule: total_steps must be > free_steps + second_warmup_steps = 10 + "
            "9223372036854775807, got 30");
  EXPECT_EQ(refusal(valid().total_steps(std::numeric_limits<int64_t>::max())),
            "lawn::LAWNSchedule: total_steps must be <= 4294967294, got 9223372036854775807");
  EXPECT_EQ(refusal(valid().power(-1)), "lawn::LAWNSchedule: power must be finite and > 0, got -1");
  EXPECT_EQ(refusal(valid().free_final_factor(-0.5)),
            "lawn::LAWNSchedule: free_final_factor must be in [0, 1], got -0.5");
  EXPECT_EQ(refusal(valid().final_factor(2)),
            "lawn::LAWNSchedule: final_factor must be in [0, 1], got 2");
  EXPECT_EQ(lr(sgd_), kBase);
}

TEST_F(WarmupDecayTest, RefusesTheFactorOfANegativeStep) {
  WarmupDecay schedule(sgd_, WarmupDecayOptions().total_steps(5));
  EXPECT_EQ(lawn::testing::refusal([&] { schedule.factor(-1); }),
            "lawn::WarmupDecay: factor needs a step >= 0, got -1");
}

TEST_F(WarmupDecayTest, RefusesAnOptimizerWhoseOptionsHaveNoLearningRate) {
  struct NoRate : torch::optim::OptimizerCloneableOptions<NoRate> {};
  struct Bare : torch::optim::Optimizer {
    Bare() : Optimizer({torch::ones(1)}, std::make_unique<NoRate>()) {}
    torch::Tensor step(LossClosure /*closure*/) override { return {}; }
  };
  Bare bare;
  EXPECT_NE(lawn::testing::refusal([&] {
              WarmupDecay schedule(bare, WarmupDecayOptions().total_steps(5));
            }).find("get_lr"),
            std::string::npos);
}

TEST_F(WarmupDecayTest, PrintsItsOptionsWithEveryShapeByName) {
  const auto printed = [&](Decay decay) {
    std::ostringstream text;
    text << WarmupDecay(sgd_, WarmupDecayOptions().total_steps(5).decay(decay).power(1.0 / 3));
    return text.str();
  };
  EXPECT_EQ(printed(Decay::kNone),
            "lawn::WarmupDecay(warmup_steps = 0, total_steps = 5, decay = none, power = "
            "0.3333333333333333, final_factor = 0)");
  EXPECT_NE(printed(Decay::kLinear).find("decay = linear"), std::string::npos);
  EXPECT_NE(printed(Decay::kCosine).find("decay = cosine"), std::string::npos);
  EXPECT_NE(printed(Decay::kPolynomial).find("decay = polynomial"), std::string::npos);
}

}  // namespace
