// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/folded/step.h>

/// The functions that the kernels of the folded steps offer, in the manner of
/// `sphere/cuda/entries.h`.
namespace lawn::detail::folded::cuda {

/// Steps layers on the current device once, as `folded/step.h` says. A layer without a gradient is
/// skipped; one without a radius is projected but not rescaled.
/// @return null, or CUDA's text for the error
template <class Step>
using StepEntry = const char* (*)(const FlatLayer* layers, std::int64_t count, const Step& step,
                                  void* workspace, void* stream);

struct Entries {
  /// Number of bytes of device memory, aligned to 16, that a step needs as `workspace`.
  std::int64_t (*workspace_bytes)(const FlatLayer* layers, std::int64_t count) = nullptr;
  StepEntry<Adam> adam = nullptr;
  StepEntry<SGD> sgd = nullptr;
  /// The same with numbers that are read on the device, so that a captured launch can be replayed
  /// with other numbers. They need `kPreparedBytes` more bytes of workspace.
  StepEntry<DeviceAdam> device_adam = nullptr;
  StepEntry<DeviceSGD> device_sgd = nullptr;
};

/// Null in a program without kernels.
inline const Entries* entries = nullptr;

}  // namespace lawn::detail::folded::cuda
