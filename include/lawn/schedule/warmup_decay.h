// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <locale>
#include <sstream>
#include <string>
#include <vector>

#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/optim/optimizer.h>

#include <lawn/schedule/option_checks.h>
#include <lawn/schedule/segment.h>
#include <lawn/schedule/segment_schedule.h>

namespace lawn {

/// Options of `WarmupDecay`.
struct WarmupDecayOptions {
  /// Steps of linear warm-up, >= 0.
  TORCH_ARG(int64_t, warmup_steps) = 0;
  /// Steps of the whole schedule, > warmup_steps. Has to be given.
  TORCH_ARG(int64_t, total_steps) = 0;
  /// Shape from the end of the warm-up to total_steps.
  TORCH_ARG(Decay, decay) = Decay::kLinear;
  /// Exponent of Decay::kPolynomial, > 0; not used with the other shapes.
  TORCH_ARG(double, power) = 1;
  /// Multiple of the base learning rate at which the decay ends, in [0, 1]; not used with
  /// Decay::kNone.
  TORCH_ARG(double, final_factor) = 0;
};

/// Linear warm-up, then a decay. With W warm-up steps, T steps in all and p = (t - W) / (T - W),
///   lr(t) = base_lr (t + 1) / (W + 1)                    t < W
///   lr(t) = base_lr (f + (1 - f) r(p))                   W <= t < T,  f = final_factor
///   lr(t) = base_lr f                                    t >= T
/// where r(p) is 1 - p (linear), (1 + cos(pi p)) / 2 (cosine), (1 - p)^power (polynomial) or 1
/// (none; then f = 1). Every one of the T steps moves: step 0 has base_lr / (W + 1), step W has the
/// full base_lr, and only step T reaches f.
///
///     lawn::WarmupDecay schedule(optimizer,
///                                lawn::WarmupDecayOptions().warmup_steps(500).total_steps(10000));
///     for (...) {
///       ...
///       optimizer.step();
///       schedule.step();
///     }
///
/// @throws c10::Error at construction, the optimizer unchanged, if an option is out of its range,
///         if a group's learning rate is negative or not finite, or if every group's learning rate
///         is 0
class WarmupDecay : public detail::schedule::SegmentSchedule {
 public:
  /// @param optimizer  must outlive the schedule
  /// @param options    checked here
  WarmupDecay(torch::optim::Optimizer& optimizer, const WarmupDecayOptions& options)
      : SegmentSchedule(optimizer, kWho, written_out(options), segments(options)) {}

 private:
  static constexpr const char* kWho = "lawn::WarmupDecay";

  static std::vector<detail::schedule::Segment> segments(const WarmupDecayOptions& options) {
    const int64_t warmup = options.warmup_steps();
    const int64_t total = options.total_steps();
    detail::schedule::check_steps(kWho, "warmup_steps", warmup);
    TORCH_CHECK(total > warmup, kWho, ": total_steps must be > warmup_steps = ", warmup, ", got ",
                total);
    detail::schedule::check_total_steps(kWho, total);
    detail::schedule::check_power(kWho, options.power());
    detail::schedule::check_factor(kWho, "final_factor", options.final_factor());
    return {detail::schedule::warmup(warmup),
            detail::schedule::decay(total - warmup, options.decay(), options.final_factor(),
                                    options.power())};
  }

  static std::string written_out(const WarmupDecayOptions& options) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << "warmup_steps = " << options.warmup_steps()
         << ", total_steps = " << options.total_steps() << ", decay = " << options.decay()
         << ", power = " << detail::schedule::shortest_decimal(options.power())
         << ", final_factor = " << detail::schedule::shortest_decimal(options.final_factor());
    return text.str();
  }
};

}  // namespace lawn
