// SPDX-License-Identifier: Apache-2.0
//
// Trains a network on small images, plain, with LAWN or both, and prints the results:
//
//   cifar10 --compare                                         generated images, no files needed
//   cifar10 --compare --network vgg --data cifar10 --root DIR --train-size 5000
//   mpirun -n 2 cifar10 --distributed                         on two ranks
//   cifar10 --help

#include <iostream>

#include "examples/apps/cifar10/options.h"
#include "examples/apps/cifar10/results.h"
#include "examples/apps/cifar10/run.h"
#include "examples/apps/support/distributed.h"
#include "examples/apps/support/program.h"

int main(int argc, char** argv) {
  examples::Session session;
  return examples::run_program<Options>("cifar10", argc, argv, [&](const Options& options) {
    return session.run(options, [&](examples::Ranks& ranks, at::Device device) {
      const examples::Split data = options.load_images(options.seed).to(device);
      const examples::Feeding feeding = {examples::channel_statistics(data.train), device,
                                         options.torch_precision(), options.channels_last};
      print_job(std::cout, options, data, device, ranks);

      const auto results = examples::train_each(options, options.runs(), [&](bool with_lawn) {
        return train(options, data, feeding, ranks, with_lawn);
      });
      if (!results) return examples::kInterrupted;
      print_results(std::cout, *results);
      return 0;
    });
  });
}
