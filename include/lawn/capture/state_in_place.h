// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unordered_set>

#include <c10/core/TensorImpl.h>

namespace lawn::detail::capture {

/// Parameters by their address.
using Chosen = std::unordered_set<const c10::TensorImpl*>;

/// An optimizer whose state a captured step may read, so that it begins anew where it lies.
class StateInPlace {
 public:
  /// Whether a step may have been captured.
  virtual bool resets_in_place() const = 0;
  /// Puts the state of the chosen parameters back to how it begins, and their step counts on the
  /// devices to 0. Does not wait for the device.
  /// @throws c10::Error  where that cannot be done; nothing is changed then
  virtual void reset_in_place(const Chosen& chosen) = 0;

 protected:
  StateInPlace() = default;
  ~StateInPlace() = default;
  StateInPlace(const StateInPlace&) = default;
  StateInPlace& operator=(const StateInPlace&) = default;
  StateInPlace(StateInPlace&&) = default;
  StateInPlace& operator=(StateInPlace&&) = default;
};

}  // namespace lawn::detail::capture
