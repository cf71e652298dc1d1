// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "examples/apps/support/flags.h"
#include "examples/apps/support/method_options.h"

/// What the command line of eman says.
struct Options : examples::MethodOptions {
  int64_t labels = 250;
  int64_t ratio = 1;
  double decay = 0.99;
  double threshold = 0.5;
  double weight = 1;
  int64_t width = 8;
  int64_t small_batch = 8;

  Options() : MethodOptions({"student", "eman", "copied", "stale", "batch-statistics"}) {
    epochs = 20;
    learning_rate = 0.01;
    final_factor = 0.2;  // where FixMatch's cosine over 7/16 of a turn ends
    generated.train_size = 2000;
  }

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv) {
    Options o;
    examples::Flags flags(
        "eman", "trains with few labels, the student or a teacher makes the other labels.");
    o.add_methods(flags);
    flags.add("labels", &o.labels, "images whose labels are known, classes in equal shares")
        .range(1, 1e6);
    flags.add("ratio", &o.ratio, "unlabelled images of a step to one labelled").range(1, 100);
    flags.add("decay", &o.decay, "decay of the teachers' averages; 0.999 is for long training")
        .range(0, 1);
    flags.add("threshold", &o.threshold, "confidence from which on a pseudo-label counts")
        .range(0, 1);
    flags.add("unlabelled-weight", &o.weight, "weight of the loss of unlabelled images")
        .range(0, 100);
    flags.add("width", &o.width, "channels of the network's first stage").range(1, 512);
    flags.add("small-batch", &o.small_batch, "images a batch when teachers are compared")
        .range(2, 1000);
    o.add_running(flags);
    if (!static_cast<examples::MethodOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
    return o;
  }
};
