// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <c10/core/Device.h>

#include <lawn/optim/folded/cpu.h>
#include <lawn/optim/folded/step.h>
#include <lawn/sphere/cuda/call.h>
#include <lawn/sphere/cuda/launch.h>

namespace lawn::folded {

/// Whether there are folded steps for layers on `device`.
inline bool has_steps(at::Device device) {
  return device.is_cpu() || (device.is_cuda() && sphere::cuda::launchers != nullptr);
}

namespace detail {
inline auto launcher_of(const Adam& /*step*/) { return sphere::cuda::launchers->adam; }
inline auto launcher_of(const SGD& /*step*/) { return sphere::cuda::launchers->sgd; }
}  // namespace detail

/// One step of `layers`, all on `device`, for which there is one. Does not wait for the device.
/// @tparam Step  Adam or SGD
template <class Step>
void step(at::Device device, const std::vector<Layer>& layers, const Step& step) {
  if (device.is_cpu()) return cpu::step(layers, step);
  const auto count = static_cast<std::int64_t>(layers.size());
  const auto bytes = sphere::cuda::launchers->folded_workspace_bytes(layers.data(), count);
  sphere::cuda::call(device, bytes, [&](void* workspace, void* stream) {
    return detail::launcher_of(step)(layers.data(), count, step, workspace, stream);
  });
}

}  // namespace lawn::folded
