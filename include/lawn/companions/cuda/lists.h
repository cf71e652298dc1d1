// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/companions/plain_memory.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/cuda/tuning.h>

/// What the companions' own kernels get: the tensors of a launch.
namespace lawn::detail {

/// How a weight is dealt with: a warp takes a large block, a thread a small one.
inline sphere::cuda::Share share_of(const UnifiedRun& run, sphere::cuda::Purpose /*purpose*/,
                                    const sphere::cuda::Limits& limits) {
  using sphere::cuda::ceil_div;
  sphere::cuda::Share share;
  if (run.rows == 0 || run.columns == 0) return share;
  const bool is_large = std::int64_t{run.block_rows} * run.block_columns > limits.thread_block;
  share.setting.weight_dtype = run.dtype;
  share.setting.gradient_dtype = run.dtype;
  share.setting.role = is_large ? sphere::cuda::Role::kWarp : sphere::cuda::Role::kChunk;
  share.setting.per_block = is_large ? sphere::cuda::kWarps : sphere::cuda::kThreads;
  share.entries = 1;
  const std::int64_t count =
      ceil_div(run.rows, run.block_rows) * ceil_div(run.columns, run.block_columns);
  share.blocks = ceil_div(count, share.setting.per_block);
  share.missing = share.blocks * share.setting.per_block - count;
  return share;
}

}  // namespace lawn::detail

namespace lawn::detail::cuda {

template <int kCapacity>
struct PrunedList : sphere::cuda::BlockList<kCapacity> {
  using Item = PrunedRun;

  void* elements[kCapacity];
  const std::uint8_t* pruned[kCapacity];
};

template <int kCapacity>
void put_arrays(PrunedList<kCapacity>& list, int at, const PrunedRun& run, std::int64_t) {
  list.elements[at] = run.elements;
  list.pruned[at] = run.pruned;
}

template <int kCapacity>
struct PenaltyList : sphere::cuda::BlockList<kCapacity> {
  using Item = PenaltyRun;

  double rho;
  const void* weight[kCapacity];
  void* gradient[kCapacity];
  const void* target[kCapacity];
  const void* dual[kCapacity];
};

template <int kCapacity>
void put_arrays(PenaltyList<kCapacity>& list, int at, const PenaltyRun& run, std::int64_t) {
  list.weight[at] = run.weight;
  list.gradient[at] = run.gradient;
  list.target[at] = run.target;
  list.dual[at] = run.dual;
}

template <int kCapacity>
struct UnifiedList : sphere::cuda::BlockList<kCapacity> {
  using Item = UnifiedRun;

  void* weight[kCapacity];
  const std::int8_t* signs[kCapacity];
  std::int32_t rows[kCapacity];
  std::int32_t columns[kCapacity];
  std::int32_t block_rows[kCapacity];
  std::int32_t block_columns[kCapacity];
};

template <int kCapacity>
void put_arrays(UnifiedList<kCapacity>& list, int at, const UnifiedRun& run, std::int64_t) {
  list.weight[at] = run.weight;
  list.signs[at] = run.signs;
  list.rows[at] = run.rows;
  list.columns[at] = run.columns;
  list.block_rows[at] = run.block_rows;
  list.block_columns[at] = run.block_columns;
}

static_assert(sizeof(PrunedList<sphere::cuda::kManyLayers>) <= sphere::cuda::kMaxParameterBytes &&
                  sizeof(PenaltyList<sphere::cuda::kManyWideEntries>) <=
                      sphere::cuda::kMaxParameterBytes &&
                  sizeof(UnifiedList<sphere::cuda::kManyWideEntries>) <=
                      sphere::cuda::kMaxParameterBytes,
              "a list must fit a kernel's parameters");

}  // namespace lawn::detail::cuda
