// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>
#include <lawn/version.h>
#include <lawn/write_atomically.h>
#include <torch/version.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <locale>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/history.h"
#include "examples/apps/support/settings.h"

namespace examples {

/// Named numbers, in the order in which they are to be read.
using Figures = std::vector<std::pair<std::string, double>>;

/// `text` between quotes, as JSON writes it.
inline std::string json_string(const std::string& text) {
  std::string quoted = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') {
      quoted += std::string("\\") + character;
    } else if (static_cast<unsigned char>(character) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(character));
      quoted += code;
    } else {
      quoted += character;
    }
  }
  return quoted + "\"";
}

/// A number that reads back as the same double; null where it is not finite, for which JSON has no
/// word.
inline std::string json_number(double value) {
  if (!std::isfinite(value)) return "null";
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text.precision(17);
  text << value;
  return text.str();
}

/// What a finished run leaves for other programs to read: how to repeat it, and what came out.
struct RunRecord {
  std::string program;  ///< "cifar10"
  std::string name;     ///< of the run, and of its files: "lawn-adam"
  Settings settings;    ///< of all flags that change what the run computes
  std::string device;   ///< "cpu" or "cuda:0"
  int64_t ranks = 1;    ///< that trained together
  double seconds = 0;   ///< of training
  Figures figures;      ///< at the end of the run

  /// As JSON: the fields above, the versions of lawn and torch, the threads of each rank's CPU, and
  /// all rows of `history`, column by column.
  std::string json(const History& history) const {
    std::string text = "{\n  \"program\": " + json_string(program);
    text += ",\n  \"run\": " + json_string(name);
    text += ",\n  \"settings\": {" + members(settings, json_string) + "}";
    text += ",\n  \"lawn\": " + json_string(LAWN_VERSION);
    text += ",\n  \"torch\": " + json_string(TORCH_VERSION);
    text += ",\n  \"device\": " + json_string(device);
    text += ",\n  \"ranks\": " + std::to_string(ranks);
    text += ",\n  \"threads\": " + std::to_string(at::get_num_threads());
    text += ",\n  \"seconds\": " + json_number(seconds);
    text += ",\n  \"figures\": {" + members(figures, json_number) + "}";
    text += ",\n  \"history\": {";
    for (size_t column = 0; column < history.columns().size(); ++column) {
      text += (column == 0 ? "\n    " : ",\n    ") + json_string(history.columns()[column]) + ": [";
      for (size_t row = 0; row < history.size(); ++row) {
        text += (row == 0 ? "" : ", ") + json_number(history.rows()[row][column]);
      }
      text += "]";
    }
    return text + "\n  }\n}\n";
  }

  /// Puts json() into `<folder>/<name>.json`, replacing the file as a whole.
  /// @throws c10::Error as lawn::write_atomically does
  void write(const std::filesystem::path& folder, const History& history) const {
    lawn::write_atomically(folder / (name + ".json"), json(history));
  }

 private:
  template <class Value, class Format>
  static std::string members(const std::vector<std::pair<std::string, Value>>& all,
                             const Format& format) {
    std::string text;
    for (const auto& [key, value] : all) {
      text += (text.empty() ? "\n    " : ",\n    ") + json_string(key) + ": " + format(value);
    }
    return text + "\n  ";
  }
};

}  // namespace examples
