// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/flags.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/refusal.h"

namespace {

class FlagsTest : public testing::Test {
 protected:
  FlagsTest() : flags_("program", "does something.") {
    flags_.add("epochs", &epochs_, "passes over the data").range(1, 100);
    flags_.add("lr", &rate_, "learning rate").range(0, 10);
    flags_.add("network", &network_, "what to train").choices({"vgg", "resnet20"});
    flags_.add("augment", &augment_, "crop and flip");
    flags_.add("out", &out_, "folder").incidental();
  }

  /// What parse() says against a command line; "" if nothing.
  std::string refusal(const std::vector<std::string>& arguments) {
    try {
      flags_.parse(arguments);
    } catch (const c10::Error& error) {
      return error.what_without_backtrace();
    }
    return "";
  }

  int64_t epochs_ = 20;
  double rate_ = 0.001;
  std::string network_ = "vgg";
  bool augment_ = false;
  std::string out_ = "out";
  examples::Flags flags_;
};

TEST_F(FlagsTest, ReadsEachTypeWithASpaceOrAnEqualsSign) {
  ASSERT_TRUE(flags_.parse({"--epochs", "7", "--lr=0.25", "--network", "resnet20", "--out=a b"}));
  EXPECT_EQ(epochs_, 7);
  EXPECT_EQ(rate_, 0.25);
  EXPECT_EQ(network_, "resnet20");
  EXPECT_EQ(out_, "a b");
}

TEST_F(FlagsTest, KeepsDefaultsOfFlagsThatAreNotGiven) {
  ASSERT_TRUE(flags_.parse(std::vector<std::string>{}));
  EXPECT_EQ(epochs_, 20);
  EXPECT_EQ(network_, "vgg");
}

TEST_F(FlagsTest, TurnsASwitchOnAndOffInEverySpelling) {
  for (const auto& on : std::vector<std::vector<std::string>>{
           {"--augment"}, {"--augment", "on"}, {"--augment=true"}}) {
    augment_ = false;
    ASSERT_TRUE(flags_.parse(on));
    EXPECT_TRUE(augment_) << on.front();
  }
  for (const auto& off : std::vector<std::vector<std::string>>{
           {"--no-augment"}, {"--augment", "off"}, {"--augment=false"}}) {
    augment_ = true;
    ASSERT_TRUE(flags_.parse(off));
    EXPECT_FALSE(augment_) << off.front();
  }
}

TEST_F(FlagsTest, ASwitchDoesNotSwallowTheFlagAfterIt) {
  ASSERT_TRUE(flags_.parse({"--augment", "--epochs", "3"}));
  EXPECT_TRUE(augment_);
  EXPECT_EQ(epochs_, 3);
}

TEST_F(FlagsTest, NamesTheNearestFlagForAnUnknownOne) {
  EXPECT_EQ(refusal({"--epoch", "3"}),
            "program: unknown flag --epoch; did you mean --epochs?; --help lists all flags");
  EXPECT_EQ(refusal({"--netwrok=vgg"}),
            "program: unknown flag --netwrok; did you mean --network?; --help lists all flags");
}

TEST_F(FlagsTest, NamesNoFlagWhereNoneIsNear) {
  EXPECT_EQ(refusal({"--quantise"}), "program: unknown flag --quantise; --help lists all flags");
}

TEST_F(FlagsTest, RefusesWhatIsNotAFlag) {
  EXPECT_NE(refusal({"20"}).find("expected a flag such as --epochs, got '20'"), std::string::npos);
}

TEST_F(FlagsTest, RefusesAMissingValue) {
  EXPECT_EQ(refusal({"--epochs"}), "--epochs: a value is missing");
  EXPECT_EQ(refusal({"--epochs", "--augment"}), "--epochs: a value is missing");
}

TEST_F(FlagsTest, RefusesAValueOfTheWrongType) {
  EXPECT_EQ(refusal({"--epochs", "many"}), "--epochs: expected a whole number; got 'many'");
  EXPECT_EQ(refusal({"--epochs", "2.5"}), "--epochs: expected a whole number; got '2.5'");
  EXPECT_EQ(refusal({"--lr", "fast"}), "--lr: expected a number; got 'fast'");
  EXPECT_EQ(refusal({"--lr="}), "--lr: expected a number; got ''");
  EXPECT_EQ(refusal({"--augment=maybe"}), "--augment: expected on or off; got 'maybe'");
}

TEST_F(FlagsTest, RefusesAValueOutOfRange) {
  EXPECT_EQ(refusal({"--epochs", "0"}), "--epochs: expected a whole number from 1 to 100; got 0");
  EXPECT_EQ(refusal({"--lr", "-1"}), "--lr: expected a number from 0 to 10; got -1");
  EXPECT_EQ(refusal({"--lr", "nan"}), "--lr: expected a number from 0 to 10; got nan");
  EXPECT_EQ(refusal({"--network", "alexnet"}),
            "--network: expected one of vgg, resnet20; got 'alexnet'");
}

TEST_F(FlagsTest, TakesATinyNumberAndRefusesAHugeOne) {
  ASSERT_TRUE(flags_.parse({"--lr", "5e-324"}));
  EXPECT_EQ(rate_, 5e-324);
  EXPECT_EQ(refusal({"--lr", "1e999"}), "--lr: expected a number from 0 to 10; got 1e999");
}

TEST_F(FlagsTest, KeepsWholeNumbersThatADoubleCannotHold) {
  int64_t seed = 0;
  examples::Flags flags("program", "");
  flags.add("seed", &seed, "");
  ASSERT_TRUE(flags.parse({"--seed", "9007199254740993"}));  // 2^53 + 1
  EXPECT_EQ(seed, 9007199254740993);
}

TEST_F(FlagsTest, NamesTheRangeForAWholeNumberThatItsTypeCannotHold) {
  EXPECT_EQ(refusal({"--epochs", "99999999999999999999"}),
            "--epochs: expected a whole number from 1 to 100; got 99999999999999999999");
  int64_t seed = 0;
  examples::Flags flags("program", "");
  flags.add("seed", &seed, "").range(0, 4294967295);
  flags.add("any", &seed, "");
  lawn::testing::expect_refusal(
      [&] {
        flags.parse({"--seed", "4294967296"});
      },
      "--seed: expected a whole number from 0 to 4294967295; got 4294967296");
  lawn::testing::expect_refusal([&] { flags.parse({"--any=-9223372036854775809"}); },
                                "--any: expected a whole number from -9223372036854775808 to "
                                "9223372036854775807; got -9223372036854775809");
}

TEST_F(FlagsTest, WritesNumbersSoThatTheyReadBackTheSame) {
  for (const std::string text : {"0.001", "1e-05", "0.1", "0.05", "0.999", "1e+06", "5", "0"}) {
    EXPECT_EQ(examples::number_text(std::stod(text)), text);
  }
  EXPECT_EQ(examples::number_text(0.12345678), "0.12345678");
  for (const double number : {1.0 / 3, 1e9 + 1, 0.1 + 0.2, 1e-3 + 1e-9, 5e-324}) {
    EXPECT_EQ(std::strtod(examples::number_text(number).c_str(), nullptr), number);
  }
  ASSERT_TRUE(flags_.parse({"--lr", "0.01000001"}));
  EXPECT_EQ(flags_.essential_values()[1].second, "0.01000001");
}

TEST_F(FlagsTest, HelpShowsEveryFlagWithItsDefault) {
  EXPECT_FALSE(flags_.parse({"--epochs", "7", "--help"}));
  const std::string help = flags_.help();
  EXPECT_NE(help.find("--epochs N                    passes over the data [20]"), std::string::npos)
      << help;
  EXPECT_NE(help.find("--network vgg|resnet20        what to train [vgg]"), std::string::npos);
  EXPECT_NE(help.find("--augment | --no-augment      crop and flip [off]"), std::string::npos);
  EXPECT_NE(help.find("--help"), std::string::npos);
}

TEST_F(FlagsTest, EssentialValuesLeaveIncidentalFlagsOut) {
  ASSERT_TRUE(flags_.parse({"--epochs", "7", "--out", "elsewhere"}));
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"epochs", "7"}, {"lr", "0.001"}, {"network", "vgg"}, {"augment", "off"}};
  EXPECT_EQ(flags_.essential_values(), expected);
}

}  // namespace
