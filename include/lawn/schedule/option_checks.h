// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <locale>
#include <sstream>
#include <string>

#include <c10/util/Exception.h>

namespace lawn::detail {

/// Shortest decimal that reads back as the same double, whatever the locale: what a checkpoint
/// compares options by.
inline std::string shortest_decimal(double value) {
  for (int digits = 1;; ++digits) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text.precision(digits);
    text << value;
    std::istringstream back(text.str());
    back.imbue(std::locale::classic());
    double read = 0;
    back >> read;
    if (read == value || digits == std::numeric_limits<double>::max_digits10) {
      return text.str();
    }
  }
}

/// A number of steps: >= 0.
inline void check_steps(const char* where, const char* option, int64_t steps) {
  TORCH_CHECK(steps >= 0, where, ": ", option, " must be >= 0, got ", steps);
}

/// The length of the whole schedule: LRScheduler counts in an unsigned int.
inline void check_total_steps(const char* where, int64_t total_steps) {
  constexpr int64_t kMost = std::numeric_limits<unsigned>::max() - int64_t{1};
  TORCH_CHECK(total_steps <= kMost, where, ": total_steps must be <= ", kMost, ", got ",
              total_steps);
}

/// A multiple of the base learning rate that a decay ends at: from 0 to 1.
inline void check_factor(const char* where, const char* option, double factor) {
  TORCH_CHECK(factor >= 0 && factor <= 1, where, ": ", option, " must be in [0, 1], got ", factor);
}

/// The exponent of a polynomial decay: finite and > 0.
inline void check_power(const char* where, double power) {
  TORCH_CHECK(std::isfinite(power) && power > 0, where, ": power must be finite and > 0, got ",
              power);
}

}  // namespace lawn::detail
