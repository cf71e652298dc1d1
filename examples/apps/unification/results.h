// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "examples/apps/support/result_table.h"
#include "examples/apps/unification/run.h"

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  table.row("test accuracy before the projection",
            [](const Result& r) { return percent(r.before.accuracy); });
  table.row("residual ||W - P(W)|| / ||W||",
            [](const Result& r) { return r.residual ? fixed(*r.residual, 4) : std::string("-"); });
  table.row("test accuracy at the projection", [](const Result& r) {
    return r.residual ? percent(r.projected.accuracy) : std::string("-");
  });
  table.row("test accuracy after retraining",
            [](const Result& r) { return percent(r.test.accuracy); });
  table.row("test loss", [](const Result& r) { return fixed(r.test.loss, 4); });
  table.row("train accuracy", [](const Result& r) { return percent(r.train.accuracy); });
  table.row("train loss", [](const Result& r) { return fixed(r.train.loss, 4); });
  table.row("bytes of the weights, encoded",
            [](const Result& r) { return std::to_string(r.bytes.encoded); });
  table.row("  of their bytes as they are", [](const Result& r) {
    return percent(static_cast<double>(r.bytes.encoded) / static_cast<double>(r.bytes.dense));
  });
  table.add_best_rows("probed test accuracy", percent);
  table.add_cost_rows("images");
  out << table
      << "\nAll have as many epochs behind them; dense was trained on where the others were "
         "projected.\nThe bytes are those of a file: LibTorch's kernels do not run faster for "
         "blocks of one absolute value.\n";
}
