// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <fcntl.h>
#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/process_group.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "examples/apps/support/ranks.h"

namespace examples {

/// The ranks that mpirun started, or any others that a group joins. If a rank does not take part in
/// a call, the call ends within the group's time limit with an error that names that rank and the
/// reason.
class MpiRanks : public Ranks {
 public:
  /// @param group  must outlive the object
  explicit MpiRanks(lawn::ProcessGroup& group) : group_(group) {}

  int64_t rank() const override { return group_.rank(); }
  int64_t size() const override { return group_.size(); }

  /// Open MPI's mpirun gives each rank a terminal of its own, even if mpirun's own output is a
  /// file. The output of mpirun counts, and mpirun is the parent of rank 0.
  bool on_terminal() const override {
    const std::string output = "/proc/" + std::to_string(getppid()) + "/fd/1";
    const int launcher = ::open(output.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (launcher < 0) return false;
    const bool terminal = isatty(launcher) == 1;
    ::close(launcher);
    return terminal && Ranks::on_terminal();
  }

  void begin(const torch::nn::Module& network, const std::string& run) override {
    parallel_.reset();
    parallel_.emplace(network, group_, lawn::DataParallelOptions().run(run));
  }

  void backward(const at::Tensor& loss, int64_t samples, int64_t step) override {
    if (samples == 0) return parallel_->backward_without_batch(step);
    parallel_->backward(loss, samples, step);
  }

  void sum_(const at::Tensor& tensor) override { group_.sum_(tensor); }

  bool any(bool here) override {
    const at::Tensor count = at::full({}, here ? 1 : 0, at::kLong);
    group_.sum_(count);
    return count.item<int64_t>() > 0;
  }

 private:
  lawn::ProcessGroup& group_;
  std::optional<lawn::DataParallel> parallel_;
};

}  // namespace examples
