// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/view_as_real.h>
#include <ATen/ops/where.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <lawn/archive/copy_values.h>
#include <lawn/distributed/process_group.h>
#include <lawn/distributed/replica.h>
#include <lawn/finite_math.h>

namespace lawn::detail::distributed {

/// Makes the buffers of all ranks the same, once in each step and during the backward pass.
///
///   floating point, complex   b <- sum_r share_r b_r   over ranks that have samples
///   others                    b <- max_r b_r           (batches counted: a rank may have had none)
///
/// All of the first kind go into one sum, in float64, so that a buffer in float32 that is the same
/// on all ranks stays as it is, bit for bit; all others go into one maximum.
class BufferAverage {
 public:
  explicit BufferAverage(const std::vector<NamedTensor>& buffers) {
    for (const auto& [name, buffer] : buffers) {
      const bool real = buffer.is_floating_point() || buffer.is_complex();
      (real ? values_ : counts_).tensors.push_back(buffer);
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
    at::ScalarType dtype = at::kDouble;
    std::vector<at::Tensor> flat;
    c10::intrusive_ptr<c10d::Work> work;

    void begin(ProcessGroup& ranks, c10d::ReduceOp::RedOpType op, const at::Tensor& factor) {
      if (tensors.empty()) return;
      std::vector<at::Tensor> parts;
      for (const auto& tensor : tensors) {
        parts.push_back(as_real(tensor).reshape({-1}).to(dtype));
      }
      flat = {at::cat(parts)};
      if (factor.defined()) {  // 0 times an infinity would be NaN
        flat[0] = at::where(factor > 0, flat[0] * factor, 0.0);
      }
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
        const auto real = as_real(tensor);
        archive::copy_values(real, flat[0].narrow(0, offset, real.numel()).view(real.sizes()));
        offset += real.numel();
      }
    }

    static at::Tensor as_real(const at::Tensor& tensor) {
      return tensor.is_complex() ? at::view_as_real(tensor) : tensor;
    }
  };

  Flat values_;
  Flat counts_;
};

}  // namespace lawn::detail::distributed
