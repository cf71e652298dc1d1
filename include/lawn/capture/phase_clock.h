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

/// Which step it is, and whether the switch to LAWN's constrained phase lies behind. The answers are
/// numbers of the host until `move_to_devices`. From then on they lie in memory of the layers'
/// devices, so that a captured step goes through the switch; to ask for them waits for the device.
///
/// A clock of a device is `[2]`, int64: {steps done, steps before the switch}. The step at which
/// both are equal takes the radii, which are 0, free spheres, until then.
class PhaseClock {
 public:
  bool on_devices() const { return !clocks_.empty(); }

  /// Steps done. Waits for the device after `move_to_devices`.
  int64_t steps() const { return on_devices() ? read().first : steps_; }

  /// Whether the switch lies behind. Waits for the device after `move_to_devices`.
  bool switched() const { return on_devices() ? read().second : switched_; }

  /// Whether the host calls for the switch in this step. A clock on the devices switches by itself.
  bool is_due(int64_t free_steps) const {
    return !on_devices() && !switched_ && steps_ >= free_steps;
  }

  /// Whether this step may be a constrained one, without waiting: on the devices the radii tell.
  bool may_constrain() const { return on_devices() || switched_; }

  /// Counts a step. Does not wait for the device.
  void advance() {
    ++steps_;
    for (const auto& [device, clock] : clocks_) clock.select(0, 0).add_(1);
  }

  /// Puts the switch behind: the radii are taken. Does not wait for the device.
  void set_switched() {
    switched_ = true;
    for (const auto& [device, clock] : clocks_) clock.select(0, 1).fill_(kSwitched);
  }

  /// Sets both numbers, and makes them the host's.
  void set(int64_t steps, bool switched) {
    steps_ = steps;
    switched_ = switched;
    clocks_.clear();
  }

  /// Moves the numbers of the host to the devices of `layers`.
  /// @param free_steps  the switch falls into the step with this number, or the next one if that
  ///                    lies behind
  /// @param radius_scale  the radii are this times the norms
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

  /// The clock of `device`, null where the numbers are the host's.
  const int64_t* data_on(at::Device device) const {
    return on_devices() ? on(device).const_data_ptr<int64_t>() : nullptr;
  }

  /// What the radii that a step takes are times the norms.
  double radius_scale() const { return radius_scale_; }

  /// Takes the radii of `layers` if the numbers are the devices' and this is the step for it, as
  /// `sphere::usable_radii` has them. On a GPU that is a pass over the weights in each step, which
  /// kernels that read the clock do without.
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
  /// In place of the steps before the switch, where there was one or will be none.
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
                device, ": move the model before that");
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

  int64_t steps_ = 0;  // of the host
  bool switched_ = false;
  double radius_scale_ = 1;                                // of the clocks on the devices
  std::vector<std::pair<at::Device, at::Tensor>> clocks_;  // one for each device
};

}  // namespace lawn::detail::capture
