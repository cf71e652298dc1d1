// SPDX-License-Identifier: Apache-2.0
#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/mpi.h>
#include <lawn/distributed/mpi/faults.h>
#include <lawn/distributed/mpi/polling.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/distributed/ranks.h"
#include "tests/support/refusal.h"

namespace {

using namespace lawn;

using lawn::detail::mpi::MpiFaults;
using lawn::detail::mpi::PollingPause;
using lawn::testing::refusal;
using std::chrono::milliseconds;

/// Rank 1 is at fault; the others are to name it. No test looks at a clock: one that must not wait
/// has a time limit that no run of the tests would see the end of.
class Faults : public lawn::testing::Ranks {
 protected:
  void SetUp() override {
    if (size() < 2) GTEST_SKIP() << "it takes two ranks for one to miss the other";
    ranks.gather("");  // all begin together, also where one process starts late
    begin(kTimeout, kAnswer);
    torch::manual_seed(1);
    model = torch::nn::Linear(3, 2);
  }
  void TearDown() override { group.reset(); }

  /// A group of its own, since it is of no use afterwards.
  void begin(milliseconds timeout, milliseconds answer) {
    group.reset();
    group.emplace(MpiOptions().timeout(timeout).answer_time(answer));
  }

  bool at_fault() const { return rank() == 1; }

  torch::Tensor loss() { return model->forward(torch::ones({4, 3})).square().mean(); }

  void step(DataParallel& parallel, torch::optim::SGD& optimizer,
            std::optional<int64_t> number = std::nullopt) {
    optimizer.zero_grad();
    parallel.backward(loss(), 4, number);
    optimizer.step();
  }

  template <class Action>
  void expect_named(const Action& action, const std::string& part) {
    const auto message = refusal(action);
    EXPECT_NE(message.find(part), std::string::npos) << "got: " << message;
  }

  /// Calls `action` with reports over a communicator of their own.
  template <class Action>
  void with_reports(const Action& action) {
    MPI_Comm comm = MPI_COMM_NULL;
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    {
      MpiFaults faults(comm);
      PollingPause pause;
      action(faults, pause);
      ranks.gather("");
    }
    MPI_Comm_free(&comm);
  }

