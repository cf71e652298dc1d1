// SPDX-License-Identifier: Apache-2.0
//
// Trains a network on clean features, and on features with random signs or an adversarial
// perturbation added, and prints the loss of each on clean and on perturbed features:
//
//   afan                                                      generated images, no files needed
//   afan --data cifar10 --root DIR --train-size 5000 --width 16
//   afan --help

#include "examples/apps/afan/options.h"
#include "examples/apps/afan/run.h"
#include "examples/apps/support/method_program.h"

int main(int argc, char** argv) {
  return examples::run_methods<Options>("afan", argc, argv, train, print_results);
}
