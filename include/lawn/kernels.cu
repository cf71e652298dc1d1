// SPDX-License-Identifier: Apache-2.0
//
// Lawn's CUDA kernels. The CMake target compiles this file into every program that links lawn::lawn
// with CUDA; it includes nothing of torch.

#include <lawn/companions/cuda/entries.h>
#include <lawn/folded/cuda/entries.h>
#include <lawn/sphere/cuda/entries.h>
#include <lawn/companions/cuda/launchers.cuh>
#include <lawn/folded/cuda/launchers.cuh>
#include <lawn/sphere/cuda/launchers.cuh>

namespace {

[[maybe_unused]] const bool kRegistered = [] {
  lawn::sphere::cuda::entries = &lawn::sphere::cuda::kEntries;
  lawn::detail::folded::cuda::entries = &lawn::detail::folded::cuda::kEntries;
  lawn::detail::companions::cuda::entries = &lawn::detail::companions::cuda::kEntries;
  return true;
}();

}  // namespace
