// SPDX-License-Identifier: Apache-2.0
//
// Makes the absolute values in blocks of a trained network's weights equal, in one shot and after
// ADMM has drawn them there, and trains the network again with the blocks held equal:
//
//   unification                                               generated images, no files needed
//   unification --fraction 0.9 --block-rows 8 --data cifar10 --root DIR --train-size 5000
//   unification --help

#include <iostream>
#include <vector>

#include "examples/apps/support/program.h"
#include "examples/apps/unification/options.h"
#include "examples/apps/unification/results.h"
#include "examples/apps/unification/run.h"

int main(int argc, char** argv) {
  return examples::run_program<Options>("unification", argc, argv, [](const Options& options) {
    const at::Device device = options.torch_device();
    const examples::Split data = options.load_images(options.seed).to(device);
    print_job(std::cout, options, data, device);

    Experiment experiment(options, data, device);
    // In their order: each starts where an earlier one ended.
    const auto results = examples::train_each(
        options, kStages, [&](const Stage& stage) { return experiment.run(stage); });
    if (!results) return examples::kInterrupted;
    std::vector<Result> shown;
    for (size_t i = 0; i < kStages.size(); ++i) {
      if (kStages[i].in_table) shown.push_back((*results)[i]);
    }
    print_results(std::cout, shown);
    return 0;
  });
}
