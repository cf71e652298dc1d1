// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <locale>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/optim/optimizer.h>

#include <lawn/schedule/option_checks.h>
#include <lawn/schedule/segment.h>
#include <lawn/schedule/segment_schedule.h>

namespace lawn {

/// Options of `LAWNSchedule`.
struct LAWNScheduleOptions {
  /// Steps of the free phase, >= 0. If left out, they are those of the LAWN for which the schedule
  /// is made, or 0 for another optimizer.
  TORCH_ARG(std::optional<int64_t>, free_steps);
  /// Steps of both phases together, > free_steps + second_warmup_steps. Has to be given.
  TORCH_ARG(int64_t, total_steps) = 0;
  /// Steps of linear warm-up at the start, in [0, free_steps].
  TORCH_ARG(int64_t, warmup_steps) = 0;
  /// Steps of linear warm-up after the switch, >= 0.
  TORCH_ARG(int64_t, second_warmup_steps) = 0;
  /// Shape of the rest of the free phase; Decay::kNone holds the base learning rate up to the
  /// switch.
  TORCH_ARG(Decay, free_decay) = Decay::kNone;
  /// Multiple of the base learning rate at which the free phase ends, in [0, 1]; not used with
  /// Decay::kNone.
  TORCH_ARG(double, free_final_factor) = 0;
  /// Shape from the end of the second warm-up to total_steps.
  TORCH_ARG(Decay, decay) = Decay::kLinear;
  /// Exponent of Decay::kPolynomial in both phases, > 0; not used with the other shapes.
  TORCH_ARG(double, power) = 1;
  /// Multiple of the base learning rate at which the schedule ends, in [0, 1]; not used with
  /// Decay::kNone.
  TORCH_ARG(double, final_factor) = 0;
};

/// LAWN's two-part schedule: a warm-up and a hold or decay in each phase. With F free steps, T
/// steps in all, W and V steps of warm-up at the start and after the switch, e = free_final_factor
/// and f = final_factor,
///   lr(t) = base_lr (t + 1) / (W + 1)                t < W
///   lr(t) = base_lr (e + (1 - e) r(p))               W <= t < F, p = (t - W) / (F - W)
///   lr(t) = base_lr (u + 1) / (V + 1)                F <= t < F + V, u = t - F
///   lr(t) = base_lr (f + (1 - f) r(p))               F + V <= t < T, p = (u - V) / (T - F - V)
///   lr(t) = base_lr f                                t >= T
/// where r(p) is 1 - p (linear), (1 + cos(pi p)) / 2 (cosine), (1 - p)^power (polynomial) or 1
/// (none; then e or f is 1). Step F, the first of the constrained phase, is the first of the second
/// warm-up. The schedule does not look at the optimizer's phase: if `constrain()` is called by hand
/// at another step, the second warm-up does not begin at the switch.
///
/// The schedule takes the free steps from `LAWN<Opt>` or a decorator around it. A LAWN that
/// switches only by hand (`LAWNOptions::kNever`) has none to give, nor has one that is passed as a
/// reference to `torch::optim::Optimizer`.
///
///     lawn::LAWNSchedule schedule(optimizer, lawn::LAWNScheduleOptions()
///                                                .free_steps(2000).total_steps(10000)
///                                                .warmup_steps(200).second_warmup_steps(200));
///
/// `step()` refuses a LAWN that has done more steps than the schedule: it was loaded from a
/// checkpoint and the schedule was not, or `step()` was not called after each of its steps. After
/// `make_capturable()`, when the count is on the device, that is not checked.
///
/// @throws c10::Error at construction, the optimizer unchanged, if an option is out of its range,
///         if `free_steps` is not LAWN's, if a group's learning rate is negative or not finite, or
///         if every group's learning rate is 0
/// @source Gupta et al. 2021, arXiv 2108.05839: warm-up in both phases, decay to zero at the end
class LAWNSchedule : public detail::schedule::SegmentSchedule {
 public:
  /// @param optimizer  must outlive the schedule
  /// @param options    checked here
  template <class Opt>
  LAWNSchedule(Opt& optimizer, const LAWNScheduleOptions& options)
      : LAWNSchedule(completed(optimizer, options), optimizer, counter_of(optimizer)) {}

 private:
  static constexpr const char* kWho = "lawn::LAWNSchedule";

  /// @param options  options whose free steps are set
  /// @param optimizer_steps  how many steps the optimizer has done; null if it does not say
  LAWNSchedule(const LAWNScheduleOptions& options, torch::optim::Optimizer& optimizer,
               std::function<int64_t()> optimizer_steps)
      : SegmentSchedule(optimizer, kWho, written_out(options), segments(options)),
        optimizer_steps_(std::move(optimizer_steps)) {}

