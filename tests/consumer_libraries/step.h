// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <iostream>
#include <string>

/// What a constrained step showed in one library or program.
struct Seen {
  double drift;         ///< largest relative change of a norm
  bool kernels;         ///< whether the CUDA kernels are there
  std::size_t threads;  ///< how many at::parallel_for uses where it may use two
  std::string openmp;   ///< the OpenMP runtimes that are loaded, by the names of their files
};

Seen own_step();
Seen first_step();
Seen shared_step();

/// Prints what was seen and returns whether it is what `arguments` ask for: whether there are
/// "kernels" or "none", and the number of threads; and whether there is one OpenMP runtime.
inline bool as_expected(const char* who, const Seen& seen, char** arguments) {
  const std::string kernels = seen.kernels ? "kernels" : "none";
  const std::string threads = std::to_string(seen.threads);
  std::cout << who << ": drift of a norm " << seen.drift << ", CUDA kernels: " << kernels << ", "
            << threads << " threads of " << seen.openmp << "\n";
  const bool one_runtime = !seen.openmp.empty() && seen.openmp.find(' ') == std::string::npos;
  return seen.drift < 1e-6 && kernels == arguments[1] && threads == arguments[2] && one_runtime;
}
