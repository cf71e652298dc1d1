// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/schedulers/lr_scheduler.h>
#include <torch/serialize/archive.h>

#include <lawn/archive/checked_read.h>
#include <lawn/schedule/option_checks.h>
#include <lawn/schedule/segment.h>

namespace lawn::detail::schedule {

/// Base of every schedule of this library: a list of segments whose factor multiplies each group's
/// base learning rate.
///   lr(group, t) = base_lr(group) factor(t),   t = number of calls of step()
/// The base learning rates are those of the optimizer at construction; the constructor sets the
/// rates of step 0. Call `schedule.step()` once after each `optimizer.step()`, so that each
/// optimizer step has its own rates. A rate that is set by hand in between lasts until the next
/// call.
///
/// Every base rate is finite and >= 0, and at least one is > 0. A group of rate 0 beside others is
/// frozen on purpose and stays so. An optimizer whose rates are all 0, perhaps because an earlier
/// schedule ended there, is refused: set its rates with `set_lr` first, or make it anew. To resume
/// a run, make the schedule before the optimizer's checkpoint is loaded.
///
/// A group that joins later by `add_param_group` brings its own base: it keeps its rate until the
/// next step(), and from then on the schedule multiplies that rate like the others. If the rate is
/// negative or not finite, that step() is refused with nothing changed.
///
/// The optimizer must outlive the schedule, and only one schedule at a time may drive it. No
/// function of a schedule touches the device.
class SegmentSchedule : public torch::optim::LRScheduler {
 public:
  /// Factor that multiplies the base learning rates at a step: the value to plot.
  /// @param step  >= 0; past the end of the schedule the factor stays at the last value
  /// @throws c10::Error if `step` is negative
  double factor(int64_t step) const {
    TORCH_CHECK(step >= 0, name_, ": factor needs a step >= 0, got ", step);
    return factor_at(segments_, step);
  }

  /// Factor at the present step.
  double factor() const { return factor(steps()); }

  /// Number of calls of step() so far, those before a checkpoint included.
  int64_t steps() const {
    return static_cast<int64_t>(step_count_) - 1;
  }  // the constructor made one call

  /// Base learning rate of each parameter group, without the groups that joined since the last
  /// step().
  const std::vector<double>& base_lrs() const { return base_lrs_; }

  /// The name and the options, as the checkpoint holds them.
  const std::string& description() const { return description_; }

  /// Writes the options, the step and the base learning rates; `torch::save(schedule, path)` calls
  /// it.
  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("schedule", c10::IValue(description_));
    archive.write("steps", c10::IValue(steps()));
    archive.write("scheduled_groups", c10::IValue(static_cast<int64_t>(base_lrs_.size())));
    archive.write("base_lrs", c10::IValue(all_base_lrs()));
  }

  /// Takes step and base learning rates from the archive and gives the optimizer the learning rates
  /// of that step; `torch::load(schedule, path)` calls it. It may be called before or after the
  /// optimizer's own load, with the same result unless a rate was set by hand since the last step:
  /// the optimizer's load, after this one, brings that back.
  /// @throws c10::Error, with nothing changed, if the archive holds no schedule, one with other
  ///         options, one for another number of parameter groups, or base learning rates on which
  ///         no schedule can be made
  void load(torch::serialize::InputArchive& archive) {
    const char* const who = name_.c_str();
    c10::IValue description;
    TORCH_CHECK(archive.try_read("schedule", description) && description.isString(), name_,
                ": the archive holds no learning-rate schedule; load the one that was saved "
                "with torch::save(schedule, path)");
    TORCH_CHECK(description.toStringRef() == description_, name_, ": the checkpoint is of ",
                description.toStringRef(), ", this schedule is ", description_,
                "; construct it with the options of the checkpoint");
    const int64_t steps = archive::read_int(who, archive, "steps", 0, kMostSteps);
    std::vector<double> base_lrs =
        archive::read_value(who, archive, "base_lrs", &c10::IValue::isDoubleList,
                            "a list of numbers")
            .toDoubleVector();
    const auto groups = optimizer_.param_groups().size();
    TORCH_CHECK(base_lrs.size() == groups, name_, ": the checkpoint has ", base_lrs.size(),
                " parameter groups, the optimizer ", groups);
    check_base_rates(name_, base_lrs, "the checkpoint", "load one of a schedule that moves");
    const auto most = static_cast<int64_t>(groups);
    const int64_t scheduled =
        archive::read_int(who, archive, "scheduled_groups", std::min<int64_t>(1, most), most);
    set(steps, base_lrs, static_cast<std::size_t>(scheduled));
  }

