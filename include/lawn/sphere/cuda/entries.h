// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/sphere/flat.h>

/// Where the two halves of the CUDA code meet: what knows torch and is compiled by the host compiler
/// with every program, and the kernels, which know CUDA and are compiled by nvcc once, where there
/// is one. Free of both. Each family of kernels has such a table of its own; `kernels.cu` sets them.
namespace lawn::sphere::cuda {

/// A function that works on layers. All layers of a call lie on the current device; `stream` is a
/// cudaStream_t; it neither waits for the device nor allocates.
/// @return null, or what CUDA says went wrong
using LayersEntry = const char* (*)(const Flat* layers, std::int64_t count, void* workspace,
                                    void* stream);

/// What the spheres' kernels offer.
struct Entries {
  /// Whether there are kernels for these dtypes.
  bool (*takes)(Dtype weight, Dtype gradient) = nullptr;
  /// Bytes of device memory, aligned to 16, that a call with these layers needs as `workspace`.
  std::int64_t (*workspace_bytes)(const Flat* layers, std::int64_t count) = nullptr;
  /// Norm of each sphere into `radius`.
  LayersEntry norms = nullptr;
  /// As `sphere::project_to_tangent_`; a layer without a gradient is passed over.
  LayersEntry project_to_tangent = nullptr;
  /// As `sphere::rescale_`.
  LayersEntry rescale = nullptr;

  /// Whether launches on `stream` are being captured in a graph and not carried out.
  bool (*is_capturing)(void* stream) = nullptr;
  /// What CUDA says if the kernels hold no code for the current device, null if they do. Loads one
  /// of them; leaves no error behind.
  const char* (*missing_code)() = nullptr;
  /// The architectures that the kernels were compiled for, as in "750,800,900".
  const char* architectures = nullptr;
};

/// Null in a program without kernels. A program with kernels sets it when it starts.
inline const Entries* entries = nullptr;

}  // namespace lawn::sphere::cuda
