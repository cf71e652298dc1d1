// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/kthvalue.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <lawn/finite_math.h>

namespace lawn::detail::pruning {

/// Number of elements in a fraction of `all`, rounded to the nearest, halves to even, like Python's
/// `round`, with which torch.nn.utils.prune counts.
inline int64_t count_of(double fraction, int64_t all) {
  return static_cast<int64_t>(std::nearbyint(fraction * static_cast<double>(all)));
}

/// The `count` smallest of `scores`. Of equal scores the first count as smaller, so that the number
/// is exact, and a smaller count takes a subset of what a larger one takes.
/// @param scores  any shape, finite
/// @param count   from 0 to the number of scores
/// @return bool, in the shape of `scores`; waits for the device
inline at::Tensor smallest(const at::Tensor& scores, int64_t count) {
  const auto flat = scores.reshape({-1});
  TORCH_INTERNAL_ASSERT(count >= 0 && count <= flat.numel(), count, " of ", flat.numel());
  if (count == 0) return at::zeros_like(scores, scores.options().dtype(at::kBool));
  if (count == flat.numel()) return at::ones_like(scores, scores.options().dtype(at::kBool));
  const auto limit = std::get<0>(at::kthvalue(flat, count));
  auto chosen = flat < limit;
  const auto missing = count - chosen.sum().item<int64_t>();
  const auto ties = (flat == limit).nonzero().reshape({-1}).slice(0, 0, missing);
  chosen.index_fill_(0, ties, true);
  return chosen.view(scores.sizes());
}

/// @throws c10::Error if an element is NaN or infinite. Waits for the device
inline void check_finite(const char* who, const std::string& name, const at::Tensor& tensor) {
  TORCH_CHECK(at::isfinite(tensor).all().item<bool>(), who,
              ": expected finite weights, got NaN or ", "an infinity in ", name,
              "; nothing was changed");
}

}  // namespace lawn::detail::pruning
