// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <sstream>
#include <string>

#include <c10/util/Exception.h>
#include <torch/arg.h>

namespace lawn {

/// What happens to floating-point and complex buffers (batch norm's statistics) in each step.
enum class BufferPolicy {
  /// The mean over the ranks, weighted by their samples of the step. The running variance is then
  /// the mean of the variances within the ranks' batches, not the variance of the joint batch.
  kAverage,
  /// Each rank keeps its own: only rank 0's should be saved or evaluated.
  kLocal,
};

/// Options of `DataParallel`. Checked when it is constructed; the same on every rank, which is
/// checked too.
struct DataParallelOptions {
  /// Size of a bucket of gradients, in bytes, > 0.
  TORCH_ARG(int64_t, bucket_bytes) = int64_t{25} << 20;
  /// Size of the first bucket, which has the gradients of the last layers, in bytes, > 0. It is
  /// small, so that communication begins early.
  TORCH_ARG(int64_t, first_bucket_bytes) = int64_t{1} << 20;
  /// Whether a backward pass may leave parameters without a gradient. Costs a walk of the graph,
  /// and one small sum in each step.
  TORCH_ARG(bool, find_unused_parameters) = false;
  /// What happens to floating-point and complex buffers in each step.
  TORCH_ARG(BufferPolicy, buffers) = BufferPolicy::kAverage;
  /// Number of steps from one comparison of the weights of all ranks to the next; 0 means never. A
  /// comparison reads each weight once.
  TORCH_ARG(int64_t, compare_weights_every) = 1;
  /// Anything else that must be the same on every rank, in lines: "optimizer Adam, lr 0.001\nbatch
  /// 64".
  TORCH_ARG(std::string, run);

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(bucket_bytes() > 0, "lawn::DataParallel: bucket_bytes must be > 0, got ",
                bucket_bytes());
    TORCH_CHECK(first_bucket_bytes() > 0,
                "lawn::DataParallel: first_bucket_bytes must be > 0, got ", first_bucket_bytes());
    TORCH_CHECK(compare_weights_every() >= 0,
                "lawn::DataParallel: compare_weights_every must be >= 0, got ",
                compare_weights_every());
  }

  /// The options in words, one line each.
  std::string describe() const {
    std::ostringstream text;
    text << "bucket_bytes " << bucket_bytes() << "\nfirst_bucket_bytes " << first_bucket_bytes()
         << "\nfind_unused_parameters " << find_unused_parameters() << "\nbuffers "
         << (buffers() == BufferPolicy::kAverage ? "average" : "local")
         << "\ncompare_weights_every " << compare_weights_every() << '\n'
         << run();
    return text.str();
  }
};

}  // namespace lawn
