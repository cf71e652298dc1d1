// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <lawn/decorator/held_weights.h>

namespace lawn {

/// Options of `CubicSparsity`.
struct CubicSparsityOptions {
  /// The fraction that is pruned at `begin`, in [0, 1].
  TORCH_ARG(double, initial) = 0;
  /// The fraction that is pruned from `end` on, from `initial` to 1.
  TORCH_ARG(double, target) = 0.9;
  /// The first step of the schedule, >= 0.
  TORCH_ARG(int64_t, begin) = 0;
  /// The last step of the schedule, > `begin`.
  TORCH_ARG(int64_t, end) = 1000;
  /// Steps from one pruning to the next, >= 1.
  TORCH_ARG(int64_t, every) = 100;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    constexpr const char* kWho = "lawn::CubicSparsity";
    detail::decorator::check_fraction(kWho, "initial", initial());
    detail::decorator::check_fraction(kWho, "target", target());
    TORCH_CHECK(target() >= initial(), kWho, ": target must be >= initial, ", initial(), ", got ",
                target());
    TORCH_CHECK(begin() >= 0, kWho, ": begin must be >= 0, got ", begin());
    TORCH_CHECK(end() > begin(), kWho, ": end must be > begin, ", begin(), ", got ", end());
    TORCH_CHECK(every() >= 1, kWho, ": every must be >= 1, got ", every());
  }
};

/// Fraction to prune at a step: it grows fast at first, when a network still recovers, and slowly
/// at the end.
///   s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3
///
///   if (schedule.due(step)) {
///     amount = schedule.at(step);
///     optimizer.set_masks(magnitude_masks(weights, options.amount(amount), optimizer.masks()));
///   }
/// @source Zhu, Gupta 2017, arXiv 1710.01878, eq. 1
class CubicSparsity {
 public:
  /// @throws c10::Error for an option out of range
  explicit CubicSparsity(const CubicSparsityOptions& options) : options_(options) {
    options_.validate();
  }

  /// s(t): `initial` before the schedule, `target` after it.
  double at(int64_t step) const {
    if (step <= options_.begin()) return options_.initial();
    if (step >= options_.end()) return options_.target();
    const double left = static_cast<double>(options_.end() - step) /
                        static_cast<double>(options_.end() - options_.begin());
    return options_.target() + (options_.initial() - options_.target()) * left * left * left;
  }

  /// Whether to prune at this step: at every `every`-th step from `begin` on, and at `end`.
  bool due(int64_t step) const {
    if (step < options_.begin() || step > options_.end()) return false;
    return step == options_.end() || (step - options_.begin()) % options_.every() == 0;
  }

  /// The options that the constructor got.
  const CubicSparsityOptions& options() const { return options_; }

 private:
  CubicSparsityOptions options_;
};

}  // namespace lawn