  static constexpr milliseconds kTimeout{2000};
  /// Of which a rank that answers takes what a loaded machine needs.
  static constexpr milliseconds kAnswer{30000};
  static constexpr milliseconds kForEver{3600000};
  std::optional<MpiGroup> group;
  torch::nn::Linear model{nullptr};
};

TEST_F(Faults, ALostRankIsNamed) {
  begin(kTimeout, milliseconds(2000));
  const auto tensor = torch::ones({10});
  if (at_fault()) {
    ranks.gather("");  // the others have given up
    // When it comes after all, it learns that they are gone.
    expect_named([&] { group->sum_(tensor); }, "rank 1 came last: it has waited for ");
  } else {
    expect_named([&] { group->sum_(tensor); }, "no message from rank 1 for ");
    ranks.gather("");
  }
}

TEST_F(Faults, ALateRankThatAnswersIsNamedAsTheLast) {
  begin(milliseconds(200), kAnswer);
  if (at_fault()) std::this_thread::sleep_for(milliseconds(3500));  // others may begin 3.3 s later
  expect_named([&] { group->sum_(torch::ones({10})); }, "rank 1 came last");
}

TEST_F(Faults, AfterAnErrorEveryCollectiveFailsAtOnce) {
  begin(kForEver, kAnswer);
  if (at_fault()) group->fail("the disk is full");
  const auto first = refusal([&] { group->sum_(torch::ones({10})); });
  EXPECT_EQ(refusal([&] { group->sum_(torch::ones({10})); }), first);
  EXPECT_EQ(refusal([&] { group->gather("x"); }), first);
}

TEST_F(Faults, ARankThatFailsTellsTheOthersItsReasonAtOnce) {
  begin(kForEver, kAnswer);
  if (at_fault()) group->fail("the disk is full");
  expect_named([&] { group->sum_(torch::ones({10})); }, "rank 1 failed: the disk is full");
}

TEST_F(Faults, ARankThatFailsPrintsTheReasonBeforeTheOthersAreTold) {
  begin(kForEver, kAnswer);
  if (!at_fault()) {
    expect_named([&] { group->sum_(torch::ones({10})); }, "rank 1 failed: the disk is full");
    return;
  }
  struct Printed : c10::WarningHandler {
    void process(const c10::Warning& warning) override { text += warning.msg(); }
    std::string text;
  } printed;
  {
    const c10::WarningUtils::WarningHandlerGuard guard(&printed);
    group->fail("the disk is full");
    EXPECT_EQ(printed.text, "lawn::MpiGroup: rank 1 failed: the disk is full");
    group->fail("the disk is full");  // an error that is on its way out through several calls
  }
  EXPECT_EQ(printed.text, "lawn::MpiGroup: rank 1 failed: the disk is full");
}

TEST_F(Faults, ASilentRankIsNamedWithTheCollectiveAndStepInWhichItWasHeardLast) {
  begin(kTimeout, milliseconds(2000));
  DataParallel parallel(*model, *group);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  step(parallel, optimizer, 7);
  if (at_fault()) {
    ranks.gather("");  // the others have given up
    return;
  }
  const auto message = refusal([&] { group->sum_(torch::ones({10})); });
  ranks.gather("");
  EXPECT_TRUE(std::regex_search(
      message, std::regex("gave up in collective [0-9]+, all-reduce of 10 Float in step 7, after "
                          "[0-9]+ ms(, since another rank did)?: no message from rank 1 for [0-9]+ "
                          "ms, since collective [0-9]+, [a-z-]+ of [0-9]+ [A-Za-z]+ in step 7: it "
                          "is dead, hangs")))
      << message;
}

TEST_F(Faults, WhatARankHadCompletedBeforeItFailedComesToItsEnd) {
  begin(kForEver, kAnswer);
  const auto tensor = torch::full({3}, at_fault() ? 7 : 0);
  if (at_fault()) {
    group->broadcast_(tensor, 1);  // which waits for no one
    group->fail("the disk is full");
    ranks.gather("");
  } else {
    ranks.gather("");
    group->broadcast_(tensor, 1);
    EXPECT_TRUE(torch::equal(tensor, torch::full({3}, 7)));
    expect_named([&] { group->sum_(torch::ones({10})); }, "rank 1 failed: the disk is full");
  }
}

TEST_F(Faults, WhatARankHadCompletedBeforeItFailedEndsAlsoWhereOthersTellOfIt) {
  if (size() < 3) GTEST_SKIP() << "it takes a third rank to tell of it";
  with_reports([&](MpiFaults& faults, PollingPause& pause) {
    if (at_fault()) faults.send({true, "the disk is full", 0, 9, "", 9});
    while (!at_fault() && !faults.ends(9)) pause();
    if (rank() > 1) faults.send({false, "sum", 0, 9, "", faults.first()});
    ranks.gather("");  // all have sent
    bool ended = false;
    for (int poll = 0; poll < 100 && !at_fault(); ++poll, pause()) ended |= faults.ends(8);
    EXPECT_FALSE(ended) << "rank 1 had completed it";
    EXPECT_TRUE(at_fault() || faults.ends(9));
  });
}

TEST_F(Faults, ARankThatWaitsTooLongEndsWhateverTheOthersWaitFor) {
  if (size() < 3) GTEST_SKIP() << "there is no third rank";
  with_reports([&](MpiFaults& faults, PollingPause& pause) {
    if (at_fault()) faults.send({false, "sum", 2000, 9, "", faults.first()});
    while (!at_fault() && !faults.ends(8)) pause();
    EXPECT_EQ(faults.first(), 0);
  });
}

TEST_F(Faults, ARankThatLeavesByAnExceptionTellsTheOthers) {
  if (at_fault()) {
    try {
      const MpiGroup own = MpiGroup(MpiOptions().timeout(kTimeout).answer_time(kAnswer));
      throw std::runtime_error("no such file");
    } catch (const std::runtime_error&) {
    }
  } else {
    MpiGroup own(MpiOptions().timeout(kTimeout).answer_time(kAnswer));
    expect_named([&] { own.sum_(torch::ones({10})); }, "rank 1 failed: it ended by an exception");
  }
}

TEST_F(Faults, ARankThatEndsEarlierIsNamed) {
  if (at_fault()) {
    group.reset();  // says on its output that the others are not there
  } else {
    expect_named(
        [&] { group->sum_(torch::ones({10})); },
        size() == 2 ? "the end of the work" : "rank 1 is in collective 1, the end of the work");
  }
}

TEST_F(Faults, RanksThatDoDifferentThingsAreNamed) {
  const auto action = [&] {
    if (at_fault()) {
      group->broadcast_(torch::ones({3}), 0);
    } else {
      group->sum_(torch::ones({10}));
    }
  };
  if (size() == 2) {
    expect_named(action, "the ranks do different things, for example if one skips a step");
  } else {
    expect_named(action, "rank 1 is in collective 1, broadcast of 3 Float from rank 0, where ");
  }
}

/// Records are checked when the backward pass is over, as on a GPU.
struct ChecksLate {
  ChecksLate() { lawn::detail::distributed::checks_late = true; }
  ~ChecksLate() { lawn::detail::distributed::checks_late = false; }
};

TEST_F(Faults, ASkippedStepIsFoundAtOnceByItsNumber) {
  for (const bool late : {false, true}) {
    SCOPED_TRACE(late);
    std::optional<ChecksLate> checks_late;
    if (late) checks_late.emplace();
    begin(kForEver, kAnswer);
    DataParallel parallel(*model, *group);
    torch::optim::SGD optimizer(model->parameters(), 0.1);
    for (int64_t number = 0; number < 3; ++number) step(parallel, optimizer, number);
    const auto before = model->weight.clone();
    expect_named(
        [&] { step(parallel, optimizer, at_fault() ? 4 : 3); },
        size() == 2 ? "got rank 1 in step 4, rank 0 in step 3" : "got rank 1 in step 4, ranks 0");
    EXPECT_TRUE(torch::equal(model->weight, before));
  }
}

TEST_F(Faults, ASkippedStepWithoutNumbersIsFoundAtTheEnd) {
  const auto train = [&] {
    DataParallel parallel(*model, *group);
    torch::optim::SGD optimizer(model->parameters(), 0.1);
    for (int64_t number = 0; number < 4; ++number) {
      if (at_fault() && number == 1) continue;
      step(parallel, optimizer);
    }
  };
  if (at_fault()) {
    EXPECT_NO_THROW(train());
    group.reset();
  } else {
    expect_named(train, "the end of the work");
  }
}

TEST_F(Faults, ASkippedStepOfTheOptimizerIsFoundByTheWeights) {
  DataParallel parallel(*model, *group);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  step(parallel, optimizer);
  parallel.backward(loss(), 4);
  if (!at_fault()) optimizer.step();
  expect_named([&] { step(parallel, optimizer); }, size() == 2
                                                       ? "got others on rank 1 than on rank 0"
                                                       : "got others on rank 1 than on ranks 0");
}

/// Fails in the backward pass.
struct Thrower : torch::autograd::Function<Thrower> {
  static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& x) {
    return x.clone();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list&) {
    throw std::runtime_error("out of memory");
  }
};

