// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Refuses a LibTorch that lawn does not support, and a C++ that is too old for LibTorch.
/// `#error` could not say which version was found. cmake/LawnTorchVersion.cmake has the same range.

#include <torch/version.h>

// clang-format off
#if TORCH_VERSION_MAJOR != 2 || TORCH_VERSION_MINOR < 4 || TORCH_VERSION_MINOR > 15 || (TORCH_VERSION_MINOR == 4 && TORCH_VERSION_PATCH < 1)
static_assert(false, "lawn: expected LibTorch 2.4.1 to 2.15, found " TORCH_VERSION "; compile with the headers of one of these");
#elif TORCH_VERSION_MINOR >= 14 && __cplusplus <= 201703L
static_assert(false, "lawn: LibTorch 2.14 and later require C++20: set CMAKE_CXX_STANDARD 20 (-std=c++20); found LibTorch " TORCH_VERSION " in an older C++");
#endif
// clang-format on
