// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/cuda/kernels.cuh>
#include <lawn/sphere/cuda/launch_kernel.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// Turns a call into launches, whatever they compute: one for each list of its items, one after the
/// other.
namespace lawn::sphere::cuda {
namespace {

/// The error for a layer that no list can hold.
constexpr const char* kTooManySpheres =
    "lawn: a layer has more spheres of its size than the kernels take";

/// Calls `launch(list)` for as many lists as the items need. A list is full when it has no room for
/// a further entry, or for a further one of its `kMaxSettings` settings.
template <class List, class Launch>
const char* for_each_list(const typename List::Item* items, const typename List::Item* end,
                          const Needs& needs, const Limits& limits, const Launch& launch) {
  List list;
  ListFiller<List> filler(list, needs, limits);
  while (items != end) {
    const auto* rest = filler.fill(items, end);
    if (rest == items) return kTooManySpheres;
    items = rest;
    if (const char* error = launch(list)) return error;
  }
  return nullptr;
}

/// The same with a list of `kFewLayers` if one suffices, else with lists of `kMany`.
template <template <int> class List, int kMany, class Item, class Launch>
const char* launch_lists(const Item* items, std::int64_t count, const Needs& needs,
                         const Limits& limits, const Launch& launch) {
  std::int64_t needed = 0;
  for (std::int64_t i = 0; i < count; ++i) needed += partition_of(items[i], needs, limits).entries;
  const Item* const end = items + count;
  if (needed <= kFewLayers) {
    return for_each_list<List<kFewLayers>>(items, end, needs, limits, launch);
  }
  return for_each_list<List<kMany>>(items, end, needs, limits, launch);
}

/// The capacity of a list, from its type.
template <class List>
constexpr int kCapacityOf = std::remove_reference_t<List>::kLayers;

template <template <class, class> class Operation, int kCapacity>
const char* load_passes() {
  if (const char* error = load_kernel(first_pass<Operation, kCapacity>)) return error;
  return load_kernel(second_pass<Operation, kCapacity>);
}

/// Makes two launches for each list, or one if no sphere is cut into chunks.
template <template <class, class> class Operation>
const char* launch_passes(const Flat* layers, std::int64_t count, void* workspace, void* stream,
                          const Limits& limits) {
  return launch_lists<LayerList, kManyLayers>(
      layers, count, Operation<float, float>::kNeeds, limits, [&](auto& list) -> const char* {
        constexpr int kCapacity = kCapacityOf<decltype(list)>;
        auto* const on = static_cast<cudaStream_t>(stream);
        const std::uint32_t blocks = list.first_block[list.layers];
        const std::uint32_t chunks = blocks - list.first_block[list.first_chunked];
        const auto chunked = static_cast<std::uint32_t>(list.layers - list.first_chunked);
        if (const char* error =
                launch(first_pass<Operation, kCapacity>, blocks, on, list, workspace)) {
          return error;
        }
        return launch(second_pass<Operation, kCapacity>,
                      Operation<float, float>::kPerElement ? chunks : chunked, on, list, workspace);
      });
}

/// Number of bytes of the slots, one for each chunk. The lists of one call follow one another on
/// the stream and could share slots, but several lists are too rare for that.
template <class Item>
std::int64_t slot_bytes(const Item* items, std::int64_t count, const Needs& needs,
                        const Limits& limits) {
  std::int64_t chunks = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const Partition partition = partition_of(items[i], needs, limits);
    if (partition.setting.worker == Worker::kChunk) chunks += partition.entries * partition.blocks;
  }
  return chunks * kMaxSumBytes;
}

}  // namespace
}  // namespace lawn::sphere::cuda
