// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iostream>
#include <string>

#include "examples/apps/support/dataset.h"
#include "examples/apps/support/method_options.h"
#include "examples/apps/support/metrics.h"
#include "examples/apps/support/program.h"

namespace examples {

/// A program that trains by one or all of some methods on images, and prints what came of it.
/// @tparam Options       derived from MethodOptions, with a parse()
/// @param train          (options, data, feeding, method): makes a run and returns its result
/// @param print_results  (stream, results) of finished runs
template <class Options, class Train, class PrintResults>
int run_methods(const std::string& name, int argc, char** argv, const Train& train,
                const PrintResults& print_results) {
  return run_program<Options>(name, argc, argv, [&](const Options& options) {
    const at::Device device = options.torch_device();
    const Split data = options.load_images(options.seed).to(device);
    const Feeding feeding = {channel_statistics(data.train), device};
    std::cout << options.job_text(data, device) << "\n\n";

    const auto results = train_each(
        options, options.chosen_methods(),
        [&](const std::string& method) { return train(options, data, feeding, method); });
    if (!results) return kInterrupted;
    print_results(std::cout, *results);
    return 0;
  });
}

}  // namespace examples
