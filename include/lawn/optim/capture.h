// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <lawn/sphere/cuda/launch.h>

/// Whether a CUDA graph is being captured. LibTorch says so in headers alone that need the CUDA
/// toolkit's; lawn's kernels, which were compiled with these, pass the question on.
namespace lawn::detail {

/// Whether a capture on `device` would be noticed.
inline bool notices_captures(at::Device device) {
  return !device.is_cuda() || sphere::cuda::launchers != nullptr;
}

inline bool current_stream_captures(at::Device device) {
  if (!device.is_cuda() || sphere::cuda::launchers == nullptr) return false;
  const auto stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  return sphere::cuda::launchers->is_capturing(stream.native_handle());
}

/// Whether the current stream of a device is being captured. A variable, so that tests can put
/// something else into it where there is no GPU.
inline bool (*is_capturing)(at::Device device) = &current_stream_captures;

}  // namespace lawn::detail
