// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/ranks.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <optional>
#include <string>
#include <vector>

#include "examples/apps/support/distributed.h"
#include "examples/apps/support/run_options.h"
#include "tests/support/refusal.h"

namespace {

using lawn::testing::expect_refusal;

struct SomeRank : examples::Ranks {
  SomeRank(int64_t rank, int64_t size) : rank_(rank), size_(size) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return size_; }

 private:
  int64_t rank_;
  int64_t size_;
};

TEST(Ranks, DivideSamplesIntoPartsThatFollowEachOtherAndDifferByOneAtMost) {
  for (int64_t size = 1; size <= 7; ++size) {
    for (int64_t samples = 0; samples <= 30; ++samples) {
      constexpr int64_t kBegin = 100;
      int64_t next = kBegin;
      for (int64_t rank = 0; rank < size; ++rank) {
        const examples::Part part = SomeRank(rank, size).part(kBegin, kBegin + samples);
        EXPECT_EQ(part.begin, next) << rank << " of " << size << ", " << samples;
        EXPECT_GE(part.size(), samples / size) << rank << " of " << size << ", " << samples;
        EXPECT_LE(part.size(), (samples + size - 1) / size)
            << rank << " of " << size << ", " << samples;
        next = part.end;
      }
      EXPECT_EQ(next, kBegin + samples) << size << ", " << samples;
    }
  }
}

TEST(Ranks, AloneAreOneProcessThatHasAll) {
  examples::Ranks& ranks = examples::alone();
  EXPECT_TRUE(ranks.is_root());
  EXPECT_EQ(ranks.size(), 1);
  EXPECT_EQ(ranks.part(3, 10).begin, 3);
  EXPECT_EQ(ranks.part(3, 10).end, 10);
  EXPECT_TRUE(ranks.any(true));
  EXPECT_FALSE(ranks.any(false));
  const auto tensor = torch::arange(3);
  ranks.sum_(tensor);
  EXPECT_TRUE(torch::equal(tensor, torch::arange(3)));
  const auto weight = torch::ones({2}, torch::requires_grad());
  ranks.backward(weight.sum(), 1, 0);
  EXPECT_TRUE(torch::equal(weight.grad(), torch::ones({2})));
}

TEST(Ranks, ShareTheCoresOfTheirMachine) {
  EXPECT_EQ(examples::threads_per_rank(/*of_torch=*/16, /*cores=*/16, /*ranks_here=*/1), 16);
  EXPECT_EQ(examples::threads_per_rank(16, 16, 3), 5);
  EXPECT_EQ(examples::threads_per_rank(2, 2, 4), 1) << "more ranks than cores";
  EXPECT_EQ(examples::threads_per_rank(1, 16, 2), 1) << "OMP_NUM_THREADS, or bound to a core";
}

struct Options : examples::RunOptions, examples::RankOptions {};

TEST(Ranks, AreRefusedByAProgramWithoutMpiAndRunItAloneUnlessAskedFor) {
  // The tests of the examples are such a program.
  examples::Session session;
  Options options;
  options.device = "cpu";
  const auto body = [](examples::Ranks& ranks, at::Device device) {
    EXPECT_EQ(ranks.size(), 1);
    EXPECT_TRUE(device.is_cpu());
    return 3;
  };
  EXPECT_EQ(session.run(options, body), 3);
  options.distributed = true;
  expect_refusal([&] { session.run(options, body); },
                 "--distributed: expected a program that was built with MPI, got one without; "
                 "install an MPI");
}

TEST(Ranks, TakeATimeLimitThatIsNoSettingOfTheRun) {
  examples::RankOptions options;
  examples::Flags flags("program", "trains.");
  options.add_ranks(flags);
  ASSERT_TRUE(flags.parse({"--distributed", "--timeout", "2.5"}));
  EXPECT_TRUE(options.distributed);
  EXPECT_EQ(options.timeout, 2.5);
  EXPECT_TRUE(flags.essential_values().empty());
  expect_refusal(
      [&] {
        flags.parse({"--timeout", "0"});
      },
      "--timeout: expected a number from 0.1 to 1e+06; got 0");
  expect_refusal(
      [&] {
        flags.parse({"--timeout", "soon"});
      },
      "--timeout: expected a number; got 'soon'");
}

}  // namespace
