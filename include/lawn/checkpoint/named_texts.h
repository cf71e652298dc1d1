// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <torch/serialize/input-archive.h>

#include <lawn/checkpoint/archive_file.h>
#include <lawn/checkpoint/entry.h>
#include <lawn/checkpoint/value_entry.h>

/// What a checkpoint says of itself: names with a text each.
namespace lawn::detail::checkpoint {

using NamedTexts = std::vector<std::pair<std::string, std::string>>;

/// Name and text in turn, as an archive holds them.
inline std::vector<std::string> flat(const NamedTexts& texts) {
  std::vector<std::string> all;
  for (const auto& [name, text] : texts) {
    all.push_back(name);
    all.push_back(text);
  }
  return all;
}

/// What `flat` has written under `key`.
/// @throws c10::Error if there is no such thing
inline NamedTexts read_texts(ArchiveFile& file, const char* key) {
  c10::IValue value;
  std::vector<std::string> all;
  const bool good = file.on(at::kCPU).try_read(key, value) &&
                    Packing<std::vector<std::string>>::unpack(value, all) && all.size() % 2 == 0;
  TORCH_CHECK(good, "lawn::Checkpoint: ", file.path().string(), ": not a checkpoint: it holds no ",
              key, "; nothing was changed");
  NamedTexts texts;
  for (std::size_t i = 0; i < all.size(); i += 2) texts.emplace_back(all[i], all[i + 1]);
  return texts;
}

/// The text of a name, or null.
inline const std::string* find(const NamedTexts& texts, const std::string& name) {
  for (const auto& [known, text] : texts) {
    if (known == name) return &text;
  }
  return nullptr;
}

/// Adds to `differences` each name whose text is another there, in the checkpoint, than here, in
/// the program, and each that one of them lacks.
/// @param verb    what having a name is called: "set", "added"
/// @param strict  whether a name that is there alone is a difference
inline void compare(const NamedTexts& there, const NamedTexts& here, const std::string& verb,
                    bool strict, Differences& differences) {
  for (const auto& [name, text] : here) {
    const std::string* theirs = find(there, name);
    const std::string said = theirs == nullptr ? "not " + verb : *theirs;
    if (said != text) {
      differences.push_back(c10::str(name, " is ", said, " there and ", text, " here"));
    }
  }
  for (const auto& [name, text] : there) {
    if (!strict || find(here, name) != nullptr) continue;
    differences.push_back(c10::str(name, " is ", text, " there and not ", verb, " here"));
  }
}

}  // namespace lawn::detail::checkpoint
