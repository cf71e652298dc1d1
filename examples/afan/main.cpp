// SPDX-License-Identifier: Apache-2.0
//
// Trains a network on clean features, and beside them on features with random signs or an
// adversary's added, and prints the loss of each on clean and on perturbed features:
//
//   afan                                                      generated images, no files needed
//   afan --data cifar10 --root DIR --train-size 5000 --width 16
//   afan --help

#include <filesystem>
#include <iostream>
#include <vector>

#include "examples/afan/options.h"
#include "examples/afan/run.h"
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
  const examples::Feeding feeding = {examples::channel_statistics(data.train), device};
  std::cout << options->job_text(data, device) << "\n\n";

  std::vector<Result> results;
  for (const std::string& method : options->chosen_methods()) {
    results.push_back(train(*options, data, feeding, method));
    if (!results.back().finished) {
      examples::print_how_to_resume(std::cout, *options, results.back());
      return 130;  // as a shell reports a program that Ctrl-C ended
    }
  }
  print_results(std::cout, results);
  return 0;
} catch (const c10::Error& error) {
  std::cerr << "afan: " << error.what_without_backtrace() << '\n';
  return 1;
} catch (const std::exception& error) {
  std::cerr << "afan: " << error.what() << '\n';
  return 1;
}
