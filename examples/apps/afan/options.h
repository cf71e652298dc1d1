// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/afan/afan_loss.h>

#include <optional>
#include <string>

#include "examples/apps/support/flags.h"
#include "examples/apps/support/method_options.h"

/// What the command line of afan says.
struct Options : examples::MethodOptions {
  int64_t split = 5;
  int64_t steps = 5;
  double step_size = 1;
  double epsilon = 2;
  int64_t width = 8;
  bool augment = false;

  Options() : MethodOptions({"clean", "signs", "signs-mixed", "adversarial", "adversarial-mixed"}) {
    epochs = 12;
    learning_rate = 0.003;
    generated.train_size = 2000;
  }

  /// Reads a command line. If only --help was asked for, prints the help and returns nothing.
  static std::optional<Options> parse(int argc, char** argv) {
    Options o;
    examples::Flags flags("afan",
                          "trains on clean features and on ones that are perturbed, at random or "
                          "against the network; \"mixed\" is with statistics normalised.");
    o.add_methods(flags);
    flags.add("augment", &o.augment, "crop and flip at random");
    flags.add("split", &o.split, "module whose input is perturbed, of nine from 0").range(0, 8);
    flags.add("steps", &o.steps, "of a perturbation").range(1, 100);
    flags.add("step-size", &o.step_size, "size of each step, in 255ths").range(0, 1e4);
    flags.add("epsilon", &o.epsilon, "largest change of a feature, in 255ths").range(0, 1e4);
    flags.add("width", &o.width, "channels of the network's first stage").range(1, 512);
    o.add_running(flags);
    if (!static_cast<examples::MethodOptions&>(o).parse(flags, argc, argv)) return std::nullopt;
    return o;
  }

  /// Perturbations in the given direction.
  lawn::PerturbationOptions perturbation(lawn::PerturbationDirection direction) const {
    return lawn::PerturbationOptions()
        .steps(steps)
        .step_size(step_size / 255)
        .epsilon(epsilon / 255)
        .direction(direction);
  }

  /// What a method trains by.
  lawn::AFANOptions afan(const std::string& name) const {
    const bool random = name == "signs" || name == "signs-mixed";
    const bool mixed = name == "signs-mixed" || name == "adversarial-mixed";
    lawn::AFANOptions all;
    all.perturbation(perturbation(random ? lawn::PerturbationDirection::kRandomSigns
                                         : lawn::PerturbationDirection::kAscent));
    if (name == "clean") all.perturbation(lawn::PerturbationOptions().steps(0));
    if (!mixed) all.normalisation(std::nullopt);
    return all;
  }
};
