// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include <c10/util/Exception.h>
#include <torch/arg.h>

namespace lawn {

/// Options of `MpiGroup`. Checked when the group is constructed.
struct MpiOptions {
  /// How long a rank waits for the others in one collective, > 0. Choose it longer than any rank
  /// works alone between two collectives, for example while it writes a checkpoint or evaluates.
  TORCH_ARG(std::chrono::milliseconds, timeout) = std::chrono::minutes(5);
  /// How long a rank that gives up waits for the other ranks' reports, > 0, in addition to
  /// `timeout`.
  TORCH_ARG(std::chrono::milliseconds, answer_time) = std::chrono::seconds(2);
  /// Whether MPI takes pointers into device memory. Otherwise tensors on a device go through host
  /// memory.
  TORCH_ARG(bool, cuda_aware) = false;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(timeout().count() > 0, "lawn::MpiGroup: timeout must be > 0 ms, got ",
                timeout().count(), " ms");
    TORCH_CHECK(answer_time().count() > 0, "lawn::MpiGroup: answer_time must be > 0 ms, got ",
                answer_time().count(), " ms");
  }
};

}  // namespace lawn
