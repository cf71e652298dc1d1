// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace lawn::detail {

/// Rows of cells as text in aligned columns, two spaces apart, without blanks at the ends of lines.
/// @param right  the column that is aligned to the right; by default none
inline std::string columns_text(const std::vector<std::vector<std::string>>& rows,
                                std::size_t right = static_cast<std::size_t>(-1)) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(widths[c] - row[c].size(), ' ');
      line += (c == right ? padding + row[c] : row[c] + padding) + "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

}  // namespace lawn::detail
