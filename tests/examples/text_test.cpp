// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/text.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "examples/apps/support/generated_text.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"

namespace {

examples::Text text_of(const std::string& bytes) {
  return examples::make_text("text", std::vector<uint8_t>(bytes.begin(), bytes.end()));
}

std::string characters_of(const examples::Text& text) {
  std::string characters;
  for (int64_t place = 0; place < text.size(); ++place) {
    characters += text.characters[static_cast<size_t>(text.tokens[place].item<int64_t>())];
  }
  return characters;
}

TEST(Text, NumbersTheBytesThatOccurInAscendingOrder) {
  const auto text = text_of("banana\n");
  EXPECT_EQ(text.characters, "\nabn");
  EXPECT_EQ(text.vocabulary(), 4);
  EXPECT_TRUE(torch::equal(text.tokens, torch::tensor({2, 1, 3, 1, 3, 1, 0}, torch::kLong)));
  const std::string beyond_ascii = "na\xc3\xafve \xff\x01";
  EXPECT_EQ(characters_of(text_of(beyond_ascii)), beyond_ascii);
}

TEST(Text, IsLoadedFromAFileUnderItsName) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "book.txt", std::ios::binary) << "In the beginning\r\n";
  const auto text = examples::load_text(folder.path() / "book.txt");
  EXPECT_EQ(text.name, "book.txt");
  EXPECT_EQ(characters_of(text), "In the beginning\r\n");
  lawn::testing::expect_refusal([&] { examples::load_text(folder.path() / "none.txt"); },
                                "none.txt: cannot be read: No such file");
}

TEST(Text, IsRefusedBeforeItIsReadWhereItIsTooLarge) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "sparse.txt", std::ios::binary) << "In the beginning";
  std::filesystem::resize_file(folder.path() / "sparse.txt", 100'000'000'000);
  lawn::testing::expect_refusal(
      [&] { examples::load_text(folder.path() / "sparse.txt"); },
      "sparse.txt: too large: expected at most 1073741824 bytes, got 100000000000");
}

TEST(Text, IsRefusedUnderTheNameOfAGzippedFile) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "book.txt.gz", std::ios::binary) << "In the beginning";
  lawn::testing::expect_refusal([&] { examples::load_text(folder.path() / "book.txt.gz"); },
                                "book.txt.gz: is not gzipped, as its name says; if it is unpacked "
                                "already, rename it to book.txt");
}

TEST(Text, HoldsItsLastTenthOutOrTheOneBeforeIt) {
  std::string bytes;
  for (int place = 0; place < 200; ++place) bytes += static_cast<char>('a' + place / 20);
  const auto test = examples::hold_out_end(text_of(bytes), false, 5);
  EXPECT_EQ(characters_of(test.train), bytes.substr(0, 180));
  EXPECT_EQ(characters_of(test.test), bytes.substr(180));
  const auto validation = examples::hold_out_end(text_of(bytes), true, 5);
  EXPECT_EQ(characters_of(validation.train), bytes.substr(0, 160));
  EXPECT_EQ(characters_of(validation.test), bytes.substr(160, 20));
  EXPECT_EQ(validation.train.vocabulary(), 10);  // of the whole: a network fits both
  lawn::testing::expect_refusal(
      [&] { examples::hold_out_end(text_of(bytes), false, 20); },
      "text: 200 characters, of which a tenth is held out; expected at least 210 for a context of "
      "20");
}

TEST(GeneratedText, IsTheSameForOneSeedAndAnotherForAnother) {
  examples::GeneratedTextOptions options;
  options.characters = 3000;
  const auto text = examples::generate_text(options);
  EXPECT_GE(text.size(), 3000);
  EXPECT_LT(text.size(), 3020);
  EXPECT_EQ(characters_of(examples::generate_text(options)), characters_of(text));
  options.seed = 1;
  EXPECT_NE(characters_of(examples::generate_text(options)), characters_of(text));
}

TEST(GeneratedText, IsAChainOfWordsWithFewFollowersEach) {
  examples::GeneratedTextOptions options;
  examples::GeneratedLanguage language(options);
  std::istringstream words(language.draw(100'000));
  std::map<std::string, std::map<std::string, int64_t>> followers;
  std::string last, word;
  while (words >> word) {
    EXPECT_LE(word.size(), static_cast<size_t>(options.longest) + 1) << word;
    if (!last.empty()) ++followers[last][word];
    last = word;
  }
  EXPECT_LE(followers.size(), static_cast<size_t>(options.words));
  double nats = 0;
  double all = 0;
  for (const auto& [before, after] : followers) {
    double count = 0;
    for (const auto& [next, times] : after) count += static_cast<double>(times);
    for (const auto& [next, times] : after) {
      nats -= static_cast<double>(times) * std::log(static_cast<double>(times) / count);
    }
    all += count;
  }
  // Two words may be spelt alike, and two followers may be one.
  EXPECT_NEAR(nats / all, language.entropy(), 0.15);
}

TEST(GeneratedText, RefusesMoreFollowersThanWords) {
  examples::GeneratedTextOptions options;
  options.words = 5;
  lawn::testing::expect_refusal([&] { examples::generate_text(options); },
                                "generated text: expected more words than followers");
}

}  // namespace
