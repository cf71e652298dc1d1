// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>
#include <c10/core/DeviceType.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <lawn/sphere/cuda/call.h>

namespace lawn {

/// Whether lawn's own CUDA kernels do the work for tensors on `device`. Otherwise ATen does it: the
/// results are the same up to rounding, and the steps take longer.
///
/// The result is false for a device that is not a GPU, on a machine without GPUs, in a program that
/// was built without nvcc or with `LAWN_CUDA=OFF` (`make_capturable()` is refused there on a GPU,
/// where nothing notices captures), for a GPU for which the kernels were not compiled
/// (`TORCH_CUDA_ARCH_LIST`), and where the driver is older than their CUDA. A warning names such a
/// GPU once.
/// @param device  without an index: the current one
/// @note  the first question about a GPU loads a kernel there; it does not wait for the device
inline bool has_cuda_kernels(at::Device device = c10::DeviceType::CUDA) {
  if (!device.is_cuda() || !c10::impl::hasDeviceGuardImpl(device.type())) return false;
  const c10::DeviceIndex count = c10::impl::VirtualGuardImpl(device.type()).deviceCount();
  return device.index() < count && count > 0 && sphere::cuda::has_kernels(device);
}

}  // namespace lawn
