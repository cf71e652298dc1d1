// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/companions/cuda/entries.h>
#include <lawn/companions/cuda/lists.h>
#include <lawn/companions/flat.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/cuda/tuning.h>
#include <lawn/sphere/flat.h>
#include <lawn/companions/cuda/kernels.cuh>
#include <lawn/companions/cuda/operations.cuh>
#include <lawn/companions/cuda/unify.cuh>
#include <lawn/sphere/cuda/launch_kernel.cuh>
#include <lawn/sphere/cuda/launch_lists.cuh>

/// The host's side of the companions' kernels. The functions that load them are static, as
/// `sphere::cuda::load_kernels` is.
namespace lawn::detail::companions::cuda {
namespace {

using sphere::cuda::kFewLayers;
using sphere::cuda::kManyLayers;
using sphere::cuda::kManyWideEntries;
using sphere::cuda::Limits;
using sphere::cuda::Needs;

static const char* load_centring() {
  static sphere::cuda::LoadedDevices loaded{};
  return sphere::cuda::load_once(loaded, {sphere::cuda::load_passes<Centring, kFewLayers>,
                                          sphere::cuda::load_passes<Centring, kManyLayers>});
}

inline const char* center_rows(const sphere::Flat* rows, std::int64_t count, void* workspace,
                               void* stream, const Limits& limits = {}) {
  if (const char* error = load_centring()) return error;
  return sphere::cuda::launch_passes<Centring>(rows, count, workspace, stream, limits);
}

template <template <class, class> class Operation, class List>
const char* load_each_element() {
  return sphere::cuda::load_kernel(each_element<Operation, List>);
}

template <template <class, class> class Operation, template <int> class List, int kMany>
static const char* load_elementwise() {
  static sphere::cuda::LoadedDevices loaded{};
  return sphere::cuda::load_once(loaded, {load_each_element<Operation, List<kFewLayers>>,
                                          load_each_element<Operation, List<kMany>>});
}

/// Launches `each_element`, once for each list.
/// @param prepare  called with each list before its launch
template <template <class, class> class Operation, template <int> class List, int kMany, class Item,
          class Prepare>
const char* launch_elementwise(const Item* items, std::int64_t count, void* stream,
                               const Limits& limits, const Prepare& prepare) {
  if (const char* error = load_elementwise<Operation, List, kMany>()) return error;
  return sphere::cuda::launch_lists<List, kMany>(items, count, Needs{}, limits, [&](auto& list) {
    prepare(list);
    return sphere::cuda::launch(
        each_element<Operation, List<sphere::cuda::kCapacityOf<decltype(list)>>>,
        list.first_block[list.layers], static_cast<cudaStream_t>(stream), list);
  });
}

inline const char* zero_pruned(const FlatPruned* items, std::int64_t count, void* stream,
                               const Limits& limits = {}) {
  return launch_elementwise<Zeroing, PrunedList, kManyLayers>(items, count, stream, limits,
                                                              [](auto&) {});
}

inline const char* add_penalty(const FlatPenalty* items, std::int64_t count, double rho,
                               void* stream, const Limits& limits = {}) {
  return launch_elementwise<Penalty, PenaltyList, kManyWideEntries>(
      items, count, stream, limits, [rho](auto& list) { list.rho = rho; });
}

template <int kCapacity>
const char* load_unify() {
  return sphere::cuda::load_kernel(unify_blocks<kCapacity>);
}

static const char* load_unifying() {
  static sphere::cuda::LoadedDevices loaded{};
  return sphere::cuda::load_once(loaded, {load_unify<kFewLayers>, load_unify<kManyWideEntries>});
}

/// Launches `unify_blocks`, once for each list.
inline const char* unify_frozen(const FlatUnified* items, std::int64_t count, void* stream,
                                const Limits& limits = {}) {
  if (const char* error = load_unifying()) return error;
  return sphere::cuda::launch_lists<UnifiedList, kManyWideEntries>(
      items, count, Needs{}, limits, [&](auto& list) {
        return sphere::cuda::launch(unify_blocks<sphere::cuda::kCapacityOf<decltype(list)>>,
                                    list.first_block[list.layers],
                                    static_cast<cudaStream_t>(stream), list);
      });
}

constexpr Entries kEntries = [] {
  Entries all;
  all.center_rows = [](const sphere::Flat* rows, std::int64_t count, void* workspace,
                       void* stream) { return center_rows(rows, count, workspace, stream); };
  all.zero_pruned = [](const FlatPruned* items, std::int64_t count, void* stream) {
    return zero_pruned(items, count, stream);
  };
  all.add_penalty = [](const FlatPenalty* items, std::int64_t count, double rho, void* stream) {
    return add_penalty(items, count, rho, stream);
  };
  all.unify_frozen = [](const FlatUnified* items, std::int64_t count, void* stream) {
    return unify_frozen(items, count, stream);
  };
  return all;
}();

}  // namespace
}  // namespace lawn::detail::companions::cuda
