// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/companions/flat.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/cuda/tuning.h>

/// Parameters of the companions' own kernels: the tensors of a launch.
namespace lawn::detail::companions {

/// How a weight is partitioned: a warp takes a large block, a thread a small one.
inline sphere::cuda::Partition partition_of(const FlatUnified& flat,
                                            const sphere::cuda::Needs& /*needs*/,
                                            const sphere::cuda::Limits& limits) {
  using sphere::cuda::ceil_div;
  sphere::cuda::Partition partition;
  if (flat.rows == 0 || flat.columns == 0) return partition;
  const bool is_large = std::int64_t{flat.block_rows} * flat.block_columns > limits.thread_block;
  partition.setting.weight_dtype = flat.dtype;
  partition.setting.gradient_dtype = flat.dtype;
  partition.setting.worker = is_large ? sphere::cuda::Worker::kWarp : sphere::cuda::Worker::kChunk;
  partition.setting.per_block = is_large ? sphere::cuda::kWarps : sphere::cuda::kThreads;
  partition.entries = 1;
  const std::int64_t count =
      ceil_div(flat.rows, flat.block_rows) * ceil_div(flat.columns, flat.block_columns);
  partition.blocks = ceil_div(count, partition.setting.per_block);
  partition.unused_in_last_block = partition.blocks * partition.setting.per_block - count;
  return partition;
}

}  // namespace lawn::detail::companions

namespace lawn::detail::companions::cuda {

template <int kCapacity>
struct PrunedList : sphere::cuda::BlockList<kCapacity> {
  using Item = FlatPruned;

  void* elements[kCapacity];
  const std::uint8_t* pruned[kCapacity];
};

template <int kCapacity>
void put_arrays(PrunedList<kCapacity>& list, int at, const FlatPruned& flat, std::int64_t) {
  list.elements[at] = flat.elements;
  list.pruned[at] = flat.pruned;
}

template <int kCapacity>
struct PenaltyList : sphere::cuda::BlockList<kCapacity> {
  using Item = FlatPenalty;

  double rho;
  const void* weight[kCapacity];
  void* gradient[kCapacity];
  const void* target[kCapacity];
  const void* dual[kCapacity];
};

template <int kCapacity>
void put_arrays(PenaltyList<kCapacity>& list, int at, const FlatPenalty& flat, std::int64_t) {
  list.weight[at] = flat.weight;
  list.gradient[at] = flat.gradient;
  list.target[at] = flat.target;
  list.dual[at] = flat.dual;
}

template <int kCapacity>
struct UnifiedList : sphere::cuda::BlockList<kCapacity> {
  using Item = FlatUnified;

  void* weight[kCapacity];
  const std::int8_t* signs[kCapacity];
  std::int32_t rows[kCapacity];
  std::int32_t columns[kCapacity];
  std::int32_t block_rows[kCapacity];
  std::int32_t block_columns[kCapacity];
};

template <int kCapacity>
void put_arrays(UnifiedList<kCapacity>& list, int at, const FlatUnified& flat, std::int64_t) {
  list.weight[at] = flat.weight;
  list.signs[at] = flat.signs;
  list.rows[at] = flat.rows;
  list.columns[at] = flat.columns;
  list.block_rows[at] = flat.block_rows;
  list.block_columns[at] = flat.block_columns;
}

static_assert(sizeof(PrunedList<sphere::cuda::kManyLayers>) <= sphere::cuda::kMaxParameterBytes &&
                  sizeof(PenaltyList<sphere::cuda::kManyWideEntries>) <=
                      sphere::cuda::kMaxParameterBytes &&
                  sizeof(UnifiedList<sphere::cuda::kManyWideEntries>) <=
                      sphere::cuda::kMaxParameterBytes,
              "a list must fit a kernel's parameters");

}  // namespace lawn::detail::companions::cuda
