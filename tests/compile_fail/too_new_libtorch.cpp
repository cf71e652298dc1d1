// expect: lawn: expected LibTorch 2.4.1 to 2.15, found 2.16.0; compile with the headers of one of these
// flags: -O0
// SPDX-License-Identifier: Apache-2.0
#include <torch/version.h>
#undef TORCH_VERSION_MINOR
#undef TORCH_VERSION_PATCH
#undef TORCH_VERSION
#define TORCH_VERSION_MINOR 16
#define TORCH_VERSION_PATCH 0
#define TORCH_VERSION "2.16.0"
#include <lawn/lawn.h>

int main() {}
