// SPDX-License-Identifier: Apache-2.0
#include "step.h"

int main(int, char** arguments) {
  return as_expected("static library", first_step(), arguments) ? 0 : 1;
}
