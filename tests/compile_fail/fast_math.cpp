// expect: lawn: -Ofast, .* drop checks for NaN and infinity; compile .* with -fno-finite-math-only
// flags: -Ofast
// SPDX-License-Identifier: Apache-2.0
#include <lawn/lawn.h>

int main() {}
