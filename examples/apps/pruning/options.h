// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/pruning/magnitude_masks.h>

#include <optional>
#include <ostream>
#include <string>

#include "examples/apps/support/decorated_stepper.h"
#include "examples/apps/support/flags.h"
#include "examples/apps/support/image_options.h"
#include "examples/apps/support/run_options.h"
#include "examples/apps/support/table.h"

/// What the command line of pruning says.
struct Options : examples::RunOptions, examples::ImageOptions {
  double sparsity = 0.95;
  std::string scope = "global";
  bool prune_head = false;
  double retrain_rate = 0;

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv) {
    Options o;
    o.many = true;
    o.optimizer = "sgd";
    o.epochs = 12;
    o.probe_size = 500;
    examples::Flags flags("pruning",
                          "trains a network, prunes it by magnitude, and trains what is left from "
                          "the trained, the initial and fresh weights.");
    o.add_images(flags);
    o.add_optimization(flags, examples::kDecoratedOptimizers);
    flags.add("retrain-lr", &o.retrain_rate, "learning rate after the pruning; 0 is that before it")
        .range(0, 1e3);
    flags.add("sparsity", &o.sparsity, "part of the weights that is pruned").range(0, 0.9999);
    flags
        .add("scope", &o.scope,
             "prune the smallest weights of all layers together, or the same share of each layer")
        .choices({"global", "layer"});
    flags.add("prune-head", &o.prune_head,
              "also prune the last layer, whose weights are few, and small after a batch norm");
    o.add_running(flags);
    if (!static_cast<examples::RunOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
    o.check_images();
    return o;
  }

  lawn::MagnitudeOptions magnitude() const {
    return lawn::MagnitudeOptions().amount(sparsity).scope(
        scope == "global" ? lawn::PruneScope::kGlobal : lawn::PruneScope::kPerLayer);
  }

  /// The options of the runs after the pruning.
  examples::RunOptions retraining() const {
    examples::RunOptions changed = *this;
    if (retrain_rate > 0) changed.learning_rate = retrain_rate;
    return changed;
  }
};

/// One line on what is going to happen.
inline void print_job(std::ostream& out, const Options& options, const examples::Split& data,
                      at::Device device) {
  out << options.network << " on " << options.images_text(data) << ", "
      << examples::percent(options.sparsity) << " of the weights pruned ("
      << (options.scope == "global" ? "the smallest of all" : "as many of each layer")
      << (options.prune_head ? "" : ", none of the last") << "), " << options.summary() << " each"
      << examples::device_text(device) << "\n\n";
}
