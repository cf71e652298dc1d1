// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/folded/step.h>

/// What the kernels of the folded steps offer: as `sphere/cuda/entries.h`.
namespace lawn::detail::folded::cuda {

/// One step of layers on the current device, as `folded/step.h` says. A layer without a gradient is
/// passed over; one without a radius is projected and not rescaled.
/// @return null, or what CUDA says went wrong
template <class Step>
using StepEntry = const char* (*)(const FlatLayer* layers, std::int64_t count, const Step& step,
                                  void* workspace, void* stream);

struct Entries {
  /// Bytes of device memory, aligned to 16, that a step needs as `workspace`.
  std::int64_t (*workspace_bytes)(const FlatLayer* layers, std::int64_t count) = nullptr;
  StepEntry<Adam> adam = nullptr;
  StepEntry<SGD> sgd = nullptr;
  /// The same with numbers that are read on the device, so that a captured launch can be replayed
  /// with others. They need `kPreparedBytes` more of workspace.
  StepEntry<DeviceAdam> device_adam = nullptr;
  StepEntry<DeviceSGD> device_sgd = nullptr;
};

/// Null in a program without kernels.
inline const Entries* entries = nullptr;

}  // namespace lawn::detail::folded::cuda
