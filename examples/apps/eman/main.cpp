// SPDX-License-Identifier: Apache-2.0
//
// Trains a network with few labels. The network itself makes the other labels, or a teacher does;
// the teachers differ in the statistics of their batch norms. Prints how good students and teachers
// are:
//
//   eman                                                      generated images, no files needed
//   eman --data cifar10 --root DIR --labels 1000 --width 16 --decay 0.999
//   eman --help

#include "examples/apps/eman/options.h"
#include "examples/apps/eman/run.h"
#include "examples/apps/support/method_program.h"

int main(int argc, char** argv) {
  return examples::run_methods<Options>("eman", argc, argv, train, print_results);
}
