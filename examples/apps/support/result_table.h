// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/run.h"
#include "examples/apps/support/table.h"

namespace examples {

/// The figures of finished runs side by side, one column for each.
/// @tparam Result  derived from RunResult
template <class Result>
class ResultTable {
 public:
  explicit ResultTable(const std::vector<Result>& results)
      : results_(results), table_(heading(results)) {}

  void row(const std::string& title, const std::function<std::string(const Result&)>& figure) {
    std::vector<std::string> cells = {title};
    for (const Result& result : results_) cells.push_back(figure(result));
    table_.add(std::move(cells));
  }

  /// The rows of programs that train with LAWN: norms, speed, and what tells equal weights from
  /// others.
  /// @param score  what the best epoch is told by
  /// @param text   writes a score
  /// @param unit   what samples are called
  void add_run_rows(const std::string& score, const std::function<std::string(double)>& text,
                    const std::string& unit) {
    add_best_rows(score, text);
    row("sub-network's norm, end / start", [](const Result& r) { return fixed(r.norm_growth, 3); });
    add_cost_rows(unit);
  }

  /// The best epoch, as add_run_rows() has it.
  void add_best_rows(const std::string& score, const std::function<std::string(double)>& text) {
    row("best " + score,
        [&text](const Result& r) { return r.best_epoch > 0 ? text(r.best_score) : "-"; });
    row("  at epoch",
        [](const Result& r) { return r.best_epoch > 0 ? std::to_string(r.best_epoch) : "-"; });
  }

  /// Speed and fingerprint, as add_run_rows() has them.
  void add_cost_rows(const std::string& unit) {
    const bool scaled = std::any_of(results_.begin(), results_.end(), [](const Result& r) {
      return r.loss_scale != 1 || r.skipped_steps > 0;
    });
    if (scaled) {
      row("scale of the loss", [](const Result& r) { return fixed(r.loss_scale, 0); });
      row("  steps skipped", [](const Result& r) { return std::to_string(r.skipped_steps); });
    }
    row(unit + "/s", [](const Result& r) { return fixed(r.samples_per_second, 0); });
    row("ms per step", [](const Result& r) { return fixed(1e3 * r.times.whole / r.steps, 2); });
    row("  of them optimizer.step()",
        [](const Result& r) { return fixed(1e3 * r.times.optimizer_per_step(), 2); });
    row("seconds of training", [](const Result& r) { return fixed(r.times.whole, 1); });
    row("fingerprint of the weights", [](const Result& r) {
      std::ostringstream digits;
      digits << std::hex << std::setw(16) << std::setfill('0') << r.fingerprint;
      return digits.str();
    });
  }

  friend std::ostream& operator<<(std::ostream& out, const ResultTable& table) {
    return out << '\n' << table.table_;
  }

 private:
  static std::vector<std::string> heading(const std::vector<Result>& results) {
    std::vector<std::string> names = {""};
    for (const Result& result : results) names.push_back(result.name);
    return names;
  }

  const std::vector<Result>& results_;
  Table table_;
};

}  // namespace examples
