// SPDX-License-Identifier: Apache-2.0
//
// Trains one network with batch norm, without any norm, and with MimicNorm's two parts apart and
// together. Prints the results, and the memory that each keeps for the backward pass:
//
//   mimicnorm                                                 generated images, no files needed
//   mimicnorm --network residual --data cifar10 --root DIR --train-size 5000
//   mimicnorm --help

#include "examples/apps/mimicnorm/options.h"
#include "examples/apps/mimicnorm/run.h"
#include "examples/apps/support/method_program.h"

int main(int argc, char** argv) {
  return examples::run_methods<Options>("mimicnorm", argc, argv, train, print_results);
}
