// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include <c10/core/Device.h>

#include <lawn/folded/cpu.h>
#include <lawn/folded/cuda/entries.h>
#include <lawn/folded/step.h>
#include <lawn/sphere/cuda/call.h>

namespace lawn::detail::folded {

/// Whether there are folded steps for layers on `device`.
inline bool has_steps(at::Device device) {
  return device.is_cpu() || sphere::cuda::has_kernels(device);
}

namespace detail {
inline auto entry_of(const Adam& /*step*/) { return cuda::entries->adam; }
inline auto entry_of(const SGD& /*step*/) { return cuda::entries->sgd; }
inline auto entry_of(const DeviceAdam& /*step*/) { return cuda::entries->device_adam; }
inline auto entry_of(const DeviceSGD& /*step*/) { return cuda::entries->device_sgd; }

template <class Step>
void launch(at::Device device, const std::vector<FlatLayer>& layers, const Step& step,
            std::int64_t more_bytes) {
  const auto count = static_cast<std::int64_t>(layers.size());
  const auto bytes = cuda::entries->workspace_bytes(layers.data(), count);
  sphere::cuda::call(device, bytes + more_bytes, [&](void* workspace, void* stream) {
    return entry_of(step)(layers.data(), count, step, workspace, stream);
  });
}

/// The numbers of a step, read from the host's memory.
inline Adam read_numbers(const DeviceAdam& step) {
  const double lr = *step.at.lr;
  const auto count = static_cast<double>(*step.at.step_count);
  return {step.beta1,
          step.beta2,
          step.eps,
          lr / (1 - std::pow(step.beta1, count)),
          std::sqrt(1 - std::pow(step.beta2, count)),
          1 - lr * step.decoupled_decay};
}
inline SGD read_numbers(const DeviceSGD& step) {
  return {*step.at.lr, step.momentum, step.dampening, step.nesterov, step.first};
}
}  // namespace detail

/// Steps `layers` once; all lie on `device`, which must have folded steps. Does not wait for the
/// device.
/// @tparam Step  Adam or SGD
template <class Step>
void step(at::Device device, const std::vector<FlatLayer>& layers, const Step& step) {
  if (device.is_cpu()) return cpu::step(layers, step);
  detail::launch(device, layers, step, 0);
}

/// The same with numbers on `device`. On the CPU the radii must be taken beforehand, since only the
/// kernels read the clock.
/// @tparam Step  DeviceAdam or DeviceSGD
template <class Step>
void step_on_device(at::Device device, const std::vector<FlatLayer>& layers, const Step& step) {
  if (device.is_cpu()) return cpu::step(layers, detail::read_numbers(step));
  detail::launch(device, layers, step, kPreparedBytes);
}

}  // namespace lawn::detail::folded
