// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <c10/util/irange.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <lawn/distributed/agreement.h>
#include <lawn/distributed/process_group.h>
#include <lawn/finite_math.h>

namespace lawn::detail::distributed {

/// The numbers that each rank tells the others at the beginning of a backward pass; they travel
/// while it runs.
class StepRecord {
 public:
  /// @param step     number of this rank's step, from 0
  /// @param samples  number of this rank's samples since the gradients were zero
  /// @param weights  fingerprint of this rank's weights, `[]`; 0 if they are not to be compared
  StepRecord(ProcessGroup& ranks, int64_t step, int64_t samples, const at::Tensor& weights)
      : rank_(ranks.rank()), step_(step) {
    const auto number = [&](int64_t value) { return at::full_like(weights, value); };
    work_ = ranks.begin_gather(at::stack({number(step), number(samples), weights}), records_);
  }

  /// This rank's fraction of the samples of all ranks: 0-dim, float64, on the records' device.
  /// Waits for all ranks; if the records are on a GPU, the GPU waits, not the host.
  at::Tensor share() {
    work_->wait();
    const auto samples = at::stack(records_).select(1, 1).to(at::kDouble);
    return samples[rank_] / samples.sum();
  }

  /// Checks that all ranks can take this step together. The host waits for the records, and for no
  /// other work of a GPU.
  /// @throws c10::Error that names the rank that is in another step or has other weights
  void check() {
    const auto read = records_on_host();
    std::vector<int64_t> steps, weights;
    int64_t all = 0;
    for (const auto i : c10::irange(read.size(0))) {
      const auto* values = read.const_data_ptr<int64_t>() + 3 * i;
      steps.push_back(values[0]);
      weights.push_back(values[2]);
      all += values[1];
    }
    const auto by_step = group_by_value(steps);
    TORCH_CHECK(by_step.size() == 1,
                "lawn::DataParallel: expected every rank in the same step, got ",
                name_steps(by_step, steps),
                ": a step was skipped; call backward equally often on every rank, without a batch "
                "where there is none");
    const auto by_weights = group_by_value(weights);
    TORCH_CHECK(
        by_weights.size() == 1,
        "lawn::DataParallel: expected the same weights on every rank at the beginning of step ",
        step_, ", got others on ", odd_ones(by_weights), " than on ", name_ranks(by_weights[0]),
        ": a step of the optimizer was skipped or taken there alone, or the weights were "
        "changed; do what changes weights on every rank");
    TORCH_CHECK(all > 0, "lawn::DataParallel: expected at least one sample in step ", step_,
                ", got none on any rank");
  }

 private:
  /// The records of all ranks on the host, `[ranks, 3]`. Records on a GPU are read on a separate
  /// stream.
  at::Tensor records_on_host() {
    const auto device = records_.front().device();
    if (device.is_cpu()) {
      work_->wait();
      return at::stack(records_);
    }
    const c10::impl::VirtualGuardImpl streams(device.type());
    const c10::StreamGuard guard(streams.getStreamFromGlobalPool(device));
    work_->wait();
    return at::stack(records_).cpu();
  }

  /// All ranks except those of the first group.
  static std::string odd_ones(const std::vector<std::vector<int>>& groups) {
    std::vector<int> odd;
    for (const auto i : c10::irange(std::size_t{1}, groups.size())) {
      odd.insert(odd.end(), groups[i].begin(), groups[i].end());
    }
    return name_ranks(odd);
  }

  int rank_;
  int64_t step_;
  std::vector<at::Tensor> records_;
  c10::intrusive_ptr<c10d::Work> work_;
};

}  // namespace lawn::detail::distributed
