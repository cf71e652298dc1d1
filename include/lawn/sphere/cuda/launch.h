// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/companions/plain_memory.h>
#include <lawn/optim/folded/step.h>
#include <lawn/sphere/flat.h>

/// Where the two halves of the CUDA table meet: `table.h`, which knows torch and is compiled by the
/// host compiler with every program, and the kernels, which know CUDA and are compiled by nvcc
/// once, where there is one. Free of both.
namespace lawn::sphere::cuda {

/// What the kernels' half offers. All layers of a call lie on the current device; `stream` is a
/// cudaStream_t; nothing waits for the device or allocates. Each function that launches returns
/// null, or what CUDA says went wrong.
struct Launchers {
  /// Whether there are kernels for these dtypes.
  bool (*takes)(Dtype weight, Dtype gradient);
  /// Bytes of device memory, aligned to 16, that a call with these layers needs as `workspace`.
  std::int64_t (*workspace_bytes)(const Flat* layers, std::int64_t count);
  /// Norm of each sphere into `radius`.
  const char* (*norms)(const Flat* layers, std::int64_t count, void* workspace, void* stream);
  /// As `sphere::project_to_tangent_`; a layer without a gradient is passed over.
  const char* (*project_to_tangent)(const Flat* layers, std::int64_t count, void* workspace,
                                    void* stream);
  /// As `sphere::rescale_`.
  const char* (*rescale)(const Flat* layers, std::int64_t count, void* workspace, void* stream);

  /// As `workspace_bytes`, for the steps below.
  std::int64_t (*folded_workspace_bytes)(const folded::Layer* layers, std::int64_t count);
  /// As `folded/step.h` says; a layer without a gradient is passed over, and one without a radius
  /// is projected and not rescaled.
  const char* (*adam)(const folded::Layer* layers, std::int64_t count, const folded::Adam& step,
                      void* workspace, void* stream);
  const char* (*sgd)(const folded::Layer* layers, std::int64_t count, const folded::SGD& step,
                     void* workspace, void* stream);

  /// The same with numbers that are read on the device, so that a captured launch can be replayed
  /// with others. They need `folded::kPreparedBytes` more of workspace.
  const char* (*device_adam)(const folded::Layer* layers, std::int64_t count,
                             const folded::DeviceAdam& step, void* workspace, void* stream);
  const char* (*device_sgd)(const folded::Layer* layers, std::int64_t count,
                            const folded::DeviceSGD& step, void* workspace, void* stream);
  /// As `lawn::center_rows_`, where each sphere is a row; workspace as for `norms`.
  const char* (*center_rows)(const Flat* rows, std::int64_t count, void* workspace, void* stream);
  /// As `lawn::detail::zero_pruned_` and `add_penalty_`; they need no workspace.
  const char* (*zero_pruned)(const lawn::detail::PrunedRun* runs, std::int64_t count, void* stream);
  const char* (*add_penalty)(const lawn::detail::PenaltyRun* runs, std::int64_t count, double rho,
                             void* stream);
  /// As `lawn::detail::unify_frozen_`; needs no workspace.
  const char* (*unify_frozen)(const lawn::detail::UnifiedRun* runs, std::int64_t count,
                              void* stream);

  /// Whether launches on `stream` are being captured in a graph and not carried out.
  bool (*is_capturing)(void* stream);

  /// What CUDA says if the kernels hold no code for the current device, null if they do. Loads one
  /// of them; leaves no error behind.
  const char* (*missing_code)();
  /// The architectures that the kernels were compiled for, as in "750,800,900".
  const char* architectures;
};

/// One of the functions that work on layers.
using LayersLauncher = const char* (*)(const Flat*, std::int64_t, void*, void*);

/// Null in a program without the kernels' half. That half sets it when the program starts.
inline const Launchers* launchers = nullptr;

}  // namespace lawn::sphere::cuda
