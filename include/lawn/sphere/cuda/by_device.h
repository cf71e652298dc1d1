// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include <c10/core/Device.h>

namespace lawn::sphere::cuda {

/// Plain memory, by the device on which it lies: launches are of one device each.
/// @tparam Run  Flat, or another description of memory
template <class Run>
class ByDevice {
 public:
  void add(at::Device device, const Run& run) {
    const auto found = std::find_if(groups_.begin(), groups_.end(),
                                    [&](const auto& group) { return group.first == device; });
    if (found != groups_.end()) {
      found->second.push_back(run);
    } else {
      groups_.emplace_back(device, std::vector<Run>{run});
    }
  }

  /// Calls `work(device, runs)` for each device, with its runs in the order in which they came.
  template <class Work>
  void for_each(const Work& work) const {
    for (const auto& [device, runs] : groups_) work(device, runs);
  }

 private:
  std::vector<std::pair<at::Device, std::vector<Run>>> groups_;
};

}  // namespace lawn::sphere::cuda
