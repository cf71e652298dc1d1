// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/decorated_stepper.h"
#include "examples/apps/support/flags.h"
#include "examples/apps/support/image_options.h"
#include "examples/apps/support/run_options.h"

namespace examples {

/// What the programs take from their command line that train by one or more of some methods, on
/// images.
struct MethodOptions : RunOptions, ImageOptions {
  std::vector<std::string> methods;  ///< that there are; they name runs and their files
  std::string method = "all";        ///< of the command line: all, or some, separated by commas

  explicit MethodOptions(std::vector<std::string> names) : methods(std::move(names)) {}

  /// Declares the flag that says which methods.
  void add_method(Flags& flags) {
    flags
        .add("method", &method,
             "what to train by, one after the other from one seed: all, or some of " +
                 join(methods, ", ") + ", separated by commas")
        .incidental();
  }

  /// Declares the flags that say which methods, on what and how to train.
  void add_methods(Flags& flags) {
    add_method(flags);
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
    many = chosen_methods().size() > 1;
    return true;
  }

  /// The methods that are to be trained, in this order.
  /// @throws c10::Error for a name that none has, or that is there twice
  std::vector<std::string> chosen_methods() const {
    if (method == "all") return methods;
    std::vector<std::string> chosen;
    std::stringstream names(method + ",");
    for (std::string name; std::getline(names, name, ',');) {
      TORCH_CHECK(contains(methods, name) && !contains(chosen, name),
                  "--method: expected all, or some of ", join(methods, ", "),
                  ", separated by commas and each once; got '", method, "'");
      chosen.push_back(name);
    }
    return chosen;
  }

  /// The checkpoint that the run of a method goes on from, empty if it starts anew.
  std::string resumed(const std::string& name) const {
    if (!many && !std::filesystem::is_directory(resume)) return resume;
    return resumed_from_folder(name, /*begun=*/name == chosen_methods().front());
  }

  /// "clean" or "5 methods".
  std::string methods_text() const {
    return many ? std::to_string(chosen_methods().size()) + " methods" : method;
  }

  /// "5 methods by sgd, 12 epochs of batches of 64 on ...", for the line that heads a job.
  std::string job_text(const Split& split, at::Device where) const {
    return methods_text() + " on " + images_text(split) + ", " + summary() + device_text(where);
  }
};

}  // namespace examples
