// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/companions/flat.h>
#include <lawn/sphere/cuda/entries.h>
#include <lawn/sphere/flat.h>

/// The functions that the companions' kernels offer, in the manner of `sphere/cuda/entries.h`.
namespace lawn::detail::companions::cuda {

struct Entries {
  /// Does what `lawn::center_rows_` does, with each sphere a row; needs the same workspace as the
  /// spheres' norms.
  sphere::cuda::LayersEntry center_rows = nullptr;
  /// Do what `zero_pruned_`, `add_penalty_` and `unify_frozen_` do; they need no workspace.
  const char* (*zero_pruned)(const FlatPruned* list, std::int64_t count, void* stream) = nullptr;
  const char* (*add_penalty)(const FlatPenalty* list, std::int64_t count, double rho,
                             void* stream) = nullptr;
  const char* (*unify_frozen)(const FlatUnified* list, std::int64_t count, void* stream) = nullptr;
};

/// Null in a program without kernels.
inline const Entries* entries = nullptr;

}  // namespace lawn::detail::companions::cuda
