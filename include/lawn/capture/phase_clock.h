// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/functions.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/usable_radii.h>

namespace lawn::detail::capture {

/// Knows the number of the step, and whether LAWN has switched to its constrained phase. Both live
/// on the host until `move_to_devices`. From then on they live in memory of the layers' devices, so
/// that a captured step goes through the switch; reading them then waits for the current stream,
/// which must be that of the steps and replays, or ordered after it.
///
/// A clock on a device is `[2]`, int64: {steps done, steps before the switch}. The step at which
/// both are equal takes the radii, which are 0 (free spheres) until then.
class PhaseClock {
 public:
  bool on_devices() const { return !clocks_.empty(); }

  /// Number of steps done. Waits for the current stream after `move_to_devices`.
  int64_t steps() const { return on_devices() ? read().first : steps_; }

  /// Whether the switch is done. Waits for the current stream after `move_to_devices`.
  bool switched() const { return on_devices() ? read().second : switched_; }

  /// Whether the host must switch in this step. A clock on the devices switches by itself.
  bool is_due(int64_t free_steps) const {
    return !on_devices() && !switched_ && steps_ >= free_steps;
  }

  /// Whether this step may be a constrained one. Does not wait: with clocks on the devices it is
  /// true, and the radii decide.
  bool may_constrain() const { return on_devices() || switched_; }

  /// Counts a step. Does not wait for the device.
  void advance() {
    ++steps_;
    for (const auto& [device, clock] : clocks_) clock.select(0, 0).add_(1);
  }

  /// Marks the switch as done, when the radii are taken. Does not wait for the device.
  void set_switched() {
    switched_ = true;
    for (const auto& [device, clock] : clocks_) clock.select(0, 1).fill_(kSwitched);
  }

  /// Sets both numbers, and moves them back to the host.
  void set(int64_t steps, bool switched) {
    steps_ = steps;
    switched_ = switched;
    clocks_.clear();
  }

  /// Moves the numbers of the host to the devices of `layers`.
  /// @param free_steps  the step with this number switches, or the next one if that step is done
  /// @param radius_scale  factor from norms to radii
  void move_to_devices(c10::ArrayRef<sphere::Layer> layers, int64_t free_steps,
                       double radius_scale) {
    radius_scale_ = radius_scale;
    const int64_t switch_at = switched_ ? kSwitched : std::max(free_steps, steps_);
    clocks_.clear();
    for (const auto& layer : layers) {
      if (find(layer.weight.device()) == nullptr) add(layer.weight.device(), switch_at);
    }
    if (clocks_.empty()) add(at::kCPU, switch_at);
  }

  /// Refuses a layer on a device without a clock, if the numbers live on the devices.
  void check(c10::ArrayRef<sphere::Layer> layers) const {
    if (!on_devices()) return;
    for (const auto& layer : layers) on(layer.weight.device());
  }

  /// The clock of `device`; null if the numbers live on the host.
  const int64_t* data_on(at::Device device) const {
    return on_devices() ? on(device).const_data_ptr<int64_t>() : nullptr;
  }

  /// Factor from norms to the radii that a step takes.
  double radius_scale() const { return radius_scale_; }

  /// Takes the radii of `layers`, by `sphere::usable_radii`, if the numbers live on the devices and
  /// this step takes radii. On a GPU this costs a pass over the weights in each step, which kernels
  /// that read the clock avoid.
  void take_radii(c10::ArrayRef<sphere::Layer> layers) const {
    if (!on_devices()) return;
    const at::NoGradGuard no_grad;
    std::vector<sphere::Layer> due;
    for (const auto& layer : layers) {
      if (!layer.weight.is_cpu() || is_due_on(layer.weight.device())) due.push_back(layer);
    }
    const auto norms = sphere::norms(due);
    for (std::size_t i = 0; i < due.size(); ++i) {
      const auto& radius = due[i].radius;
      const at::Tensor& weight = due[i].weight;
      const auto numel = static_cast<double>(weight.numel()) /
                         static_cast<double>(std::max<int64_t>(radius.numel(), 1));
      const auto usable =
          sphere::usable_radii(norms[i], radius_scale_, weight.scalar_type(), numel);
      const auto& clock = on(due[i].weight.device());
      radius.copy_(at::where(clock.select(0, 0) == clock.select(0, 1), usable, radius));
    }
  }

 private:
  /// Replaces the number of steps before the switch once the switch is done.
  static constexpr int64_t kSwitched = -1;

  void add(at::Device device, int64_t switch_at) {
    auto clock = at::full({2}, steps_, at::TensorOptions(device).dtype(at::kLong));
    clock.select(0, 1).fill_(switch_at);
    clocks_.emplace_back(device, std::move(clock));
  }

  const at::Tensor* find(at::Device device) const {
    const auto found = std::find_if(clocks_.begin(), clocks_.end(),
                                    [&](const auto& clock) { return clock.first == device; });
    return found == clocks_.end() ? nullptr : &found->second;
  }

  const at::Tensor& on(at::Device device) const {
    const at::Tensor* clock = find(device);
    TORCH_CHECK(clock != nullptr,
                "lawn::LAWN: expected the constrained tensors where they were "
                "when make_capturable() was called, got one on ",
                device, ": move the model before that; nothing was changed");
    return *clock;
  }

  /// {steps done, whether the radii are taken}
  std::pair<int64_t, bool> read() const {
    const auto clock = clocks_.front().second.cpu();
    const auto* numbers = clock.const_data_ptr<int64_t>();
    return {numbers[0], numbers[1] == kSwitched || numbers[0] > numbers[1]};
  }

  /// @param device  the CPU
  bool is_due_on(at::Device device) const {
    const auto* numbers = on(device).const_data_ptr<int64_t>();
    return numbers[0] == numbers[1];
  }

  int64_t steps_ = 0;  // the host's
  bool switched_ = false;
  double radius_scale_ = 1;                                // for the clocks on the devices
  std::vector<std::pair<at::Device, at::Tensor>> clocks_;  // one for each device
};

}  // namespace lawn::detail::capture
