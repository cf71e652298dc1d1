// SPDX-License-Identifier: Apache-2.0
#include "step.h"

int main(int, char** arguments) {
  bool good = as_expected("program", own_step(), arguments);
  good = as_expected("static library", first_step(), arguments) && good;
  good = as_expected("shared library", shared_step(), arguments) && good;
  return good ? 0 : 1;
}
