// compiles
// flags: -Ofast -fno-finite-math-only
// SPDX-License-Identifier: Apache-2.0
#include <lawn/companions.h>
#include <lawn/lawn.h>

int main() {}
