// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace examples {

/// Names and values of everything that decides the results of a run: flags, network, data.
using Settings = std::vector<std::pair<std::string, std::string>>;

/// "name value" of each setting, a line each.
inline std::string lines(const Settings& settings) {
  std::string text;
  for (const auto& [name, value] : settings) text += name + " " + value + "\n";
  return text;
}

}  // namespace examples
