// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <torch/torch.h>

#include <lawn/capture/stream.h>

#include "tests/support/equal.h"

/// What tests of capturable steps have in common.
namespace lawn::testing {

/// While it lives, every stream seems to be captured.
class PretendedCapture {
 public:
  PretendedCapture() {
    lawn::detail::capture::is_capturing = [](at::Device) { return true; };
  }
  ~PretendedCapture() {
    lawn::detail::capture::is_capturing = &lawn::detail::capture::current_stream_captures;
  }
  PretendedCapture(const PretendedCapture&) = delete;
  PretendedCapture& operator=(const PretendedCapture&) = delete;
};

/// What a scheduler does. A float32 holds these rates, as what LibTorch's fused functions read of
/// them on a GPU.
inline void set_rates(torch::optim::Optimizer& optimizer, int64_t step) {
  double lr = static_cast<float>(0.01 / static_cast<double>(1 + step));
  for (auto& group : optimizer.param_groups()) group.options().set_lr(lr *= 2);
}

}  // namespace lawn::testing
