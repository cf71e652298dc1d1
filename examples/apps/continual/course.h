// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include "examples/apps/support/history.h"
#include "examples/apps/support/run_record.h"

/// How a figure changed over the tasks of a stream.
struct Course {
  double mean = 0;   ///< over all tasks
  double first = 0;  ///< over the first tenth of them, rounded up
  double last = 0;   ///< over the last tenth
};

inline Course course(const std::vector<double>& by_task) {
  TORCH_CHECK(!by_task.empty(), "course: expected the figures of a task at least");
  const std::size_t tenth = (by_task.size() + 9) / 10;
  const auto mean = [](auto begin, auto end) {
    return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
  };
  const auto length = static_cast<std::ptrdiff_t>(tenth);
  return {mean(by_task.begin(), by_task.end()), mean(by_task.begin(), by_task.begin() + length),
          mean(by_task.end() - length, by_task.end())};
}

/// The course of a column of a history.
inline Course course(const examples::History& history, const std::string& column) {
  const auto& names = history.columns();
  const auto found = std::find(names.begin(), names.end(), column);
  TORCH_CHECK(found != names.end(), "course: no column '", column, "'");
  std::vector<double> by_task;
  for (const auto& row : history.rows()) {
    by_task.push_back(row[static_cast<std::size_t>(found - names.begin())]);
  }
  return course(by_task);
}

/// Adds the mean of a column to the figures, and those of the first and the last tenth.
inline void add_course(examples::Figures& figures, const examples::History& history,
                       const std::string& column) {
  const Course went = course(history, column);
  figures.emplace_back(column, went.mean);
  figures.emplace_back(column + "_first_tenth", went.first);
  figures.emplace_back(column + "_last_tenth", went.last);
}
