// SPDX-License-Identifier: Apache-2.0
//
// Makes the absolute values in blocks of a trained network's weights equal, in one shot and after
// ADMM has drawn them there, and trains the network again with the blocks held equal:
//
//   unification                                               generated images, no files needed
//   unification --fraction 0.9 --block-rows 8 --data cifar10 --root DIR --train-size 5000
//   unification --help

#include <filesystem>
#include <iostream>
#include <vector>

#include "examples/support/interrupt.h"
#include "examples/unification/options.h"
#include "examples/unification/results.h"
#include "examples/unification/run.h"

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
  for (const Stage& stage : kStages) {  // in this order: each starts where an earlier one ended
    const Result result = experiment.run(stage);
    if (!result.finished) {
      examples::print_how_to_resume(std::cout, *options, result);
      return 130;  // as a shell reports a program that Ctrl-C ended
    }
    if (stage.in_table) results.push_back(result);
  }
  print_results(std::cout, results);
  return 0;
} catch (const c10::Error& error) {
  std::cerr << "unification: " << error.what_without_backtrace() << '\n';
  return 1;
} catch (const std::exception& error) {
  std::cerr << "unification: " << error.what() << '\n';
  return 1;
}
