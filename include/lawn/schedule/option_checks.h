// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <locale>
#include <sstream>
#include <string>
#include <vector>

#include <c10/util/Exception.h>

#include <lawn/finite_math.h>

namespace lawn::detail::schedule {

/// Shortest decimal that reads back as the same double, whatever the locale. Checkpoints compare
/// options in this form.
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

/// Checks a number of steps: >= 0.
inline void check_steps(const char* where, const char* option, int64_t steps) {
  TORCH_CHECK(steps >= 0, where, ": ", option, " must be >= 0, got ", steps);
}

/// Checks the length of the whole schedule: LRScheduler counts in an unsigned int.
inline void check_total_steps(const char* where, int64_t total_steps) {
  constexpr int64_t kMost = std::numeric_limits<unsigned>::max() - int64_t{1};
  TORCH_CHECK(total_steps <= kMost, where, ": total_steps must be <= ", kMost, ", got ",
              total_steps);
}

/// Checks the multiple of the base learning rate at which a decay ends: from 0 to 1.
inline void check_factor(const char* where, const char* option, double factor) {
  TORCH_CHECK(factor >= 0 && factor <= 1, where, ": ", option, " must be in [0, 1], got ", factor);
}

/// Checks the exponent of a polynomial decay: finite and > 0.
inline void check_power(const char* where, double power) {
  TORCH_CHECK(std::isfinite(power) && power > 0, where, ": power must be finite and > 0, got ",
              power);
}

/// Checks the base learning rates of a schedule, one for each parameter group: all finite and >= 0,
/// and one of them > 0. A rate of 0 beside others freezes its group on purpose; if every rate is 0,
/// nothing would ever move.
/// @param whose   where the rates come from, for messages: "the optimizer"
/// @param remedy  what to do about a wrong one, for messages
inline void check_base_rates(const std::string& where, const std::vector<double>& rates,
                             const char* whose, const char* remedy) {
  bool moves = rates.empty();
  for (std::size_t group = 0; group < rates.size(); ++group) {
    TORCH_CHECK(std::isfinite(rates[group]) && rates[group] >= 0, where,
                ": expected a finite base rate >= 0 in each parameter group, got base rate ",
                rates[group], " in group ", group, " of ", whose, "; ", remedy);
    moves = moves || rates[group] > 0;
  }
  TORCH_CHECK(moves, where, ": expected a base rate > 0 in a parameter group, got base rate 0 in ",
              rates.size() == 1 ? std::string("group 0, the only one")
                                : c10::str("each of the groups 0 to ", rates.size() - 1),
              " of ", whose, "; ", remedy);
}

}  // namespace lawn::detail::schedule
