// SPDX-License-Identifier: Apache-2.0
//
// Trains a transformer of about a million parameters to continue a text, plain, with LAWN or both,
// and prints the results:
//
//   language --compare                                        generated text, no files needed
//   language --compare --text FILE --optimizer adamw --weight-decay 0.1
//   language --help

#include <iostream>

#include "examples/apps/language/options.h"
#include "examples/apps/language/run.h"
#include "examples/apps/support/program.h"

int main(int argc, char** argv) {
  return examples::run_program<Options>("language", argc, argv, [](const Options& options) {
    const at::Device device = options.torch_device();
    const examples::TextSplit text = load_split(options).to(device);
    print_job(std::cout, options, text, device);

    const auto results = examples::train_each(options, options.runs(), [&](bool with_lawn) {
      return train(options, text, device, with_lawn);
    });
    if (!results) return examples::kInterrupted;
    print_results(std::cout, *results);
    return 0;
  });
}
