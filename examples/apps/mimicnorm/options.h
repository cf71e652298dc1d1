// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "examples/apps/support/flags.h"
#include "examples/apps/support/method_options.h"

/// What the command line of mimicnorm says.
struct Options : examples::MethodOptions {
  std::string network = "chain";
  double logit_scale = 1;

  Options() : MethodOptions({"batch-norm", "none", "last-norm", "centred", "mimicnorm"}) {
    optimizer = "sgd";
    epochs = 12;
    warmup = 0.1;
    generated.train_size = 2000;
  }

  bool centred(const std::string& name) const { return name == "centred" || name == "mimicnorm"; }
  bool last_norm(const std::string& name) const {
    return name == "last-norm" || name == "mimicnorm";
  }

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv) {
    Options o;
    examples::Flags flags("mimicnorm",
                          "trains a network with batch norm, without, and with MimicNorm's parts.");
    o.add_methods(flags);
    flags.add("network", &o.network, "thirteen convolutions in a row, or in blocks with shortcuts")
        .choices({"chain", "residual"});
    flags
        .add("logit-scale", &o.logit_scale,
             "scale of the last norm; 1 keeps the loss of ten classes above 0.28, a larger one "
             "lowers this bound")
        .range(1e-3, 1e3);
    o.add_running(flags);
    if (!static_cast<examples::MethodOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
    return o;
  }
};
