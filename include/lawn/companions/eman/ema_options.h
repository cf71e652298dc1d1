// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>

#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <lawn/finite_math.h>

namespace lawn {

/// What an `EmaTeacher` does with buffers of floating point, such as batch norm's statistics.
/// Integer buffers (counts of batches) are copied, except with `kLeave`.
enum class EmaBuffers {
  kAverage,  ///< averaged like the parameters: EMAN
  kCopy,     ///< copied from the student
  kLeave,    ///< left as at the start
};

/// Options of `EmaTeacher`. Checked when it is constructed.
struct EmaOptions {
  /// m of `t <- m t + (1 - m) s`, in [0, 1]. 0.999 is MoCo's and FixMatch's.
  TORCH_ARG(double, decay) = 0.999;
  /// Gives m of each update from the number of updates before it, and replaces `decay`; for example
  /// `cosine_decay`. Each value is checked when it is used.
  TORCH_ARG(std::function<double(int64_t)>, schedule) = nullptr;
  /// What the teacher does with the student's buffers.
  TORCH_ARG(EmaBuffers, buffers) = EmaBuffers::kAverage;

 public:
  /// The decay m of an update that follows `steps` others.
  /// @throws c10::Error if it is outside [0, 1]
  double decay_at(int64_t steps) const {
    const double value = schedule() ? schedule()(steps) : decay();
    TORCH_CHECK(value >= 0 && value <= 1, "lawn::EmaTeacher: decay must be in [0, 1], got ", value,
                " for update ", steps);
    return value;
  }

  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const { decay_at(0); }
};

/// BYOL's decay, which rises to 1 along a cosine.
///   m_k = 1 - (1 - m_0) (cos(pi k / steps) + 1) / 2          and 1 from k = steps on
/// @param decay  m_0, in [0, 1]: 0.98 to 0.996
/// @param steps  number of updates until the decay is 1, >= 1
/// @throws c10::Error for values out of range
/// @source Grill et al. 2020, arXiv 2006.07733, section 3.3
inline std::function<double(int64_t)> cosine_decay(double decay, int64_t steps) {
  TORCH_CHECK(decay >= 0 && decay <= 1, "lawn::cosine_decay: decay must be in [0, 1], got ", decay);
  TORCH_CHECK(steps >= 1, "lawn::cosine_decay: steps must be >= 1, got ", steps);
  return [decay, steps](int64_t k) {
    const double pi = std::acos(-1.0);
    const double part =
        static_cast<double>(std::clamp<int64_t>(k, 0, steps)) / static_cast<double>(steps);
    return 1 - (1 - decay) * (std::cos(pi * part) + 1) / 2;
  };
}

}  // namespace lawn