TEST_F(Faults, ARankThatFailsInItsBackwardPassTellsTheOthers) {
  begin(kForEver, kAnswer);
  DataParallel parallel(*model, *group);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  step(parallel, optimizer);
  const auto value = at_fault() ? Thrower::apply(loss()) : loss();
  std::string message;
  try {
    parallel.backward(value, 4);
    ADD_FAILURE() << "expected an error";
  } catch (const c10::Error& error) {
    message = error.what_without_backtrace();
  } catch (const std::exception& error) {
    message = error.what();
  }
  EXPECT_NE(message.find(at_fault() ? "out of memory" : "rank 1 failed: out of memory"),
            std::string::npos)
      << message;
}

TEST_F(Faults, AParameterThatOneRankDoesNotUseIsNamedOnAllRanks) {
  torch::nn::Linear other(3, 2);
  torch::nn::Sequential both(model, other);
  DataParallel parallel(*both, *group);
  expect_named(
      [&] {
        const auto used = loss();
        const auto unused = other->forward(torch::ones({4, 3})).square().mean();
        parallel.backward(at_fault() ? used : used + unused, 4);
      },
      at_fault() ? "got none for 1.weight, 1.bias"
                 : "rank 1 failed: lawn::DataParallel: expected a gradient for every parameter");
}

}  // namespace
