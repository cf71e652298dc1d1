// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/utils.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "examples/apps/eman/options.h"
#include "examples/apps/eman/semi_supervised.h"
#include "examples/apps/eman/teacher.h"
#include "examples/apps/support/resnet.h"
#include "examples/apps/support/result_table.h"
#include "examples/apps/support/run.h"

/// How a run ended.
struct Result : examples::RunResult {
  examples::Evaluation student;  ///< on all test images
  double shuffled = 0;           ///< the teacher's accuracy there, in small shuffled batches
  double sorted = 0;             ///< and in batches sorted by class
  double used = 0;               ///< share of pseudo-labels that counted in the last epoch
  double right = 0;              ///< share that counted and were right
};

/// The figures of a finished run, for its record.
inline examples::Figures figures(const Result& result) {
  return {{"test_accuracy", result.student.accuracy},
          {"test_loss", result.student.loss},
          {"teacher_accuracy_shuffled", result.shuffled},
          {"teacher_accuracy_sorted", result.sorted},
          {"pseudo_labels_used", result.used},
          {"pseudo_labels_right", result.right},
          {"best_probed_teacher_accuracy", result.best_score}};
}

/// A network with batch norm behind each of its seven 3x3 convolutions.
inline std::shared_ptr<examples::Classifier> make_network(const Options& options,
                                                          const examples::Dataset& data) {
  examples::ResNetOptions shape;
  shape.widths = {options.width, 2 * options.width, 4 * options.width};
  shape.blocks_per_stage = 1;
  shape.channels = data.channels();
  shape.classes = data.classes;
  return examples::ResNet(shape).ptr();
}

/// Trains one student from the seed of the options, from its checkpoint if there is one to resume.
inline Result train(const Options& options, const examples::Split& data,
                    const examples::Feeding& feeding, const std::string& method) {
  torch::manual_seed(static_cast<uint64_t>(options.seed));
  const auto student = make_network(options, data.train);
  const auto twin = make_network(options, data.train);
  for (const auto& network : {student, twin}) feeding.place(*network);
  const auto pair = std::make_shared<Pair>(method, student, twin, options.decay);

  SemiSupervised task(pair, data, feeding, options);
  const lawn::Subnetwork weights = lawn::select_all_weights(*student);
  const auto stepper = examples::make_stepper(student->parameters(), weights,
                                              examples::stepper_options(task, options));
  Result result = {examples::train_with(task, *stepper, weights, options, method,
                                        options.resumed(method), examples::fingerprint(data.train)),
                   {}};
  if (!result.finished) return result;
  result.student = task.student_on_test_data();
  result.shuffled = task.teacher_on_shuffled_batches();
  result.sorted = task.teacher_on_sorted_batches();
  result.used = result.history.last("pseudo_labels_used");
  result.right = result.history.last("pseudo_labels_right");
  examples::write_record("eman", options, result, task.unit(), feeding.device, figures(result));
  return result;
}

/// Prints the figures of finished runs side by side.
inline void print_results(std::ostream& out, const std::vector<Result>& results) {
  examples::ResultTable<Result> table(results);
  using examples::fixed;
  using examples::percent;
  table.row("student: test accuracy", [](const Result& r) { return percent(r.student.accuracy); });
  table.row("student: test loss", [](const Result& r) { return fixed(r.student.loss, 4); });
  table.row("teacher: shuffled batches", [](const Result& r) { return percent(r.shuffled); });
  table.row("teacher: sorted batches", [](const Result& r) { return percent(r.sorted); });
  table.row("pseudo-labels used", [](const Result& r) { return percent(r.used); });
  table.row("  of them right, by the training labels",
            [](const Result& r) { return r.used > 0 ? percent(r.right / r.used) : "-"; });
  table.add_best_rows("probed accuracy of the teacher", percent);
  table.add_cost_rows("images");
  out << table;
}
