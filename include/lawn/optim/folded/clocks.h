// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/layer.h>
#include <lawn/sphere/sphere.h>

namespace lawn::detail {

/// LAWN's phase in memory of the layers' devices, so that a captured step goes through the switch.
/// A clock is `[2]`, int64: {steps done, how many there are before the switch}. The step at which
/// both are equal takes the radii, which are 0, free spheres, until then.
class Clocks {
 public:
  /// In place of the steps before the switch, where there was one or will be none.
  static constexpr int64_t kSwitched = -1;

  Clocks(c10::ArrayRef<sphere::Layer> layers, int64_t steps, int64_t switch_at) {
    for (const auto& layer : layers) {
      if (find(layer.weight.device()) == nullptr) add(layer.weight.device(), steps, switch_at);
    }
    if (clocks_.empty()) add(at::kCPU, steps, switch_at);
  }

  /// That of `device`.
  const at::Tensor& on(at::Device device) const {
    const at::Tensor* clock = find(device);
    TORCH_CHECK(clock != nullptr,
                "lawn::LAWN: expected the constrained tensors where they were "
                "when make_capturable() was called, got one on ",
                device, ": move the model before that");
    return *clock;
  }

  /// Counts a step. Does not wait for the device.
  void advance() const {
    for (const auto& [device, clock] : clocks_) clock.select(0, 0).add_(1);
  }

  /// Says that the radii are taken.
  void set_switched() const {
    for (const auto& [device, clock] : clocks_) clock.select(0, 1).fill_(kSwitched);
  }

  /// {steps done, whether the radii are taken}. Waits for the device.
  std::pair<int64_t, bool> read() const {
    const auto clock = clocks_.front().second.cpu();
    const auto* numbers = clock.const_data_ptr<int64_t>();
    return {numbers[0], numbers[1] == kSwitched || numbers[0] > numbers[1]};
  }

  /// Takes the radii if this is the step for it: norms, 0 where they are not finite. On a GPU that
  /// is a pass over the weights in each step, which kernels that read the clock do without.
  void take_radii(c10::ArrayRef<sphere::Layer> layers) const {
    const at::NoGradGuard no_grad;
    std::vector<sphere::Layer> due;
    for (const auto& layer : layers) {
      if (!layer.weight.is_cpu() || is_due(on(layer.weight.device()))) due.push_back(layer);
    }
    const auto norms = sphere::norms(due);
    for (std::size_t i = 0; i < due.size(); ++i) {
      const auto& radius = due[i].radius;
      const auto usable = at::where(at::isfinite(norms[i]), norms[i], 0.0);
      const auto& clock = on(due[i].weight.device());
      radius.copy_(at::where(clock.select(0, 0) == clock.select(0, 1), usable, radius));
    }
  }

 private:
  void add(at::Device device, int64_t steps, int64_t switch_at) {
    auto clock = at::full({2}, steps, at::TensorOptions(device).dtype(at::kLong));
    clock.select(0, 1).fill_(switch_at);
    clocks_.emplace_back(device, std::move(clock));
  }

  const at::Tensor* find(at::Device device) const {
    const auto found = std::find_if(clocks_.begin(), clocks_.end(),
                                    [&](const auto& clock) { return clock.first == device; });
    return found == clocks_.end() ? nullptr : &found->second;
  }

  /// @param clock  on the CPU
  static bool is_due(const at::Tensor& clock) {
    const auto* numbers = clock.const_data_ptr<int64_t>();
    return numbers[0] == numbers[1];
  }

  std::vector<std::pair<at::Device, at::Tensor>> clocks_;
};

}  // namespace lawn::detail
