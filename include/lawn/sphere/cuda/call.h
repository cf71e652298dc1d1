// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/cuda/launch.h>
#include <lawn/sphere/flat.h>

namespace lawn::sphere::cuda {

/// Whether this program has kernels for tensors on `device`.
inline bool has_kernels(at::Device device) { return device.is_cuda() && launchers != nullptr; }

/// Calls `launch(workspace, stream)` with `device` current, its current stream and so many bytes of
/// workspace. These come from LibTorch's caching allocator, which knows streams and CUDA graphs,
/// and asks the device for nothing after the first step.
/// @param launch  returns null, or what went wrong
template <class Launch>
void call(at::Device device, std::int64_t workspace_bytes, const Launch& launch) {
  const c10::DeviceGuard guard(device);
  // The tests run the kernels on the host, which has no streams.
  void* stream = device.is_cpu()
                     ? nullptr
                     : c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
  const auto workspace = at::empty({workspace_bytes}, at::TensorOptions(device).dtype(at::kByte));
  const char* error = launch(workspace.data_ptr(), stream);
  TORCH_CHECK(error == nullptr, "lawn: launching a kernel on ", device, " failed: ", error);
}

/// Calls a function of `launchers` with `layers`, all on `device`.
inline void call(at::Device device, LayersLauncher Launchers::*function,
                 const std::vector<Flat>& layers) {
  const auto count = static_cast<std::int64_t>(layers.size());
  call(device, launchers->workspace_bytes(layers.data(), count),
       [&](void* workspace, void* stream) {
         return (launchers->*function)(layers.data(), count, workspace, stream);
       });
}

}  // namespace lawn::sphere::cuda
