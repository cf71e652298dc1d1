// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/decorated_stepper.h"
#include "examples/apps/support/flags.h"
#include "examples/apps/support/image_options.h"
#include "examples/apps/support/run_options.h"

namespace examples {

/// What the programs take from their command line that train by one or all of some methods, on
/// images.
struct MethodOptions : RunOptions, ImageOptions {
  std::vector<std::string> methods;  ///< in the order of the table; they name runs and their files
  std::string method = "all";

  explicit MethodOptions(std::vector<std::string> names) : methods(std::move(names)) {}

  /// Declares the flags that say which methods, on what and how to train.
  void add_methods(Flags& flags) {
    std::vector<std::string> choices = methods;
    choices.insert(choices.begin(), "all");
    flags.add("method", &method, "what to train with; all is one after the other, from one seed")
        .choices(choices)
        .incidental();
    add_data(flags);
    add_sizes(flags);
    add_optimization(flags, kDecoratedOptimizers);
  }

  /// Reads a command line by flags that are all declared.
  /// @return false if only --help was asked for, which is then printed
  /// @throws c10::Error as RunOptions::parse() does
  bool parse(Flags& flags, int argc, char** argv) {
    if (!RunOptions::parse(flags, argc, argv)) return false;
    check_images();
    many = method == "all";
    return true;
  }

  /// The methods that are to be trained.
  std::vector<std::string> chosen_methods() const {
    return many ? methods : std::vector<std::string>{method};
  }

  /// The checkpoint that the run of a method goes on from, empty if it starts anew.
  std::string resumed(const std::string& name) const {
    if (!many && !std::filesystem::is_directory(resume)) return resume;
    return resumed_from_folder(name, /*begun=*/!many || name == methods.front());
  }

  /// "5 methods by sgd, 12 epochs of batches of 64 on ...", for the line that heads a job.
  std::string job_text(const Split& split, at::Device where) const {
    return (many ? std::to_string(methods.size()) + " methods" : method) + " on " +
           images_text(split) + ", " + summary() + device_text(where);
  }
};

}  // namespace examples
