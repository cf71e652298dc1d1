// SPDX-License-Identifier: Apache-2.0
//
// Prunes a trained network by magnitude, and compares what its survivors reach when they are
// trained again from the trained weights (fine-tuning), from the initial ones (the lottery ticket)
// and from fresh ones:
//
//   pruning                                                   generated images, no files needed
//   pruning --sparsity 0.9 --lr 0.1 --data cifar10 --root DIR --train-size 5000
//   pruning --help

#include <filesystem>
#include <iostream>
#include <vector>

#include "examples/pruning/options.h"
#include "examples/pruning/run.h"
#include "examples/support/interrupt.h"

int main(int argc, char** argv) try {
  const auto options = Options::parse(argc, argv);
  if (!options) return 0;  // --help
  options->apply_to_torch();
  std::filesystem::create_directories(options->out);
  examples::catch_interrupts();

  const at::Device device = options->torch_device();
  const examples::Split host = options->load_images();
  const examples::Split data = {host.train.to(device), host.test.to(device)};
  print_job(std::cout, *options, data, device);

  Experiment experiment(*options, data, device);
  std::vector<Result> results;
  for (const std::string& name : kRuns) {  // the dense one first: the others take its masks
    results.push_back(experiment.run(name));
    if (!results.back().finished) {
      examples::print_how_to_resume(std::cout, *options, results.back());
      return 130;  // as a shell reports a program that Ctrl-C ended
    }
  }
  print_results(std::cout, *options, results);
  return 0;
} catch (const c10::Error& error) {
  std::cerr << "pruning: " << error.what_without_backtrace() << '\n';
  return 1;
} catch (const std::exception& error) {
  std::cerr << "pruning: " << error.what() << '\n';
  return 1;
}
