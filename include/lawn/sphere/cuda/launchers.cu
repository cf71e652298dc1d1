// SPDX-License-Identifier: Apache-2.0
//
// The kernels' half of the CUDA table. The CMake target compiles it into every program that links
// lawn::lawn with CUDA; it includes nothing of torch.

#include <lawn/sphere/cuda/launch.h>
#include <lawn/sphere/cuda/launchers.cuh>

/// What a linker can be told to pull (`-u`), so that the object of this file is not left behind in
/// a static archive. Weak, since an executable and a library may each hold one.
extern "C" __attribute__((weak)) void lawn_sphere_cuda_anchor() {}

namespace {

[[maybe_unused]] const bool kRegistered = [] {
  lawn::sphere::cuda::launchers = &lawn::sphere::cuda::kLaunchers;
  return true;
}();

}  // namespace
