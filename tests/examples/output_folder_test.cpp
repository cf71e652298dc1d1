// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/output_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"

namespace {

namespace fs = std::filesystem;
using examples::OutputFolder;
using lawn::testing::expect_refusal;

TEST(OutputFolder, IsMadeAndNamesItsProcessWhileItIsHeld) {
  const TemporaryFolder temporary;
  const fs::path folder = temporary.path() / "a" / "b";
  {
    const OutputFolder held(folder);
    std::ifstream file(folder / "run.lock");
    const std::string text(std::istreambuf_iterator<char>(file), {});
    EXPECT_EQ(text.find("process " + std::to_string(getpid()) + " on "), 0U) << text;
  }
  EXPECT_TRUE(fs::is_directory(folder));
  EXPECT_FALSE(fs::exists(folder / "run.lock"));
}

TEST(OutputFolder, IsRefusedToASecondRunAndFreeAfterTheFirst) {
  const TemporaryFolder temporary;
  std::optional<OutputFolder> first;
  first.emplace(temporary.path());
  for (int time = 0; time < 2; ++time) {  // a refusal does not take it from the first
    expect_refusal([&] { OutputFolder{temporary.path()}; },
                   "--out " + temporary.path().string() +
                       ": another run has this folder: process " + std::to_string(getpid()) +
                       " on ");
  }
  first.reset();
  EXPECT_NO_THROW(OutputFolder{temporary.path()});
  EXPECT_EQ(temporary.entries(), 0U);
}

TEST(OutputFolder, IsFreeAfterARunThatWasKilled) {
  const TemporaryFolder temporary;
  std::ofstream(temporary.path() / "run.lock") << "process 4194304000 on a host of a long name";
  const OutputFolder held(temporary.path());
  std::ifstream file(temporary.path() / "run.lock");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  EXPECT_EQ(text.find("process " + std::to_string(getpid()) + " on "), 0U) << text;
  EXPECT_EQ(text.find("of a long name"), std::string::npos) << text;
}

TEST(OutputFolder, IsRefusedWhereNothingCanBeWritten) {
  const TemporaryFolder temporary;
  std::ofstream(temporary.path() / "file") << "x";
  expect_refusal([&] { OutputFolder{temporary.path() / "file" / "out"}; },
                 "file/out: the folder cannot be made: Not a directory");
  fs::create_directories(temporary.path() / "run.lock");
  expect_refusal(
      [&] { OutputFolder{temporary.path()}; },
      temporary.path().string() + ": cannot be written to: Is a directory; name another folder");
}

}  // namespace
