// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <iostream>
#include <string>

#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include <lawn/version.h>

namespace bench {

/// Takes `--<name>=<value>` out of the arguments.
inline std::string take_flag(int& argc, char** argv, const std::string& name,
                             const std::string& otherwise) {
  const std::string prefix = "--" + name + "=";
  std::string value = otherwise;
  int kept = 0;
  for (int i = 0; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.compare(0, prefix.size(), prefix) == 0) {
      value = argument.substr(prefix.size());
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return value;
}

/// Says what was expected of the command line, and ends the program.
[[noreturn]] inline void refuse(const std::string& message) {
  std::cerr << message << "\n";
  std::exit(EXIT_FAILURE);
}

/// Reads a command line: Google Benchmark's flags, --device=cpu or cuda, and --threads=N. Without
/// the latter LibTorch decides: OMP_NUM_THREADS, or the number of cores.
/// @param program  its name, for messages
/// @return  the device on which to measure
inline at::Device start(int& argc, char** argv, const std::string& program) {
  const std::string device = take_flag(argc, argv, "device", "cpu");
  const std::string threads = take_flag(argc, argv, "threads", "");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) std::exit(EXIT_FAILURE);
  if (device != "cpu" && device != "cuda") {
    refuse(program + ": expected --device=cpu or --device=cuda, got " + device);
  }
  if (device == "cuda" && !torch::cuda::is_available()) {
    refuse(program + ": --device=cuda, but LibTorch finds no GPU");
  }
  if (!threads.empty()) {
    const int count = std::atoi(threads.c_str());
    if (count < 1) refuse(program + ": expected --threads=N with N >= 1, got " + threads);
    at::set_num_threads(count);
  }
  benchmark::AddCustomContext("device", device);
  benchmark::AddCustomContext("torch_threads", std::to_string(at::get_num_threads()));
  benchmark::AddCustomContext("lawn_version", LAWN_VERSION);
  benchmark::AddCustomContext("torch_version", TORCH_VERSION);
  return at::Device(device);
}

}  // namespace bench