  /// Goes to a step, with the rates of that step, from any other one: where an optimizer was loaded
  /// without its schedule, say.
  /// @param steps  the number of calls of step() after which the schedule would be there, >= 0
  /// @throws c10::Error if `steps` is out of range, and as step() does; nothing is changed then
  void advance_to(int64_t steps) {
    TORCH_CHECK(steps >= 0 && steps <= kMostSteps, name_, ": advance_to needs steps in [0, ",
                kMostSteps, "], got ", steps);
    const std::vector<double> base_lrs = checked_base_lrs();
    set(steps, base_lrs, base_lrs.size());
  }

 protected:
  /// @param name         how messages name the class: "lawn::WarmupDecay"
  /// @param options      the options, written out: "warmup_steps = 10, total_steps = 100"
  /// @param segments     at least one
  SegmentSchedule(torch::optim::Optimizer& optimizer, std::string name, const std::string& options,
                  std::vector<Segment> segments)
      : LRScheduler(optimizer),
        optimizer_(optimizer),
        name_(std::move(name)),
        description_(name_ + "(" + options + ")"),
        segments_(std::move(segments)) {
    step();
  }

  /// Whether the next call of step(), which makes `steps` of them, comes when it should, seen from
  /// the optimizer; throws if not.
  virtual void check_steps_of_optimizer(int64_t /*steps*/) const {}

 private:
  static constexpr int64_t kMostSteps = std::numeric_limits<unsigned>::max() - int64_t{1};

  /// LRScheduler::step() asks for the learning rates of step `step_count_`, sets them, and then
  /// counts.
  std::vector<double> get_lrs() final {
    check_steps_of_optimizer(static_cast<int64_t>(step_count_));
    base_lrs_ = checked_base_lrs();
    std::vector<double> lrs = base_lrs_;
    for (double& lr : lrs) {
      lr *= factor(step_count_);
    }
    return lrs;
  }

  /// `all_base_lrs()`, if a schedule can be made on them.
  std::vector<double> checked_base_lrs() const {
    std::vector<double> base_lrs = all_base_lrs();
    check_base_rates(name_, base_lrs, "the optimizer",
                     "set it with set_lr or make the optimizer anew, since a schedule only "
                     "multiplies it; to resume, make the schedule before the optimizer's "
                     "checkpoint is loaded");
    return base_lrs;
  }

  /// Goes to a step.
  /// @param scheduled  how many of the groups the schedule has had in hand
  void set(int64_t steps, const std::vector<double>& base_lrs, std::size_t scheduled) {
    step_count_ = static_cast<unsigned>(steps + 1);
    auto& groups = optimizer_.param_groups();
    for (std::size_t i = 0; i < groups.size(); ++i) {
      groups[i].options().set_lr(i < scheduled ? base_lrs[i] * factor() : base_lrs[i]);
    }
    base_lrs_.assign(base_lrs.begin(), base_lrs.begin() + static_cast<std::ptrdiff_t>(scheduled));
  }

  /// `base_lrs_`, and behind them the rates of the groups that have joined since the last step().
  std::vector<double> all_base_lrs() const {
    std::vector<double> lrs = get_current_lrs();
    TORCH_CHECK(lrs.size() >= base_lrs_.size(), name_, ": the optimizer has ", lrs.size(),
                " parameter groups, it had ", base_lrs_.size(),
                "; groups may be added, not removed, while a schedule drives them");
    std::copy(base_lrs_.begin(), base_lrs_.end(), lrs.begin());
    return lrs;
  }

  torch::optim::Optimizer& optimizer_;
  std::string name_;
  std::string description_;
  std::vector<Segment> segments_;
  std::vector<double> base_lrs_;
};

inline torch::serialize::OutputArchive& operator<<(torch::serialize::OutputArchive& archive,
                                                   const SegmentSchedule& schedule) {
  schedule.save(archive);
  return archive;
}

inline torch::serialize::InputArchive& operator>>(torch::serialize::InputArchive& archive,
                                                  SegmentSchedule& schedule) {
  schedule.load(archive);
  return archive;
}

/// Prints the name and the options.
inline std::ostream& operator<<(std::ostream& stream, const SegmentSchedule& schedule) {
  return stream << schedule.description();
}

}  // namespace lawn::detail::schedule
