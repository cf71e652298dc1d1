// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>

#include <c10/core/Device.h>
#include <c10/core/DeviceType.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/FakeGuardImpl.h>

#include <lawn/sphere/cuda/call.h>
#include <lawn/sphere/cuda/entries.h>

namespace lawn::testing {

/// Eight GPUs, as far as the current device goes, and `entries` for them while it lives. What was
/// known of the kernels on each device is forgotten before and after.
class FakeGpus {
 public:
  explicit FakeGpus(const sphere::cuda::Entries* entries)
      : guard_before_(registry().exchange(&guard_)), entries_before_(sphere::cuda::entries) {
    sphere::cuda::entries = entries;
    forget();
  }
  FakeGpus(const FakeGpus&) = delete;
  FakeGpus& operator=(const FakeGpus&) = delete;
  ~FakeGpus() {
    forget();
    Guard::setDeviceIndex(0);
    sphere::cuda::entries = entries_before_;
    registry().store(guard_before_);
  }

  static int current() { return Guard::getDeviceIndex(); }
  static void set_current(int device) {
    Guard::setDeviceIndex(static_cast<c10::DeviceIndex>(device));
  }

 private:
  using Guard = c10::impl::FakeGuardImpl<c10::DeviceType::CUDA>;

  static std::atomic<const c10::impl::DeviceGuardImplInterface*>& registry() {
    return c10::impl::device_guard_impl_registry[static_cast<std::size_t>(c10::DeviceType::CUDA)];
  }
  static void forget() {
    for (auto& code : sphere::cuda::detail::code_on) code = sphere::cuda::detail::Code::kNotAsked;
  }

  Guard guard_;
  const c10::impl::DeviceGuardImplInterface* guard_before_;
  const sphere::cuda::Entries* entries_before_;
};

}  // namespace lawn::testing
