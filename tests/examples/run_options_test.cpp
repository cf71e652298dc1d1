// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/run_options.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <string>
#include <vector>

#include "tests/support/refusal.h"

namespace {

using lawn::testing::expect_refusal;

/// Reads a command line as cifar10 does.
examples::RunOptions parsed(std::vector<std::string> arguments) {
  examples::RunOptions options;
  examples::Flags flags("program", "");
  options.add_training(flags);
  options.add_running(flags);
  arguments.insert(arguments.begin(), "program");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  options.parse(flags, static_cast<int>(argv.size()), argv.data());
  return options;
}

TEST(RunOptions, RefusesAScheduleOfLAWNWithoutStepsAfterItsWarmups) {
  for (const std::string with : {"--lawn", "--compare", "--two-part-schedule"}) {
    expect_refusal(
        [&] {
          parsed({"--warmup", "0.1", "--free-fraction", "0.9", with});
        },
        "--warmup 0.1 --free-fraction 0.9: LAWN's schedule warms up again after its "
        "free part; expected a sum below 1, got 1");
    parsed({"--warmup", "0.05", "--free-fraction", "0.9", with});
  }
  parsed({"--warmup", "0.1", "--free-fraction", "0.9"});
}

TEST(RunOptions, TakesSeedsThatTorchCanTell) {
  EXPECT_EQ(parsed({"--seed", "4294967295"}).seed, 4294967295);
  expect_refusal(
      [] {
        parsed({"--seed", "4294967296"});
      },
      "--seed: expected a whole number from 0 to 4294967295; got 4294967296");
}

TEST(RunOptions, FlushesSubnormalNumbersToZero) {
  struct Restored {
    ~Restored() { at::globalContext().setFlushDenormal(false); }
  } restored;
  if (!at::globalContext().setFlushDenormal(true)) GTEST_SKIP() << "this CPU cannot";
  at::globalContext().setFlushDenormal(false);
  const at::Tensor subnormal = torch::full({4}, 1e-40);
  ASSERT_TRUE((subnormal * 0.5).gt(0).all().item<bool>());
  examples::RunOptions().apply_to_torch();
  EXPECT_TRUE((subnormal * 0.5).eq(0).all().item<bool>());
}

}  // namespace
