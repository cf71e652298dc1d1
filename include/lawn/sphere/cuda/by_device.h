// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include <c10/core/Device.h>

namespace lawn::sphere::cuda {

/// Sorts descriptions of plain memory by device, since a launch runs on one device.
/// @tparam Plain  Flat, or another description of memory
template <class Plain>
class ByDevice {
 public:
  void add(at::Device device, const Plain& plain) {
    const auto found = std::find_if(groups_.begin(), groups_.end(),
                                    [&](const auto& group) { return group.first == device; });
    if (found != groups_.end()) {
      found->second.push_back(plain);
    } else {
      groups_.emplace_back(device, std::vector<Plain>{plain});
    }
  }

  /// Calls `work(device, list)` for each device; the list has the items in the order of `add`.
  template <class Work>
  void for_each(const Work& work) const {
    for (const auto& [device, list] : groups_) work(device, list);
  }

 private:
  std::vector<std::pair<at::Device, std::vector<Plain>>> groups_;
};

}  // namespace lawn::sphere::cuda
