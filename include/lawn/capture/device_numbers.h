// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/Exception.h>

#include <lawn/finite_math.h>

/// Learning rates and step counts in memory of the parameters' devices, from which a captured step
/// reads them at each replay.
namespace lawn::detail::capture {

/// The learning rate of a group on one device.
struct DeviceRate {
  at::Tensor wide;    ///< `[]`, float64; lawn's own kernels read it
  at::Tensor narrow;  ///< LibTorch's fused functions read it; float32 on a GPU, else `wide`
  std::optional<double> uploaded;
};

/// Parameters on one device that have done the same number of steps, and still will as long as all
/// of them or none get gradients. They share a count, so that one addition counts a step of all.
struct Cohort {
  at::Tensor count;  ///< `[]`, float32
  std::size_t members = 0;
};

class DeviceNumbers {
 public:
  /// The learning rate of `group` on `device`; null if it was never uploaded there.
  const DeviceRate* find_rate(std::size_t group, at::Device device) const {
    if (group >= rates_.size()) return nullptr;
    for (const auto& [place, rate] : rates_[group]) {
      if (place == device) return &rate;
    }
    return nullptr;
  }

  /// Makes `lr` the learning rate of `group` on `device`; does nothing if it already is. Does not
  /// wait for the device.
  void upload_rate(std::size_t group, at::Device device, double lr) {
    if (find_rate(group, device) == nullptr) add_rate(group, device);
    for (auto& [place, rate] : rates_[group]) {
      if (place != device || rate.uploaded == lr) continue;
      rate.wide.fill_(lr);  // passed as a kernel's parameter: a copy from the host might wait
      if (!rate.narrow.is_same(rate.wide)) rate.narrow.fill_(lr);
      rate.uploaded = lr;
    }
  }

  /// The cohort of `parameter`; null if it has none.
  Cohort* find_cohort(const at::Tensor& parameter) const {
    const auto found = cohorts_.find(parameter.unsafeGetTensorImpl());
    return found == cohorts_.end() ? nullptr : found->second.get();
  }

  /// Whether `entries` have every member of each of their cohorts, so that no count has to be made.
  template <class Entries>
  bool complete(const Entries& entries) const {
    const auto cohorts = present(entries);
    return std::all_of(cohorts.begin(), cohorts.end(), [](const auto& part) {
      return part.first != nullptr && part.first->members == part.second;
    });
  }

  /// Counts one step of `entries`, and gives each its `count`.
  /// @param host_count  gives the number of steps of an entry whose parameter has no cohort yet
  template <class Entries, class HostCount>
  void count_step(Entries& entries, const HostCount& host_count) {
    join(entries, host_count);
    split(entries);
    for (const auto& [cohort, members] : present(entries)) cohort->count.add_(1);
    for (auto& entry : entries) entry.count = find_cohort(entry.parameter)->count;
  }

  /// The step counts of all parameters in cohorts. Waits for the current stream of each device.
  std::vector<std::pair<const void*, int64_t>> read_counts() const {
    std::vector<std::pair<const Cohort*, int64_t>> read;  // once for all members of a cohort
    std::vector<std::pair<const void*, int64_t>> counts;
    for (const auto& [parameter, cohort] : cohorts_) {
      const Cohort* of_parameter = cohort.get();
      auto found = std::find_if(read.begin(), read.end(),
                                [&](const auto& part) { return part.first == of_parameter; });
      if (found == read.end()) {
        found = read.insert(found, {of_parameter, cohort->count.item().toLong()});
      }
      counts.emplace_back(parameter, found->second);
    }
    return counts;
  }

  /// Removes `parameter`, whose state is made anew, from its cohort.
  void leave(const at::Tensor& parameter) {
    const auto found = cohorts_.find(parameter.unsafeGetTensorImpl());
    if (found == cohorts_.end()) return;
    --found->second->members;
    cohorts_.erase(found);
  }

  /// Forgets every count: the next step makes them anew, from the host's counts.
  void forget_counts() { cohorts_.clear(); }

 private:
  /// The cohorts of `entries` (null for entries in none), each with its number of members among
  /// them.
  template <class Entries>
  std::vector<std::pair<Cohort*, std::size_t>> present(const Entries& entries) const {
    std::vector<std::pair<Cohort*, std::size_t>> cohorts;  // few: most models have one or two
    for (const auto& entry : entries) {
      Cohort* cohort = find_cohort(entry.parameter);
      const auto found = std::find_if(cohorts.begin(), cohorts.end(),
                                      [&](const auto& part) { return part.first == cohort; });
      if (found == cohorts.end()) {
        cohorts.emplace_back(cohort, 1);
      } else {
        ++found->second;
      }
    }
    return cohorts;
  }

  void add_rate(std::size_t group, at::Device device) {
    if (group >= rates_.size()) rates_.resize(group + 1);
    const auto options = at::TensorOptions(device).dtype(at::kDouble);
    DeviceRate rate;
    rate.wide = at::full({}, 0.0, options);
    rate.narrow = device.is_cuda() ? at::full({}, 0.0, options.dtype(at::kFloat)) : rate.wide;
    rates_[group].emplace_back(device, std::move(rate));
  }

  /// Makes cohorts for the `entries` that are in none.
  template <class Entries, class HostCount>
  void join(const Entries& entries, const HostCount& host_count) {
    std::vector<std::pair<int64_t, std::shared_ptr<Cohort>>> made;
    for (const auto& entry : entries) {
      if (find_cohort(entry.parameter) != nullptr) continue;
      const auto device = entry.parameter.device();
      const int64_t count = host_count(entry);
      std::shared_ptr<Cohort> cohort;
      for (const auto& [of_count, other] : made) {
        if (of_count == count && other->count.device() == device) cohort = other;
      }
      if (cohort == nullptr) {
        cohort = std::make_shared<Cohort>();
        cohort->count = at::full({}, count, at::TensorOptions(device).dtype(at::kFloat));
        made.emplace_back(count, cohort);
      }
      ++cohort->members;
      cohorts_[entry.parameter.unsafeGetTensorImpl()] = std::move(cohort);
    }
  }

  /// If only some members of a cohort are among `entries`, moves these to a new cohort.
  template <class Entries>
  void split(const Entries& entries) {
    for (const auto& part : present(entries)) {
      const auto [cohort, members] = part;
      if (members == cohort->members) continue;
      const auto taken = std::make_shared<Cohort>();
      taken->count = cohort->count.clone();
      taken->members = members;
      for (const auto& entry : entries) {
        auto& of_entry = cohorts_.at(entry.parameter.unsafeGetTensorImpl());
        if (of_entry.get() != cohort) continue;
        --of_entry->members;
        of_entry = taken;
      }
    }
  }

  std::vector<std::vector<std::pair<at::Device, DeviceRate>>> rates_;  // of each group
  std::unordered_map<const void*, std::shared_ptr<Cohort>> cohorts_;   // of each parameter
};

}  // namespace lawn::detail::capture
