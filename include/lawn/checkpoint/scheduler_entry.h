// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <typeinfo>
#include <utility>

#include <ATen/core/ivalue.h>
#include <c10/util/Type.h>
#include <torch/optim/schedulers/lr_scheduler.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/checkpoint/entry.h>

namespace lawn::detail::checkpoint {

/// A scheduler of LibTorch's, which is its options, given anew, and the number of steps it has
/// done. The rates that it has set are the optimizer's.
class SchedulerEntry : public Entry {
 public:
  SchedulerEntry(std::string name, torch::optim::LRScheduler& scheduler)
      : Entry(std::move(name)), scheduler_(scheduler) {}

  std::string kind() const override { return c10::demangle(typeid(scheduler_).name()); }

  void save(torch::serialize::OutputArchive& archive) const override {
    archive.write("steps", c10::IValue(static_cast<std::int64_t>(StepCount::of(scheduler_))));
  }

  void read(torch::serialize::InputArchive& archive, Differences& differences) override {
    c10::IValue steps;
    const bool good = archive.try_read("steps", steps) && steps.isInt() && steps.toInt() >= 0 &&
                      steps.toInt() <= std::numeric_limits<unsigned>::max();
    if (good) steps_ = static_cast<unsigned>(steps.toInt());
    if (!good) differences.push_back("it holds no count of the steps of " + name());
  }

  void take() override { StepCount::of(scheduler_) = steps_; }

 private:
  /// LibTorch shows the count to derived classes alone.
  struct StepCount : torch::optim::LRScheduler {
    static unsigned& of(torch::optim::LRScheduler& scheduler) {
      return scheduler.*(&StepCount::step_count_);
    }
  };

  torch::optim::LRScheduler& scheduler_;
  unsigned steps_ = 0;
};

}  // namespace lawn::detail::checkpoint
