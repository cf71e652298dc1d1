// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace examples {

/// A number with a fixed count of digits after the point.
inline std::string fixed(double value, int digits) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(digits) << value;
  return text.str();
}

/// A share as per cent with two digits after the point.
inline std::string percent(double share) { return fixed(100 * share, 2) + " %"; }

/// Rows of text under a heading, printed with aligned columns: the first to the left, the others,
/// which hold figures, to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> heading) { rows_.push_back(std::move(heading)); }

  void add(std::vector<std::string> row) {
    row.resize(rows_.front().size());
    rows_.push_back(std::move(row));
  }

  friend std::ostream& operator<<(std::ostream& out, const Table& table) {
    std::vector<size_t> widths(table.rows_.front().size());
    for (const auto& row : table.rows_) {
      for (size_t column = 0; column < row.size(); ++column) {
        widths[column] = std::max(widths[column], row[column].size());
      }
    }
    for (size_t index = 0; index < table.rows_.size(); ++index) {
      print_row(out, table.rows_[index], widths);
      if (index == 0) {
        size_t total = 2 * (widths.size() - 1);
        for (const size_t width : widths) total += width;
        out << std::string(total, '-') << '\n';
      }
    }
    return out;
  }

 private:
  static void print_row(std::ostream& out, const std::vector<std::string>& row,
                        const std::vector<size_t>& widths) {
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - row[column].size(), ' ');
      out << (column == 0 ? row[column] + padding : "  " + padding + row[column]);
    }
    out << '\n';
  }

  std::vector<std::vector<std::string>> rows_;
};

}  // namespace examples
