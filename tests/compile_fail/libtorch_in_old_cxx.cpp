// expect: lawn: LibTorch 2.14 and later require C\+\+20: set CMAKE_CXX_STANDARD 20 .*; found LibTorch 2.14.0 in an older C\+\+
// flags: -std=c++17
// SPDX-License-Identifier: Apache-2.0
#include <torch/version.h>
#undef TORCH_VERSION_MINOR
#undef TORCH_VERSION
#define TORCH_VERSION_MINOR 14
#define TORCH_VERSION "2.14.0"
#include <lawn/lawn.h>

int main() {}
