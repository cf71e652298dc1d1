// SPDX-License-Identifier: Apache-2.0
//
// The kernels' half of the CUDA table. The CMake target compiles it into every program that links
// lawn::lawn with CUDA; it includes nothing of torch.

#include <lawn/sphere/cuda/launch.h>
#include <lawn/sphere/cuda/launchers.cuh>

namespace {

[[maybe_unused]] const bool kRegistered = [] {
  lawn::sphere::cuda::launchers = &lawn::sphere::cuda::kLaunchers;
  return true;
}();

}  // namespace
