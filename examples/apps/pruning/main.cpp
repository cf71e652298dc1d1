// SPDX-License-Identifier: Apache-2.0
//
// Prunes a trained network by magnitude, and trains the surviving weights again: from their trained
// values (fine-tuning), from the initial ones (the lottery ticket) and from fresh ones. Compares
// the results:
//
//   pruning                                                   generated images, no files needed
//   pruning --sparsity 0.9 --lr 0.1 --data cifar10 --root DIR --train-size 5000
//   pruning --help

#include <iostream>
#include <string>

#include "examples/apps/pruning/options.h"
#include "examples/apps/pruning/run.h"
#include "examples/apps/support/program.h"

int main(int argc, char** argv) {
  return examples::run_program<Options>("pruning", argc, argv, [](const Options& options) {
    const at::Device device = options.torch_device();
    const examples::Split data = options.load_images(options.seed).to(device);
    print_job(std::cout, options, data, device);

    Experiment experiment(options, data, device);
    // The dense run comes first: the others take its masks.
    const auto results = examples::train_each(
        options, kRuns, [&](const std::string& name) { return experiment.run(name); });
    if (!results) return examples::kInterrupted;
    print_results(std::cout, options, *results);
    return 0;
  });
}
