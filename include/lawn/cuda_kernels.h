// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>
#include <c10/core/DeviceType.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <lawn/sphere/cuda/call.h>

namespace lawn {

/// Whether lawn's own CUDA kernels do the work for tensors on `device`. Otherwise ATen does it: the
/// results are the same up to rounding, the steps take longer, and `make_capturable()` is refused,
/// since it needs the kernels of a build with nvcc.
///
/// The result is false for a device that is not a GPU, on a machine without GPUs, in a program that
/// was built without nvcc or with `LAWN_CUDA=OFF`, and for a GPU for which the kernels were not
/// compiled (`TORCH_CUDA_ARCH_LIST`). A warning names such a GPU once.
/// @param device  without an index: the current one
/// @note  the first question about a GPU loads a kernel there; it does not wait for the device
inline bool has_cuda_kernels(at::Device device = c10::DeviceType::CUDA) {
  if (!device.is_cuda() || !c10::impl::hasDeviceGuardImpl(device.type())) return false;
  const c10::DeviceIndex count = c10::impl::VirtualGuardImpl(device.type()).deviceCount();
  return device.index() < count && count > 0 && sphere::cuda::has_kernels(device);
}

}  // namespace lawn
