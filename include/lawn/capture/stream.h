// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/optim/optimizer.h>

#include <lawn/sphere/cuda/entries.h>
#include <lawn/sphere/cuda/stream_handle.h>

/// Says whether a CUDA graph is being captured. LibTorch's headers for that need those of the CUDA
/// toolkit; lawn's kernels, which were compiled with the toolkit, ask CUDA instead.
namespace lawn::detail::capture {

/// Whether a capture on `device` would be noticed.
inline bool notices_captures(at::Device device) {
  return !device.is_cuda() || sphere::cuda::entries != nullptr;
}

inline bool current_stream_captures(at::Device device) {
  if (!device.is_cuda() || sphere::cuda::entries == nullptr) return false;
  const auto stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  return sphere::cuda::entries->is_capturing(sphere::cuda::stream_handle(stream));
}

/// Whether the current stream of a device is being captured. It is a variable, so that tests can
/// replace it on machines without a GPU.
inline bool (*is_capturing)(at::Device device) = &current_stream_captures;

/// The devices on which `parameters` lie.
inline std::vector<at::Device> devices_of(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Device> devices;
  for (const at::Tensor& parameter : parameters) {
    const auto device = parameter.device();
    if (std::find(devices.begin(), devices.end(), device) == devices.end()) {
      devices.push_back(device);
    }
  }
  return devices;
}

/// Whether one of the parameters lies on a device whose current stream is being captured.
inline bool any_captures(const std::vector<torch::optim::OptimizerParamGroup>& groups) {
  return std::any_of(groups.begin(), groups.end(), [](const auto& group) {
    const auto devices = devices_of(group.params());
    return std::any_of(devices.begin(), devices.end(), is_capturing);
  });
}

}  // namespace lawn::detail::capture
