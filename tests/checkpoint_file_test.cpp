// SPDX-License-Identifier: Apache-2.0

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/checkpoint.h>
#include <lawn/write_atomically.h>

#include "tests/support/contents.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"

namespace {

namespace fs = std::filesystem;
using lawn::testing::contents;
using lawn::testing::expect_refusal;
using lawn::testing::FileSizeLimit;
using lawn::testing::refusal;

void put(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// A folder of its own for each test.
class FolderTest : public testing::Test {
 protected:
  std::size_t files() const { return temporary_.entries(); }

  TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

using WriteAtomically = FolderTest;
using CheckpointFile = FolderTest;

TEST_F(WriteAtomically, ReplacesTheOldContentsAndLeavesNoTemporary) {
  lawn::write_atomically(folder_ / "file", "old");
  lawn::write_atomically(folder_ / "file", std::string("new\0er", 6));
  EXPECT_EQ(contents(folder_ / "file"), std::string("new\0er", 6));
  EXPECT_EQ(files(), 1U);
}

TEST_F(WriteAtomically, KeepsTheOldContentsWhenTheDiskIsFull) {
  lawn::write_atomically(folder_ / "file", "old");
  {
    const FileSizeLimit limit(1000);
    expect_refusal(
        [&] { lawn::write_atomically(folder_ / "file", std::string(5000, 'x')); },
        "file: 5000 bytes could not be written: File too large (a limit of this process, "
        "ulimit -f); the file that was there is unchanged");
  }
  EXPECT_EQ(contents(folder_ / "file"), "old");
  EXPECT_EQ(files(), 1U);
}

TEST_F(WriteAtomically, LeavesNothingWhereAFirstFileCannotBeWritten) {
  const FileSizeLimit limit(1000);
  const std::string text =
      refusal([&] { lawn::write_atomically(folder_ / "file", std::string(5000, 'x')); });
  EXPECT_NE(text.find("could not be written: File too large"), std::string::npos) << text;
  EXPECT_EQ(text.find("unchanged"), std::string::npos) << text;
  EXPECT_EQ(files(), 0U);
}

TEST_F(WriteAtomically, RefusesAFolderThatDoesNotExist) {
  expect_refusal([&] { lawn::write_atomically(folder_ / "no" / "file", "x"); },
                 "could not be written: No such file or directory");
}

TEST_F(WriteAtomically, WritesIntoTheWorkingFolderToo) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  lawn::write_atomically("file", "text");
  fs::current_path(before);
  EXPECT_EQ(contents(folder_ / "file"), "text");
}

TEST_F(WriteAtomically, TakesOverWhatAKilledWriterHasLeft) {
  put(folder_ / "file.tmp", std::string(1000, 'x'));
  lawn::write_atomically(folder_ / "file", "text");
  EXPECT_EQ(contents(folder_ / "file"), "text");
  EXPECT_EQ(files(), 1U);
}

TEST_F(WriteAtomically, HasWritersOfOnePathWaitForEachOther) {
  const auto path = folder_ / "file";
  lawn::write_atomically(path, std::string(20000, 'a'));
  std::vector<std::thread> writers;
  for (const char letter : {'a', 'b', 'c'}) {
    writers.emplace_back([path, letter] {
      for (int turn = 0; turn < 20; ++turn) {
        lawn::write_atomically(path, std::string(20000 + 1000 * turn, letter));
      }
    });
  }
  for (int turn = 0; turn < 60; ++turn) {
    const std::string read = contents(path);
    EXPECT_GE(read.size(), 20000U);
    EXPECT_EQ(read.find_first_not_of(read.front()), std::string::npos);
  }
  for (auto& writer : writers) writer.join();
  EXPECT_EQ(files(), 1U);
}

/// A checkpoint of one tensor and one number.
struct Numbers {
  Numbers() { checkpoint.add("tensor", tensor).add("number", number); }

  at::Tensor tensor = torch::arange(20).to(torch::kFloat);
  int64_t number = 3;
  lawn::Checkpoint checkpoint;
};

TEST_F(CheckpointFile, IsAnArchiveThatLibTorchReads) {
  torch::nn::Linear layer(3, 2);
  lawn::Checkpoint().add("layer", layer).save(folder_ / "a.pt");
  torch::serialize::InputArchive archive;
  archive.load_from((folder_ / "a.pt").string());
  torch::serialize::InputArchive part;
  archive.read("layer", part);
  torch::nn::Linear other(3, 2);
  other->load(part);
  EXPECT_TRUE(torch::equal(other->weight, layer->weight));
}

TEST_F(CheckpointFile, ThatIsDamagedInAnyByteIsRefused) {
  Numbers numbers;
  numbers.checkpoint.save(folder_ / "a.pt");
  const std::string whole = contents(folder_ / "a.pt");
  numbers.tensor = torch::zeros({1});
  numbers.number = 0;
  for (std::size_t place = 0; place < whole.size(); place += 7) {
    std::string bytes = whole;
    bytes[place] = static_cast<char>(bytes[place] ^ 1 << place % 8);
    put(folder_ / "b.pt", bytes);
    const std::string text = refusal([&] { numbers.checkpoint.load(folder_ / "b.pt"); });
    EXPECT_NE(text.find("b.pt: "), std::string::npos) << text;
    EXPECT_TRUE(text.find("damaged") != std::string::npos ||
                text.find("not a checkpoint") != std::string::npos)
        << place << ": " << text;
  }
  EXPECT_EQ(numbers.number, 0);
  EXPECT_EQ(numbers.tensor.numel(), 1);
  numbers.checkpoint.load(folder_ / "a.pt");
  EXPECT_EQ(numbers.number, 3);
}

TEST_F(CheckpointFile, ThatIsCutOffAtAnyLengthIsRefused) {
  Numbers numbers;
  numbers.checkpoint.save(folder_ / "a.pt");
  const std::string whole = contents(folder_ / "a.pt");
  for (const std::size_t length : std::vector<std::size_t>{0, 1, 20, 100, whole.size() / 2,
                                                           whole.size() - 20, whole.size() - 1}) {
    put(folder_ / "b.pt", whole.substr(0, length));
    expect_refusal([&] { numbers.checkpoint.load(folder_ / "b.pt"); },
                   "b.pt: not a checkpoint, or cut off (" + std::to_string(length) + " bytes)");
  }
}

TEST_F(CheckpointFile, ThatIsMissingOrForeignIsRefused) {
  Numbers numbers;
  expect_refusal([&] { numbers.checkpoint.load(folder_ / "none.pt"); },
                 "none.pt: there is no such checkpoint");
  expect_refusal([&] { numbers.checkpoint.load(folder_); }, "there is no such checkpoint");
  torch::save(torch::ones({3}), (folder_ / "tensor.pt").string());
  expect_refusal([&] { numbers.checkpoint.load(folder_ / "tensor.pt"); },
                 "tensor.pt: not a checkpoint");
}

TEST_F(CheckpointFile, SurvivesAFullDisk) {
  Numbers numbers;
  numbers.checkpoint.save(folder_ / "a.pt");
  const std::string before = contents(folder_ / "a.pt");
  {
    const FileSizeLimit limit(1000);
    expect_refusal([&] { numbers.checkpoint.save(folder_ / "a.pt"); },
                   "a.pt: " + std::to_string(before.size()) + " bytes could not be written");
  }
  EXPECT_EQ(contents(folder_ / "a.pt"), before);
  EXPECT_EQ(files(), 1U);
}

TEST_F(CheckpointFile, OfAViewHoldsWhatItShowsAlone) {
  const at::Tensor large = torch::ones({100000});
  at::Tensor view = large.slice(0, 10, 20);
  lawn::Checkpoint().add("view", view).save(folder_ / "a.pt");
  EXPECT_LT(fs::file_size(folder_ / "a.pt"), 10000U);
}

}  // namespace
