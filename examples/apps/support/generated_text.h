// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "examples/apps/support/text.h"

namespace examples {

/// How a text is drawn when there is no file at hand.
struct GeneratedTextOptions {
  int64_t characters = 200'000;  ///< about that many: the last word is whole
  int64_t words = 200;           ///< of the language
  int64_t followers = 5;         ///< words that may come next after a word
  int64_t longest = 8;           ///< letters of a word, of which each has at least two
  uint64_t seed = 0;
};

/// A language whose sentences are a Markov chain of words. Each word is a string of letters, drawn
/// once, and has `followers` words that may come next, the k-th with a chance in proportion to 1/k.
/// One word in eight ends a sentence: it is followed by a full stop. The best possible prediction
/// is known:
///   entropy() nats a word are new at best, over letters_per_word() characters
///
/// All is drawn from one CPU generator: equal seeds give equal texts on every machine, as far as
/// torch's generator does.
class GeneratedLanguage {
 public:
  /// @throws c10::Error for sizes out of range
  explicit GeneratedLanguage(const GeneratedTextOptions& options)
      : options_(options), generator_(at::make_generator<at::CPUGeneratorImpl>(options.seed)) {
    TORCH_CHECK(options.words > options.followers && options.followers > 0 && options.longest >= 2,
                "generated text: expected more words than followers, which are > 0, and words of 2 "
                "letters or more, got ",
                options.words, ", ", options.followers, " and ", options.longest);
    for (int64_t word = 0; word < options.words; ++word) {
      std::string letters;
      for (const int64_t letter : integers(26, 2 + integers(options.longest - 1, 1).front())) {
        letters += static_cast<char>('a' + letter);
      }
      words_.push_back(letters + (word % kWordsPerStop == 0 ? ". " : " "));
      followers_.push_back(integers(options.words, options.followers));
    }
    double sum = 0;
    for (int64_t k = 1; k <= options.followers; ++k) sum += 1 / static_cast<double>(k);
    for (int64_t k = 1; k <= options.followers; ++k) {
      chances_.push_back(1 / (static_cast<double>(k) * sum));
    }
  }

  /// The next words of the text, until there are `count` characters or more.
  std::string draw(int64_t count) {
    std::string text;
    while (static_cast<int64_t>(text.size()) < count) {
      text += words_[static_cast<size_t>(word_)];
      double left = at::rand({1}, generator_, at::TensorOptions(at::kDouble)).item<double>();
      size_t k = 0;
      while (k + 1 < chances_.size() && left >= chances_[k]) left -= chances_[k++];
      word_ = followers_[static_cast<size_t>(word_)][k];
    }
    return text;
  }

  /// In nats, of what follows a word, if its followers all differ (else less).
  double entropy() const {
    double sum = 0;
    for (const double chance : chances_) sum -= chance * std::log(chance);
    return sum;
  }

 private:
  static constexpr int64_t kWordsPerStop = 8;

  std::vector<int64_t> integers(int64_t bound, int64_t count) {
    const at::Tensor drawn = at::randint(bound, {count}, generator_, at::TensorOptions(at::kLong));
    const auto* first = drawn.const_data_ptr<int64_t>();
    return std::vector<int64_t>(first, first + count);
  }

  GeneratedTextOptions options_;
  at::Generator generator_;
  std::vector<std::string> words_;               ///< each with what parts it from the next
  std::vector<std::vector<int64_t>> followers_;  ///< of each word
  std::vector<double> chances_;                  ///< of the first follower, the second, ...
  int64_t word_ = 0;                             ///< that comes next
};

/// A text of a generated language.
inline Text generate_text(const GeneratedTextOptions& options) {
  const std::string text = GeneratedLanguage(options).draw(options.characters);
  return make_text("generated text", std::vector<uint8_t>(text.begin(), text.end()));
}

}  // namespace examples