  /// Counts the optimizer's steps, unless they are on a device, for which it would have to wait.
  template <class Opt>
  static std::function<int64_t()> counter_of([[maybe_unused]] const Opt& optimizer) {
    if constexpr (IsLAWN<Opt>::value) {
      return [&optimizer]() -> int64_t {
        if constexpr (IsCapturable<Opt>::value) {
          if (optimizer.capturable()) return 0;
        }
        return optimizer.steps();
      };
    }
    return nullptr;
  }

  void check_steps_of_optimizer(int64_t steps) const override {
    const int64_t done = optimizer_steps_ ? optimizer_steps_() : 0;
    TORCH_CHECK(
        done <= steps, kWho, ": expected an optimizer with at most ", steps, " steps at call ",
        steps, " of step(), got one with ", done,
        ": call step() after every step of the optimizer. If the optimizer was loaded from a "
        "checkpoint, load the schedule, too (lawn::Checkpoint holds both), or call "
        "advance_to(optimizer.steps()). Nothing was changed");
  }

  template <class Opt, class = void>
  struct IsLAWN : std::false_type {};
  template <class Opt>
  struct IsLAWN<Opt, std::void_t<decltype(std::declval<const Opt&>().lawn_options().free_steps())>>
      : std::true_type {};

  template <class Opt, class = void>
  struct IsCapturable : std::false_type {};
  template <class Opt>
  struct IsCapturable<Opt, std::void_t<decltype(std::declval<const Opt&>().capturable())>>
      : std::true_type {};

  template <class Opt>
  static LAWNScheduleOptions completed([[maybe_unused]] const Opt& optimizer,
                                       LAWNScheduleOptions options) {
    if constexpr (IsLAWN<Opt>::value) {
      const int64_t free_steps = optimizer.lawn_options().free_steps();
      const bool by_hand = free_steps == std::numeric_limits<int64_t>::max();
      TORCH_CHECK(!by_hand || options.free_steps(), kWho,
                  ": expected free_steps for a LAWN that switches by hand, got none");
      TORCH_CHECK(by_hand || options.free_steps().value_or(free_steps) == free_steps, kWho,
                  ": expected the free_steps of the LAWN that it is made for, ", free_steps,
                  ", got ", options.free_steps().value_or(0), "; leave them out to have the same");
      if (!by_hand) options.free_steps(free_steps);
    }
    if (!options.free_steps()) options.free_steps(0);
    return options;
  }

  static std::vector<detail::schedule::Segment> segments(const LAWNScheduleOptions& options) {
    const int64_t free = *options.free_steps();
    const int64_t total = options.total_steps();
    const int64_t first = options.warmup_steps();
    const int64_t second = options.second_warmup_steps();
    detail::schedule::check_steps(kWho, "free_steps", free);
    detail::schedule::check_steps(kWho, "second_warmup_steps", second);
    TORCH_CHECK(first >= 0 && first <= free, kWho,
                ": warmup_steps must be in [0, free_steps = ", free, "], got ", first);
    TORCH_CHECK(total > free && total - free > second, kWho,
                ": total_steps must be > free_steps + second_warmup_steps = ", free, " + ", second,
                ", got ", total);
    detail::schedule::check_total_steps(kWho, total);
    detail::schedule::check_power(kWho, options.power());
    detail::schedule::check_factor(kWho, "free_final_factor", options.free_final_factor());
    detail::schedule::check_factor(kWho, "final_factor", options.final_factor());
    return {detail::schedule::warmup(first),
            detail::schedule::decay(free - first, options.free_decay(), options.free_final_factor(),
                                    options.power()),
            detail::schedule::warmup(second),
            detail::schedule::decay(total - free - second, options.decay(), options.final_factor(),
                                    options.power())};
  }

  static std::string written_out(const LAWNScheduleOptions& options) {
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << "free_steps = " << *options.free_steps() << ", total_steps = " << options.total_steps()
         << ", warmup_steps = " << options.warmup_steps()
         << ", second_warmup_steps = " << options.second_warmup_steps()
         << ", free_decay = " << options.free_decay() << ", free_final_factor = "
         << detail::schedule::shortest_decimal(options.free_final_factor())
         << ", decay = " << options.decay()
         << ", power = " << detail::schedule::shortest_decimal(options.power())
         << ", final_factor = " << detail::schedule::shortest_decimal(options.final_factor());
    return text.str();
  }

  std::function<int64_t()> optimizer_steps_;
};

}  // namespace lawn
