// SPDX-License-Identifier: Apache-2.0
#include <lawn/distributed/mpi/reports.h>

#include <chrono>
#include <map>
#include <string>

#include <gtest/gtest.h>

namespace {

using lawn::detail::mpi::MpiFindings;
using lawn::detail::mpi::MpiReport;

using Reports = std::map<int, MpiReport>;

/// What rank 0 of three says.
std::string findings(const Reports& reports) {
  return MpiFindings(reports, /*rank=*/0, /*size=*/3, std::chrono::milliseconds(2000)).text();
}

MpiReport waits(const std::string& place, int64_t milliseconds, int64_t number = 5,
                const std::string& before = "barrier") {
  return {false, place, milliseconds, number, before};
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(MpiReport, ComesOutOfItsBytesAsItWas) {
  for (const MpiReport& report : {MpiReport{true, "no such file", 0, 7, "barrier", 7},
                                  MpiReport{false, "sum of 3", 12000, int64_t{1} << 40, ""},
                                  MpiReport{false, std::string("a\0b", 3), -1, 0, "c"}}) {
    const MpiReport got = MpiReport::from(report.bytes());
    EXPECT_EQ(got.failed, report.failed);
    EXPECT_EQ(got.place, report.place);
    EXPECT_EQ(got.milliseconds, report.milliseconds);
    EXPECT_EQ(got.number, report.number);
    EXPECT_EQ(got.before, report.before);
    EXPECT_EQ(got.first, report.first);
  }
}

TEST(MpiFindings, NameAFailureBeforeAllElse) {
  EXPECT_EQ(findings({{0, waits("sum", 3)}, {2, {true, "the disk is full", 0, 4, ""}}}),
            "rank 2 failed: the disk is full");
}

TEST(MpiFindings, SaySinceWhenASilentRankIsSilentAndWhatThatCanMean) {
  EXPECT_EQ(findings({{0, waits("sum", 12000)}, {2, waits("sum", 12000)}}),
            "no message from rank 1 for 14000 ms, since collective 4, barrier: it is dead, hangs "
            "or is busy with something else, or the link to it is down");
  EXPECT_EQ(findings({{0, waits("sum", 12000, 1, "")}}),
            "no message from ranks 1 and 2 for 14000 ms, and none before: each of them is dead, "
            "hangs or is busy with something else, or the link to each of them is down");
}

TEST(MpiFindings, BlameNoRankWhereAllHaveWaitedFromTheBeginning) {
  const std::string text =
      findings({{0, waits("sum", 12000)}, {1, waits("sum", 11999)}, {2, waits("sum", 12000)}});
  EXPECT_EQ(text,
            "all ranks are in it, rank 1 for 11999 ms, rank 2 for 12000 ms: none of them came "
            "late, and messages between them were lost or are late");
  EXPECT_EQ(text.find("came last"), std::string::npos);
}

TEST(MpiFindings, NameTheRankThatCameWhenTheOthersHadGivenUp) {
  EXPECT_EQ(findings({{0, waits("sum", 12000)}, {1, waits("sum", 11000)}, {2, waits("sum", 0)}}),
            "rank 2 came last: it has waited for 0 ms, rank 0 for 12000 ms: give a longer timeout "
            "if that is how it should be");
}

TEST(MpiFindings, BlameNoRankWhereOneLacksTheEndOfACollectiveThatOthersCompleted) {
  const std::string text = findings({{0, waits("sum of 10", 12000)},
                                     {1, waits("sum of 20", 11990, 6, "sum of 10")},
                                     {2, waits("sum of 20", 11980, 6, "sum of 10")}});
  EXPECT_EQ(text,
            "rank 0 waits in collective 5, sum of 10, which ranks 1 and 2 have completed: messages "
            "to rank 0 were lost or are late");
}

TEST(MpiFindings, TellRanksThatDoDifferentThingsFromLostMessages) {
  for (const MpiReport& other :
       {waits("broadcast", 12000), waits("sum of 20", 12000, 6, "broadcast"),
        waits("sum of 20", 12000, 7, "sum of 10")}) {
    const std::string text =
        findings({{0, waits("sum of 10", 12000)}, {1, waits("sum of 10", 12000)}, {2, other}});
    expect_part(text, "rank 2 is in collective " + std::to_string(other.number) + ", " +
                          other.place + ", where ranks 0 and 1 are in collective 5, sum of 10");
    expect_part(text, ": the ranks do different things, for example if one skips a step");
  }
}

}  // namespace
