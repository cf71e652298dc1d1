// SPDX-License-Identifier: Apache-2.0
//
// The kernels' half of the CUDA table. The CMake target compiles it into every program that links
// lawn::lawn with CUDA; it includes nothing of torch.

#include <lawn/sphere/cuda/launch.h>

/// What a linker can be told to pull (`-u`), so that the object of this file is not left behind in
/// a static archive. Weak, since an executable and a library may each hold one.
extern "C" __attribute__((weak)) void lawn_sphere_cuda_anchor() {}

namespace {

using lawn::sphere::Dtype;
using lawn::sphere::Flat;

bool takes(Dtype, Dtype) { return false; }
std::int64_t workspace_bytes(const Flat*, std::int64_t) { return 0; }
const char* launch(const Flat*, std::int64_t, void*, void*) { return nullptr; }

constexpr lawn::sphere::cuda::Launchers kLaunchers{takes, workspace_bytes, launch, launch, launch};

[[maybe_unused]] const bool kRegistered = [] {
  lawn::sphere::cuda::launchers = &kLaunchers;
  return true;
}();

}  // namespace
