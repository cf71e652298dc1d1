// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

namespace lawn::detail::parameters {

/// Reorders `items` so that alike ones are adjacent, and calls `use(begin, end)` for each group of
/// them. The order within a group stays.
/// @param alike  called as alike(item, first item of its group)
template <class Item, class Alike, class Use>
void for_each_alike(std::vector<Item>& items, const Alike& alike, const Use& use) {
  auto begin = items.begin();
  while (begin != items.end()) {
    const Item first = *begin;
    const auto end = std::stable_partition(begin, items.end(),
                                           [&](const Item& item) { return alike(item, first); });
    use(begin, end);
    begin = end;
  }
}

}  // namespace lawn::detail::parameters
