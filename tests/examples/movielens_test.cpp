// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/movielens.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "examples/apps/support/unseen_items.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"

namespace {

namespace fs = std::filesystem;
using examples::Interactions;
using lawn::testing::expect_refusal;

class MovieLens : public testing::Test {
 protected:
  /// Writes a file and gives back its path.
  fs::path file(const std::string& name, const std::string& text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }

  Interactions read(const std::string& text) const {
    return examples::read_ratings(file("u.data", text), "\t", "films");
  }

  TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

void expect_three_interactions(const Interactions& data) {
  EXPECT_EQ(data.user_count, 2);
  EXPECT_EQ(data.item_count, 3);
  EXPECT_TRUE(torch::equal(data.users, torch::tensor({1, 0, 1}, torch::kLong)));
  EXPECT_TRUE(torch::equal(data.items, torch::tensor({2, 0, 1}, torch::kLong)));
  EXPECT_TRUE(torch::equal(data.times, torch::tensor({881250949, 7, 8}, torch::kLong)));
}

TEST_F(MovieLens, IsReadFromTheFileOf100KAndNumberedWithoutGaps) {
  file("u.data", "196\t242\t3\t881250949\n5\t9\t1\t7\n196\t10\t5\t8\n");
  const Interactions data = examples::load_movielens(folder_);
  EXPECT_EQ(data.name, "MovieLens-100K");
  expect_three_interactions(data);
}

TEST_F(MovieLens, IsReadFromTheFileOf1MToo) {
  file("ml-1m/ratings.dat", "196::242::3::881250949\n5::9::1::7\n196::10::5::8\n");
  const Interactions data = examples::load_movielens(folder_);
  EXPECT_EQ(data.name, "MovieLens-1M");
  expect_three_interactions(data);
}

TEST_F(MovieLens, MayLackTheLastLineEndAndHaveTheLineEndsOfWindows) {
  expect_three_interactions(read("196\t242\t3\t881250949\r\n5\t9\t1\t7\r\n196\t10\t4.5\t8"));
}

TEST_F(MovieLens, MayEndInBlankLines) {
  const std::string lines = "196\t242\t3\t881250949\n5\t9\t1\t7\n196\t10\t5\t8";
  for (const std::string end : {"\n\n", "\n\n\n\n", "\r\n\r\n", "\n \n\t \r\n", "\n  "}) {
    SCOPED_TRACE(testing::PrintToString(end));
    expect_three_interactions(read(lines + end));
  }
}

TEST_F(MovieLens, MayBeginWithAByteOrderMark) {
  expect_three_interactions(
      read("\xEF\xBB\xBF"
           "196\t242\t3\t881250949\n5\t9\t1\t7\n196\t10\t5\t8\n"));
}

TEST_F(MovieLens, RefusesABlankLineBetweenOthersAndALastFieldThatIsMissing) {
  expect_refusal([&] { read("1\t2\t3\t4\n\n1\t5\t3\t4\n\n"); }, "u.data:2: expected user");
  expect_refusal([&] { read("\n1\t2\t3\t4\n"); }, "u.data:1: expected user");
  expect_refusal([&] { read("1\t2\t3\t4\n1\t5\t3\t\n\n"); },
                 "u.data:2: expected a number as time, got ''");
}

TEST_F(MovieLens, RefusesALineThatIsTooShortOrTooLong) {
  expect_refusal([&] { read("1\t2\t3\t4\n1\t5\t3\n"); },
                 "u.data:2: expected user<tab>item<tab>rating<tab>time, got 3 fields in '1\t5\t3'");
  expect_refusal([&] { read("1\t2\t3\t4\t5\n"); }, "u.data:1: expected user<tab>item");
  expect_refusal(
      [&] { examples::read_ratings(file("ratings.dat", "1\t2\t3\t4\n"), "::", "films"); },
      "ratings.dat:1: expected user::item::rating::time, got 1 field in");
}

TEST_F(MovieLens, RefusesWhatIsNoNumber) {
  expect_refusal([&] { read("1\t2\t3\t4\nx1\t2\t3\t4\n"); },
                 "u.data:2: expected a number as user, got 'x1'");
  expect_refusal([&] { read("1\t2.5\t3\t4\n"); }, "u.data:1: expected a number as item, got '2.5'");
  expect_refusal([&] { read("1\t2\t\t4\n"); }, "u.data:1: expected a number as rating, got ''");
  expect_refusal([&] { read("1\t2\t3\t99999999999999999999\n"); },
                 "expected a number as time, got '99999999999999999999'");
}

TEST_F(MovieLens, RefusesAnEmptyFileAndARatingGivenTwice) {
  for (const char* text : {"", "\n\r\n", "\xEF\xBB\xBF\n"}) {
    expect_refusal(
        [&] { read(text); },
        "u.data: the file is empty; expected lines of user<tab>item<tab>rating<tab>time");
  }
  expect_refusal([&] { read("4\t2\t3\t4\n4\t9\t3\t5\n4\t9\t1\t6\n"); },
                 "u.data: user 4 takes item 9 more than once");
}

TEST_F(MovieLens, NamesUsersInMessagesAsTheFileDoes) {
  const Interactions data = read("7\t1\t3\t1\n7\t2\t3\t2\n7\t5\t3\t3\n9\t2\t3\t4\n");
  expect_refusal([&] { examples::leave_one_out(data, false); }, "films: user 9 has 1 interactions");
  expect_refusal([&] { examples::leave_one_out(data.to(at::kCPU), true); }, "films: user 9 has 1");
  expect_refusal([&] { examples::UnseenItems all(data); }, "films: user 7 has taken all 3 items");
  const Interactions more = read("7\t1\t3\t1\n7\t2\t3\t2\n9\t2\t3\t4\n9\t5\t3\t4\n9\t6\t3\t4\n");
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(0);
  const examples::UnseenItems unseen(examples::leave_one_out(more, false).train);
  expect_refusal([&] { unseen.draw_distinct(3, generator); }, "user 9 has not taken 2 items only");
}

TEST_F(MovieLens, RefusesAFileThatIsTooLargeBeforeItReadsIt) {
  fs::resize_file(file("u.data", "1\t2\t3\t4\n"), 100'000'000'000);
  expect_refusal([&] { examples::load_movielens(folder_); },
                 "u.data: too large: expected at most 1073741824 bytes, got 100000000000; all of "
                 "them would be kept in memory");
}

TEST_F(MovieLens, SaysWhereItLookedAndWhatToDoWhenItIsMissing) {
  const std::string text =
      lawn::testing::refusal([&] { examples::load_movielens(folder_ / "nowhere"); });
  for (const std::string part :
       {"MovieLens: neither u.data nor ratings.dat in ", "nowhere/ml-100k or ", "nowhere/ml-1m; ",
        "unpack ml-100k.zip or ml-1m.zip from https://grouplens.org/datasets/movielens",
        "let --root name the folder"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\nnot in: " << text;
  }
}

}  // namespace
