// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace lawn::detail::archive {

/// Copies values into a tensor of the same shape. Of a dimension that was made by `expand`, whose
/// elements share one place and which `copy_` refuses, the first ones are taken.
/// @param into          changed in place
/// @param values        of the same shape, on any device
/// @param non_blocking  whether the copy may return before it is done, as in `copy_`
inline void copy_values(at::Tensor into, at::Tensor values, bool non_blocking = false) {
  for (int64_t d = 0; into.layout() == at::kStrided && d < into.dim(); ++d) {
    if (into.stride(d) != 0 || into.size(d) < 2) continue;
    into = into.narrow(d, 0, 1);
    values = values.narrow(d, 0, 1);
  }
  into.copy_(values, non_blocking);
}

}  // namespace lawn::detail::archive
