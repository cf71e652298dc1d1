// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iostream>
#include <sstream>
#include <vector>

#include "examples/apps/cifar10/run.h"
#include "examples/apps/support/result_table.h"

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  std::ostringstream threshold;
  threshold << examples::kVanishedGradient;
  table.row("train accuracy", [](const Result& r) { return percent(r.train.accuracy); });
  table.row("train loss", [](const Result& r) { return fixed(r.train.loss, 4); });
  table.row("train: mean logit norm", [](const Result& r) { return fixed(r.train.logit_norm, 2); });
  table.row("train: |softmax - onehot| < " + threshold.str(),
            [](const Result& r) { return percent(r.train.vanished); });
  table.row("test accuracy", [](const Result& r) { return percent(r.test.accuracy); });
  table.row("test loss", [](const Result& r) { return fixed(r.test.loss, 4); });
  table.row("test: mean logit norm", [](const Result& r) { return fixed(r.test.logit_norm, 2); });
  table.row("test: calibration error", [](const Result& r) { return percent(r.test.calibration); });
  table.add_run_rows("probed test accuracy", percent, "images");
  out << table;
}
