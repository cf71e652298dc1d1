// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "examples/cifar10/run.h"
#include "examples/support/table.h"

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  std::vector<std::string> heading = {""};
  for (const Result& result : results) heading.push_back(result.name);
  examples::Table table(heading);
  const auto row = [&](const std::string& title,
                       const std::function<std::string(const Result&)>& figure) {
    std::vector<std::string> cells = {title};
    for (const Result& result : results) cells.push_back(figure(result));
    table.add(std::move(cells));
  };
  using examples::fixed;
  using examples::percent;
  std::ostringstream threshold;
  threshold << examples::kVanishedGradient;
  row("train accuracy", [](const Result& r) { return percent(r.train.accuracy); });
  row("train loss", [](const Result& r) { return fixed(r.train.loss, 4); });
  row("train: mean logit norm", [](const Result& r) { return fixed(r.train.logit_norm, 2); });
  row("train: |softmax - onehot| < " + threshold.str(),
      [](const Result& r) { return percent(r.train.vanished); });
  row("test accuracy", [](const Result& r) { return percent(r.test.accuracy); });
  row("test loss", [](const Result& r) { return fixed(r.test.loss, 4); });
  row("test: mean logit norm", [](const Result& r) { return fixed(r.test.logit_norm, 2); });
  row("test: calibration error", [](const Result& r) { return percent(r.test.calibration); });
  row("best probed test accuracy", [](const Result& r) { return percent(r.best_accuracy); });
  row("  at epoch", [](const Result& r) { return std::to_string(r.best_epoch); });
  row("sub-network's norm, end / start", [](const Result& r) { return fixed(r.norm_growth, 3); });
  const bool scaled = std::any_of(results.begin(), results.end(), [](const Result& r) {
    return r.loss_scale != 1 || r.skipped_steps > 0;
  });
  if (scaled) {
    row("scale of the loss", [](const Result& r) { return fixed(r.loss_scale, 0); });
    row("  steps skipped", [](const Result& r) { return std::to_string(r.skipped_steps); });
  }
  row("images/s", [](const Result& r) { return fixed(r.images_per_second, 0); });
  row("ms per step", [](const Result& r) { return fixed(1e3 * r.times.whole / r.steps, 2); });
  row("  of them optimizer.step()",
      [](const Result& r) { return fixed(1e3 * r.times.optimizer_per_step(), 2); });
  row("seconds of training", [](const Result& r) { return fixed(r.times.whole, 1); });
  row("fingerprint of the weights", [](const Result& r) {
    std::ostringstream text;
    text << std::hex << std::setw(16) << std::setfill('0') << r.fingerprint;
    return text.str();
  });
  out << '\n' << table;
}

/// Says where an unfinished run stopped and how to go on.
inline void print_how_to_resume(std::ostream& out, const Options& options, const Result& result) {
  out << "\nstopped after " << examples::fixed(result.steps, 0) << " steps of " << result.name
      << "; saved to " << result.checkpoint << "\nto go on from there:\n ";
  for (size_t index = 0; index < options.command_line.size(); ++index) {
    const std::string& argument = options.command_line[index];
    if (argument == "--resume") ++index;  // and its value
    if (argument.compare(0, 8, "--resume") != 0) out << ' ' << argument;
  }
  out << " --resume " << (options.compare ? options.out : result.checkpoint) << '\n';
}
