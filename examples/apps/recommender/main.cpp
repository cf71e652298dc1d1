// SPDX-License-Identifier: Apache-2.0
//
// Trains a recommender on who took what, plain, with LAWN or both, and prints the results:
//
// clang-format off
//   recommender --compare                                     generated interactions, no files needed
//   recommender --compare --network gmf --factors 16 --data movielens --root DIR
//   recommender --help
// clang-format on

#include <iostream>

#include "examples/apps/recommender/options.h"
#include "examples/apps/recommender/run.h"
#include "examples/apps/support/program.h"

int main(int argc, char** argv) {
  return examples::run_program<Options>("recommender", argc, argv, [](const Options& options) {
    const at::Device device = options.torch_device();
    const examples::RankingData data = load_data(options).to(device);
    print_job(std::cout, options, data, device);

    const auto results = examples::train_each(options, options.runs(), [&](bool with_lawn) {
      return train(options, data, device, with_lawn);
    });
    if (!results) return examples::kInterrupted;
    print_results(std::cout, *results);
    return 0;
  });
}
