// expect: compile the files that include lawn with -fno-finite-math-only after it
// flags: -O2 -ffinite-math-only
// SPDX-License-Identifier: Apache-2.0
#include <lawn/companions/eman/ema_options.h>

int main() {}
