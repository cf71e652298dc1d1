// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/atomic_file.h"

namespace examples {

/// Names and values of everything that decides the results of a run: flags, network, data.
using Settings = std::vector<std::pair<std::string, std::string>>;

/// "name value" of each setting, a line each.
inline std::string lines(const Settings& settings) {
  std::string text;
  for (const auto& [name, value] : settings) text += name + " " + value + "\n";
  return text;
}

/// "name is X there and Y here" for each setting in which two runs differ, or that one lacks.
inline std::vector<std::string> differences(const Settings& there, const Settings& here) {
  const auto value = [](const Settings& settings, const std::string& name) {
    const auto found = std::find_if(settings.begin(), settings.end(),
                                    [&](const auto& setting) { return setting.first == name; });
    return found == settings.end() ? std::string("not set") : found->second;
  };
  std::vector<std::string> found;
  const auto compare = [&](const std::string& name) {
    const std::string theirs = value(there, name);
    const std::string ours = value(here, name);
    const std::string text = name + " is " + theirs + " there and " + ours + " here";
    if (theirs != ours && std::find(found.begin(), found.end(), text) == found.end()) {
      found.push_back(text);
    }
  };
  for (const auto& setting : there) compare(setting.first);
  for (const auto& setting : here) compare(setting.first);
  return found;
}

/// Writes a checkpoint: the settings of the run, and what `fill` puts beside them. Atomically: see
/// write_atomically(), whose errors it throws.
inline void save_checkpoint(const std::filesystem::path& path, const Settings& settings,
                            const std::function<void(torch::serialize::OutputArchive&)>& fill) {
  torch::serialize::OutputArchive archive;
  c10::List<std::string> flat;
  for (const auto& [name, value] : settings) {
    flat.push_back(name);
    flat.push_back(value);
  }
  archive.write("settings", c10::IValue(flat));
  fill(archive);
  std::string bytes;
  archive.save_to([&bytes](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  write_atomically(path, bytes);
}

/// Opens a checkpoint of a run with the given settings.
/// @param device  where its tensors go
/// @throws c10::Error if the file is missing, cut off, not a checkpoint, or of a run with other
///         settings (names each that differs)
inline torch::serialize::InputArchive open_checkpoint(const std::filesystem::path& path,
                                                      const Settings& settings, at::Device device) {
  TORCH_CHECK(std::filesystem::is_regular_file(path), path.string(),
              ": there is no such checkpoint");
  torch::serialize::InputArchive archive;
  try {
    archive.load_from(path.string(), device);
  } catch (const c10::Error& error) {
    TORCH_CHECK(false, path.string(), ": not a checkpoint, or cut off (",
                std::filesystem::file_size(path), " bytes): ", error.what_without_backtrace());
  }
  c10::IValue value;
  TORCH_CHECK(archive.try_read("settings", value) && value.isList(), path.string(),
              ": not a checkpoint of this program: it holds no settings");
  const c10::List<c10::IValue> flat = value.toList();
  Settings there;
  for (size_t index = 0; index + 1 < flat.size(); index += 2) {
    there.emplace_back(flat.get(index).toStringRef(), flat.get(index + 1).toStringRef());
  }
  std::string text;
  for (const std::string& difference : differences(there, settings)) {
    text += (text.empty() ? "" : "; ") + difference;
  }
  TORCH_CHECK(text.empty(), path.string(), ": a checkpoint of another run: ", text);
  return archive;
}

}  // namespace examples
