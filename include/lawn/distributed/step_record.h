// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <c10/util/irange.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <lawn/distributed/agreement.h>
#include <lawn/distributed/process_group.h>
#include <lawn/finite_math.h>

namespace lawn::detail {

/// What each rank tells the others at the begin of a backward pass, sent while it runs.
class StepRecord {
 public:
  /// @param step     number of this rank's step, from 0
  /// @param samples  of this rank, since the gradients were zero
  /// @param weights  fingerprint of this rank's weights, or 0 if they are not to be compared
  StepRecord(ProcessGroup& ranks, int64_t step, int64_t samples, int64_t weights)
      : rank_(ranks.rank()), step_(step) {
    auto mine = at::empty({3}, at::kLong);
    auto* values = mine.mutable_data_ptr<int64_t>();
    values[0] = step;
    values[1] = samples;
    values[2] = weights;
    work_ = ranks.begin_gather(mine.to(ranks.device()), records_);
  }

  /// Waits for all ranks' records, and checks that they can take this step together.
  /// @return the part of this rank's samples in all samples
  /// @throws c10::Error that names the rank that is in another step or has other weights
  double share() {
    work_->wait();
    std::vector<int64_t> steps, weights;
    int64_t all = 0, mine = 0;
    for (const auto i : c10::irange(records_.size())) {
      const auto record = records_[i].cpu();
      const auto* values = record.const_data_ptr<int64_t>();
      steps.push_back(values[0]);
      weights.push_back(values[2]);
      all += values[1];
      if (static_cast<int>(i) == rank_) mine = values[1];
    }
    const auto by_step = group_by_value(steps);
    TORCH_CHECK(by_step.size() == 1,
                "lawn::DataParallel: expected every rank in the same step, got ",
                name_steps(by_step, steps),
                ": a step was skipped; call backward equally often on every rank, without a batch "
                "where there is none");
    const auto by_weights = group_by_value(weights);
    TORCH_CHECK(by_weights.size() == 1,
                "lawn::DataParallel: expected the same weights on every rank at the begin of step ",
                step_, ", got others on ", odd_ones(by_weights), " than on ",
                name_ranks(by_weights[0]),
                ": a step of the optimizer was skipped or taken there alone, or the weights were "
                "changed; do what changes weights on every rank");
    TORCH_CHECK(all > 0, "lawn::DataParallel: expected at least one sample in step ", step_,
                ", got none on any rank");
    return static_cast<double>(mine) / static_cast<double>(all);
  }

 private:
  /// All ranks but those of the first group.
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

}  // namespace lawn::detail
