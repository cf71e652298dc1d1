// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "examples/apps/support/binary_file.h"

namespace examples {

/// A text as numbers: its set of characters, and the one at each place. A character is a byte, so
/// that one of UTF-8 beyond ASCII counts as several.
struct Text {
  std::string name;        ///< for tables and messages
  at::Tensor tokens;       ///< int64 [N], each in [0, characters.size())
  std::string characters;  ///< that occur, in ascending order of their bytes

  int64_t size() const { return tokens.size(0); }
  int64_t vocabulary() const { return static_cast<int64_t>(characters.size()); }

  /// The part [begin, end).
  Text slice(int64_t begin, int64_t end) const {
    return {name, tokens.slice(0, begin, end), characters};
  }
  Text to(at::Device device) const { return {name, tokens.to(device), characters}; }
};

/// The text that bytes are.
inline Text make_text(std::string name, const std::vector<uint8_t>& bytes) {
  const at::Tensor all = byte_tensor(bytes.data(), {static_cast<int64_t>(bytes.size())});
  const at::Tensor occurs = all.to(at::kLong).bincount(/*weights=*/{}, 256).gt(0);
  const at::Tensor place = occurs.to(at::kLong).cumsum(0) - 1;
  std::string characters;
  for (int byte = 0; byte < 256; ++byte) {
    if (occurs[byte].item<bool>()) characters += static_cast<char>(byte);
  }
  return {std::move(name), place.index_select(0, all.to(at::kLong)), std::move(characters)};
}

/// The bytes of a file, unpacked if it is gzipped.
/// @throws c10::Error as read_file() does
inline Text load_text(const std::filesystem::path& path) {
  return make_text(path.filename().string(), read_file(path));
}

/// What is trained on, and what is not.
struct TextSplit {
  Text train;
  Text test;

  TextSplit to(at::Device device) const { return {train.to(device), test.to(device)}; }
};

/// The last tenth of a text is held out. For choosing learning rates and the like, `validation`
/// holds out the tenth before it, and leaves the last, that of the test, out altogether.
/// @param context  characters that a network sees at once
/// @throws c10::Error if a part does not hold `context` characters and the next one
inline TextSplit hold_out_end(const Text& text, bool validation, int64_t context) {
  const int64_t tenth = text.size() / 10;
  const int64_t end = text.size() - (validation ? tenth : 0);
  TORCH_CHECK(tenth > context, text.name, ": ", text.size(),
              " characters, of which a tenth is held out; expected at least ", 10 * (context + 1),
              " for a context of ", context);
  return {text.slice(0, end - tenth), text.slice(end - tenth, end)};
}

}  // namespace examples
