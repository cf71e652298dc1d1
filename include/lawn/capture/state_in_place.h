// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unordered_set>

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

#include <lawn/sphere/flatten.h>

namespace lawn::detail::capture {

/// A set of parameters, by address.
using Chosen = std::unordered_set<const c10::TensorImpl*>;

/// What replaces `present`, which a captured step may read: `present` itself with the values of
/// `value`, if both have one shape, dtype, device and order in memory, else `value`. Does not wait
/// for the device.
inline at::Tensor replaced(const at::Tensor& present, const at::Tensor& value) {
  const bool alike = present.defined() && present.scalar_type() == value.scalar_type() &&
                     present.device() == value.device() &&
                     sphere::detail::same_order(present, value);
  return alike ? present.copy_(value) : value;
}

/// An optimizer whose state a captured step may read, so that a reset must happen in place.
class StateInPlace {
 public:
  /// Whether a step may have been captured.
  virtual bool resets_in_place() const = 0;
  /// Resets the state of the chosen parameters to its initial values, and their step counts on the
  /// devices to 0. Does not wait for the device.
  /// @throws c10::Error  if that cannot be done; nothing is changed then
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
