// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "examples/apps/continual/course.h"
#include "examples/apps/continual/learner.h"
#include "examples/apps/continual/options.h"
#include "examples/apps/support/run.h"

/// How a run ended.
struct Result : examples::RunResult {
  std::string figure;   ///< the column that the stream is about
  bool tested = false;  ///< whether its tasks have test images
};

/// The figures of a finished run, for its record. Settings are chosen by the score: the mean online
/// accuracy over all tasks, or, of a stream that has an end, the test accuracy there.
inline examples::Figures figures(const Result& result) {
  examples::Figures all;
  std::vector<std::string> columns = {"online_accuracy", "online_loss", "task_accuracy",
                                      "dead_units", "angle"};
  if (result.tested) columns.insert(columns.end(), {"test_accuracy", "test_loss"});
  for (const std::string& column : columns) add_course(all, result.history, column);
  const Course went = course(result.history, result.figure);
  all.emplace_back("score", result.figure == "test_accuracy" ? went.last : went.mean);
  return all;
}

/// Trains one network: from its checkpoint if there is one to resume, else from the options' seed.
inline Result train(Options options, const examples::Split& data, const examples::Feeding& feeding,
                    const std::string& method) {
  options.optimizer = method == "sgd" ? "sgd" : "adam";  // which decides the usual rate
  Learner learner(options, data, feeding, method);
  Result result = {
      examples::train_with(learner.task(), learner.stepper(), learner.measured(), options, method,
                           options.resumed(method), examples::fingerprint(data.train)),
      learner.stream().tasks() > 0 ? "test_accuracy" : "online_accuracy",
      learner.stream().tested()};
  if (!result.finished) return result;
  examples::write_record("continual", options, result, learner.task().unit(), feeding.device,
                         figures(result));
  return result;
}
