// SPDX-License-Identifier: Apache-2.0
//
// Trains a network on small images, plain or with LAWN or both, and prints what came of it:
//
//   cifar10 --compare                                         generated images, no files needed
//   cifar10 --compare --network vgg --data cifar10 --root DIR --train-size 5000
//   cifar10 --help

#include <filesystem>
#include <iostream>
#include <vector>

#include "examples/cifar10/options.h"
#include "examples/cifar10/results.h"
#include "examples/cifar10/run.h"
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
  const examples::Feeding feeding = {examples::channel_statistics(data.train), device,
                                     options->torch_precision(), options->channels_last};
  print_job(std::cout, *options, data, device);

  std::vector<Result> results;
  for (const bool with_lawn : options->runs()) {
    results.push_back(train(*options, data, feeding, with_lawn));
    if (!results.back().finished) {
      examples::print_how_to_resume(std::cout, *options, results.back());
      return 130;  // as a shell reports a program that Ctrl-C ended
    }
  }
  print_results(std::cout, results);
  return 0;
} catch (const c10::Error& error) {
  std::cerr << "cifar10: " << error.what_without_backtrace() << '\n';
  return 1;
} catch (const std::exception& error) {
  std::cerr << "cifar10: " << error.what() << '\n';
  return 1;
}
