// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/unification/admm_options.h>
#include <lawn/companions/unification/admm_projection.h>

#include <optional>
#include <ostream>
#include <string>

#include "examples/apps/support/decorated_stepper.h"
#include "examples/apps/support/flags.h"
#include "examples/apps/support/image_options.h"
#include "examples/apps/support/run_options.h"
#include "examples/apps/support/table.h"

/// What the command line of unification says.
struct Options : examples::RunOptions, examples::ImageOptions {
  double fraction = 0.8;
  int64_t block_rows = 4;
  int64_t block_columns = 4;
  int64_t admm_epochs = 10;
  int64_t retrain_epochs = 4;
  double retrain_rate = 0;
  double rho = 1e-3;
  double rho_growth = 2;
  double max_rho = 1;

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv) {
    Options o;
    o.many = true;
    o.optimizer = "sgd";
    o.epochs = 10;
    o.probe_size = 500;
    examples::Flags flags("unification",
                          "trains a network, makes the absolute values in blocks of its weights "
                          "equal, in one shot and by ADMM, and trains it again under that "
                          "constraint.");
    o.add_images(flags);
    o.add_optimization(flags, examples::kDecoratedOptimizers);
    flags.add("fraction", &o.fraction, "of the blocks of each layer that are unified").range(0, 1);
    flags.add("block-rows", &o.block_rows, "of a block of the matrix [output, all the rest]")
        .range(1, 1e6);
    flags.add("block-columns", &o.block_columns, "of a block").range(1, 1e6);
    flags
        .add("admm-epochs", &o.admm_epochs,
             "after the first --epochs, with ADMM's penalty, and as a control without")
        .range(1, 1e6);
    flags.add("rho", &o.rho, "weight of the penalty at first").range(1e-12, 1e6);
    flags.add("rho-growth", &o.rho_growth, "what rho is multiplied by after each epoch")
        .range(1, 1e6);
    flags.add("max-rho", &o.max_rho, "what rho grows to").range(1e-12, 1e6);
    flags.add("retrain-epochs", &o.retrain_epochs, "after the projection").range(1, 1e6);
    flags.add("retrain-lr", &o.retrain_rate, "learning rate of these; 0 is that of the others")
        .range(0, 1e3);
    o.add_running(flags);
    if (!static_cast<examples::RunOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
    o.check_images();
    o.admm().validate();
    return o;
  }

  lawn::Projection projection() const {
    return lawn::Projection::unify_blocks({block_rows, block_columns}, fraction);
  }

  lawn::AdmmOptions admm() const {
    return lawn::AdmmOptions().rho(rho).rho_growth(rho_growth).max_rho(max_rho);
  }

  /// The options of the runs before the projection.
  examples::RunOptions before_projection() const {
    examples::RunOptions changed = *this;
    changed.epochs = admm_epochs;
    return changed;
  }

  /// The options of the runs after the projection.
  examples::RunOptions after_projection() const {
    examples::RunOptions changed = *this;
    changed.epochs = retrain_epochs;
    if (retrain_rate > 0) changed.learning_rate = retrain_rate;
    return changed;
  }
};

/// One line on what is going to happen.
inline void print_job(std::ostream& out, const Options& options, const examples::Split& data,
                      at::Device device) {
  out << options.network << " on " << options.images_text(data) << ", "
      << examples::percent(options.fraction) << " of the blocks of " << options.block_rows << "x"
      << options.block_columns << " unified, " << options.summary() << ", then "
      << options.admm_epochs << " with and without ADMM and " << options.retrain_epochs
      << " after the projection," << examples::device_text(device) << "\n\n";
}
