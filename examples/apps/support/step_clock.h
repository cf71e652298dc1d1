// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>
#include <torch/cuda.h>

#include <chrono>
#include <cstdint>
#include <functional>

namespace examples {

/// Seconds that training took, without the measuring of each epoch.
struct StepTimes {
  double whole = 0;      ///< of all steps
  double optimizer = 0;  ///< of those calls of optimizer.step() that were timed
  int64_t timed = 0;     ///< how many were

  double optimizer_per_step() const {
    return timed > 0 ? optimizer / static_cast<double>(timed) : 0;
  }
};

/// Measures how long steps take, on a device that may still be at work when a call returns.
class StepClock {
 public:
  explicit StepClock(at::Device device) : device_(device) {}

  const StepTimes& times() const { return times_; }
  /// The times, for a checkpoint to refer to.
  StepTimes& times() { return times_; }

  /// Steps begin now.
  void start() { start_ = Clock::now(); }

  /// Steps end now: adds the time since start().
  void stop() {
    wait();
    times_.whole += seconds_since(start_);
    start();
  }

  /// Runs `optimizer_step` and times it: always on a CPU; elsewhere, where timing has to wait for
  /// the device, one step in 16, so that the waiting does not slow training down.
  void time_optimizer(int64_t step, const std::function<void()>& optimizer_step) {
    constexpr int64_t kEvery = 16;
    if (!device_.is_cpu() && step % kEvery != 0) return optimizer_step();
    wait();
    const Clock::time_point begin = Clock::now();
    optimizer_step();
    wait();
    times_.optimizer += seconds_since(begin);
    ++times_.timed;
  }

 private:
  using Clock = std::chrono::steady_clock;

  static double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  void wait() const {
    if (!device_.is_cpu()) torch::cuda::synchronize(device_.index());
  }

  at::Device device_;
  StepTimes times_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace examples
