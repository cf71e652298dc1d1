// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/companions/plain_memory.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/cuda/tuning.h>

/// What the kernels that deal with each element by itself get: the tensors of a launch.
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

static_assert(sizeof(PrunedList<sphere::cuda::kManyLayers>) <= sphere::cuda::kMaxParameterBytes &&
                  sizeof(PenaltyList<sphere::cuda::kManyPenalties>) <=
                      sphere::cuda::kMaxParameterBytes,
              "a list must fit a kernel's parameters");

}  // namespace lawn::detail::cuda
