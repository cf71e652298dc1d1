// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <lawn/distributed/process_group.h>
#include <lawn/distributed/replica.h>
#include <lawn/finite_math.h>

namespace lawn::detail::distributed {

/// Makes the buffers of all ranks the same, once in each step and during the backward pass.
///
///   floating point   b <- sum_r share_r b_r
///   others           b <- max_r b_r              (batches counted: a rank may have had none)
///
/// All floating-point buffers go into one sum, which is float64 if one of them is, else float32;
/// all others go into one maximum.
class BufferAverage {
 public:
  explicit BufferAverage(const std::vector<NamedTensor>& buffers) {
    for (const auto& [name, buffer] : buffers) {
      if (!buffer.is_floating_point()) {
        counts_.tensors.push_back(buffer);
      } else {
        if (buffer.scalar_type() == at::kDouble) values_.dtype = at::kDouble;
        values_.tensors.push_back(buffer);
      }
    }
    counts_.dtype = at::kLong;
  }

  /// @param share  this rank's part of all samples, 0-dim; the shares of all ranks add up to one
  void begin(ProcessGroup& ranks, const at::Tensor& share) {
    const at::NoGradGuard no_grad;
    values_.begin(ranks, c10d::ReduceOp::SUM, share);
    counts_.begin(ranks, c10d::ReduceOp::MAX, {});
  }

  /// Waits for the sums, and writes the buffers.
  void end() {
    const at::NoGradGuard no_grad;
    values_.end();
    counts_.end();
  }

 private:
  struct Flat {
    std::vector<at::Tensor> tensors;
    at::ScalarType dtype = at::kFloat;
    std::vector<at::Tensor> flat;
    c10::intrusive_ptr<c10d::Work> work;

    void begin(ProcessGroup& ranks, c10d::ReduceOp::RedOpType op, const at::Tensor& factor) {
      if (tensors.empty()) return;
      std::vector<at::Tensor> parts;
      for (const auto& tensor : tensors) parts.push_back(tensor.reshape({-1}).to(dtype));
      flat = {at::cat(parts)};
      if (factor.defined()) flat[0].mul_(factor);
      c10d::AllreduceOptions options;
      options.reduceOp = op;
      work = ranks.group()->allreduce(flat, options);
    }

    void end() {
      if (!work) return;
      work->wait();
      work.reset();
      int64_t offset = 0;
      for (const auto& tensor : tensors) {
        tensor.copy_(flat[0].narrow(0, offset, tensor.numel()).view(tensor.sizes()));
        offset += tensor.numel();
      }
    }
  };

  Flat values_;
  Flat counts_;
};

}  // namespace lawn::detail::distributed
