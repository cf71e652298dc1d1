// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "examples/apps/support/interrupt.h"
#include "examples/apps/support/output_folder.h"
#include "examples/apps/support/run.h"
#include "examples/apps/support/run_options.h"

namespace examples {

/// What a program that Ctrl-C ended returns, as a shell reports it.
inline constexpr int kInterrupted = 130;

/// Says what went wrong, in one piece: ranks share an output. Returns what the program does.
inline int say_error(const std::string& name, const std::string& what) {
  std::cerr << name + ": " + what + "\n";
  return 1;
}

/// The frame of a training program: reads its command line, prepares torch, Ctrl-C and the output
/// folder, which no other run can have meanwhile, and says by name what went wrong.
/// @tparam Options  derived from RunOptions, with a parse()
/// @param body      of the options; what it returns is what the program does
template <class Options, class Body>
int run_program(const std::string& name, int argc, char** argv, const Body& body) try {
  const std::optional<Options> options = Options::parse(argc, argv);
  if (!options) return 0;  // --help
  options->apply_to_torch();
  catch_signals();
  std::optional<OutputFolder> folder;
  if (!options->shares_folder()) folder.emplace(options->out);
  return body(*options);
} catch (const c10::Error& error) {
  return say_error(name, error.what_without_backtrace());
} catch (const std::exception& error) {
  return say_error(name, error.what());
}

/// Makes the runs of a program, one after the other.
/// @param train  makes one of `runs`, and returns its result, derived from RunResult
/// @return the results; nothing if a run was interrupted, after how to go on has been said
template <class Runs, class Train>
auto train_each(const RunOptions& options, const Runs& runs, const Train& train) {
  std::optional<std::vector<decltype(train(*runs.begin()))>> results;
  results.emplace();
  for (const auto& run : runs) {
    results->push_back(train(run));
    if (results->back().finished) continue;
    print_how_to_resume(std::cout, options, results->back());
    results.reset();
    break;
  }
  return results;
}

}  // namespace examples
