// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The version of the library; CMake reads it from here.
#define LAWN_VERSION_MAJOR 0
#define LAWN_VERSION_MINOR 1
#define LAWN_VERSION_PATCH 0
#define LAWN_VERSION "0.1.0"
