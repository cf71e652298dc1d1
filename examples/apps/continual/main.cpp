// SPDX-License-Identifier: Apache-2.0
//
// Trains one network on a stream of tasks, by plain optimizers, by methods against the loss of
// plasticity and by LAWN, and prints how well each learned the first tasks and the last:
//
//   continual --betas 0.9,0.95                                generated images, no files needed
//   continual --method lawn --betas 0.9,0.95 --data fashion-mnist --root DIR
//   continual --stream class-pairs --network vgg --data cifar10 --root DIR
//   continual --help

#include "examples/apps/continual/options.h"
#include "examples/apps/continual/results.h"
#include "examples/apps/continual/run.h"
#include "examples/apps/support/method_program.h"

int main(int argc, char** argv) {
  return examples::run_methods<Options>("continual", argc, argv, train, print_results);
}
