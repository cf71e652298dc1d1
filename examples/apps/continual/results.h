// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "examples/apps/continual/course.h"
#include "examples/apps/continual/run.h"
#include "examples/apps/support/result_table.h"

/// "From the first tenth of the tasks to the last the online accuracy of adam fell by 12.30 points,
/// that of lawn rose by 0.40."
inline std::string what_was_seen(const std::vector<Result>& results) {
  std::string name = results.front().figure;
  name[name.find('_')] = ' ';
  std::string text;
  for (const Result& result : results) {
    const Course went = course(result.history, result.figure);
    const double points = 100 * (went.last - went.first);
    text += text.empty() ? "the " + name + " of " : ", that of ";
    text += result.name + (points < 0 ? " fell by " : " rose by ") +
            examples::fixed(std::abs(points), 2);
    if (&result == &results.front()) text += " points";
  }
  return "From the first tenth of the tasks to the last " + text + ".";
}

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  const auto add = [&table](const std::string& title, const std::string& column) {
    table.row(title, [column](const Result& r) { return percent(course(r.history, column).mean); });
    table.row("  first tenth of the tasks",
              [column](const Result& r) { return percent(course(r.history, column).first); });
    table.row("  last tenth",
              [column](const Result& r) { return percent(course(r.history, column).last); });
  };
  add("online accuracy", "online_accuracy");
  add("accuracy at a task's end", "task_accuracy");
  if (results.front().tested) add("test accuracy", "test_accuracy");
  table.row("dead units, last tenth",
            [](const Result& r) { return percent(course(r.history, "dead_units").last); });
  table.row("angle of a step, mrad, first tenth",
            [](const Result& r) { return fixed(1e3 * course(r.history, "angle").first, 3); });
  table.row("  last tenth",
            [](const Result& r) { return fixed(1e3 * course(r.history, "angle").last, 3); });
  table.row("sub-network's norm, end / start",
            [](const Result& r) { return fixed(r.norm_growth, 3); });
  table.add_cost_rows("images");
  out << table << '\n' << what_was_seen(results) << '\n';
}
