// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/sphere/flat.h>

/// The interface between the two halves of the CUDA code. One half uses torch, and the host
/// compiler compiles it with every program; the other half, the kernels, uses CUDA, and nvcc
/// compiles it once, if there is an nvcc. This header uses neither. Each family of kernels has such
/// a table of its own; `kernels.cu` sets the tables.
namespace lawn::sphere::cuda {

/// A function on layers. All layers of a call lie on the current device, and `stream` is a
/// cudaStream_t. The function neither waits for the device nor allocates.
/// @return null, or CUDA's text for the error
using LayersEntry = const char* (*)(const Flat* layers, std::int64_t count, void* workspace,
                                    void* stream);

/// The functions that the spheres' kernels offer.
struct Entries {
  /// Whether there are kernels for these dtypes.
  bool (*takes)(Dtype weight, Dtype gradient) = nullptr;
  /// Bytes of device memory, aligned to 16, that a call with these layers needs as `workspace`.
  std::int64_t (*workspace_bytes)(const Flat* layers, std::int64_t count) = nullptr;
  /// Writes the norm of each sphere into `radius`.
  LayersEntry norms = nullptr;
  /// Does what `sphere::project_to_tangent_` does; skips a layer without a gradient.
  LayersEntry project_to_tangent = nullptr;
  /// Does what `sphere::rescale_` does.
  LayersEntry rescale = nullptr;

  /// Whether launches on `stream` are captured in a graph instead of being carried out.
  bool (*is_capturing)(void* stream) = nullptr;
  /// Null if the kernels hold code for the current device, else CUDA's text for the error. Loads
  /// one of the kernels, and leaves no CUDA error set.
  const char* (*missing_code)() = nullptr;
  /// The architectures for which the kernels were compiled, as in "750,800,900".
  const char* architectures = nullptr;
};

/// Null in a program without kernels. A program with kernels sets it when it starts.
inline const Entries* entries = nullptr;

}  // namespace lawn::sphere::cuda
