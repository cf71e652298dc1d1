// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>

#include <lawn/companions/block_grid.h>
#include <lawn/companions/pruning/smallest.h>
#include <lawn/decorator/held_weights.h>

/// The Euclidean projections of weight unification and of pruning: the nearest weight of which a
/// given fraction has a structure. Of equally near weights they give the one in which the first
/// blocks have it.
namespace lawn {

/// What a projection returns.
struct Projected {
  /// The projection: a copy, with shape, dtype and memory order of the given weight.
  at::Tensor weight;
  /// Which blocks were chosen: bool, [blocks down, blocks across]; for elements, in the weight's
  /// shape.
  at::Tensor chosen;
};

namespace detail::unification {

/// -1 where `value` is negative, else 1; zero is equally near to both.
inline at::Tensor signs_of(const at::Tensor& value) { return at::where(value < 0, -1.0, 1.0); }

/// `value` in the dtype and memory order of `weight`.
inline at::Tensor like(const at::Tensor& weight, const at::Tensor& value) {
  return at::empty_like(weight, weight.options().requires_grad(false)).copy_(value);
}

/// The mean over each block, in float64; if all elements are equal, it is exactly their value.
/// @param pruned  elements that take no part, or undefined; a block of nothing else gets NaN
inline at::Tensor block_means(const companions::BlockGrid& grid, const at::Tensor& values,
                              const at::Tensor& pruned) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto with = [&](double number) {
    return pruned.defined() ? values.masked_fill(pruned, number) : values;
  };
  const auto least = grid.tiles(with(kInfinity), kInfinity).amin({1, 3});
  const auto most = grid.tiles(with(-kInfinity), -kInfinity).amax({1, 3});
  const auto counts =
      pruned.defined() ? grid.sums(pruned.logical_not().to(at::kDouble)) : grid.counts(values);
  return at::minimum(at::maximum(grid.sums(with(0)) / counts, least), most);
}

inline void check_projected(const char* who, const std::string& name, const at::Tensor& weight,
                            const char* what, double fraction) {
  decorator::check_fraction(who, what, fraction);
  decorator::check_weight(who, name, weight);
  pruning::check_finite(who, name, weight);
}

inline void refuse_to_prune_all(const char* who, const std::string& name, double fraction,
                                int64_t count, int64_t all) {
  TORCH_CHECK(count < all, who, ": expected something of ", name,
              " to stay, got everything pruned by the fraction ", fraction, " of ", all,
              "; prune less, or leave it out");
}

}  // namespace detail::unification

/// Makes the absolute values in a fraction of the blocks equal.
///   a = mean |v|, v <- sign(v) a, sign(0) = 1        in the blocks of least sum (|v| - a)^2
/// @param weight    floating point, any shape and stride; cut as the matrix [size of dimension 0,
///                  all the rest], with smaller blocks at the edges if its size is no multiple of
///                  the block's
/// @param block     at most as large as the matrix
/// @param fraction  fraction of the blocks, in [0, 1]; rounded to the nearest number of blocks
/// @param name      name of the weight in messages
/// @param pruned    elements that take no part and become zero: bool, in the shape and on the
///                  device of `weight`; undefined if there are none
/// @throws c10::Error for a fraction out of range, blocks that are larger than the matrix or have
///         no size, a weight that is not of floating point or not finite, and for `pruned` of
///         another shape or type
/// @note   waits for the device; computes in float64
/// @source reconstructed from the abstract of arXiv 2106.08301 (2021)
inline Projected unify_blocks(const at::Tensor& weight, BlockShape block, double fraction,
                              const std::string& name = "the weight",
                              const at::Tensor& pruned = {}) {
  constexpr const char* kWho = "lawn::unify_blocks";
  detail::unification::check_projected(kWho, name, weight, "fraction", fraction);
  TORCH_CHECK(
      !pruned.defined() || (pruned.scalar_type() == at::kBool && pruned.sizes() == weight.sizes()),
      kWho, ": expected pruned elements as Bool of the shape ", weight.sizes(), " of ", name,
      ", got ", pruned.scalar_type(), " of shape ", pruned.sizes());
  const detail::companions::BlockGrid grid(kWho, name, weight, block);
  const at::NoGradGuard no_grad;
  const auto zeroed = [&](const at::Tensor& values) {
    return pruned.defined() ? values.masked_fill(pruned, 0) : values;
  };
  const auto value = zeroed(weight.detach().to(at::kDouble));
  const auto size = value.abs();
  const auto mean = detail::unification::block_means(grid, size, pruned);
  const auto error = grid.sums(zeroed((size - grid.spread(mean)).square()));
  const auto chosen =
      detail::pruning::smallest(error, detail::pruning::count_of(fraction, grid.blocks()));
  const auto unified = zeroed(detail::unification::signs_of(value) * grid.spread(mean));
  return {detail::unification::like(weight, at::where(grid.spread(chosen), unified, value)),
          chosen};
}

/// Makes a fraction of the blocks zero: those of least sum v^2.
/// @param weight    as for `unify_blocks`
/// @param block     as for `unify_blocks`
/// @param fraction  fraction of the blocks, in [0, 1], but not all of them
/// @param name      name of the weight in messages
/// @throws c10::Error as `unify_blocks` does, and if everything would be pruned
/// @note   waits for the device; computes in float64
inline Projected prune_blocks(const at::Tensor& weight, BlockShape block, double fraction,
                              const std::string& name = "the weight") {
  constexpr const char* kWho = "lawn::prune_blocks";
  detail::unification::check_projected(kWho, name, weight, "fraction", fraction);
  const detail::companions::BlockGrid grid(kWho, name, weight, block);
  const auto count = detail::pruning::count_of(fraction, grid.blocks());
  detail::unification::refuse_to_prune_all(kWho, name, fraction, count, grid.blocks());
  const at::NoGradGuard no_grad;
  const auto squares = weight.detach().to(at::kDouble).square();
  const auto chosen = detail::pruning::smallest(grid.sums(squares), count);
  return {detail::unification::like(weight, weight.detach().masked_fill(grid.spread(chosen), 0)),
          chosen};
}

/// Makes a fraction of the elements zero: those of least |v|.
/// @param weight  floating point, any shape and stride
/// @param amount  fraction of the elements, in [0, 1], but not all of them
/// @param name    name of the weight in messages
/// @throws c10::Error for an amount out of range, if everything would be pruned, and for a weight
///         that is not of floating point or not finite
/// @note   waits for the device
inline Projected prune_magnitude(const at::Tensor& weight, double amount,
                                 const std::string& name = "the weight") {
  constexpr const char* kWho = "lawn::prune_magnitude";
  detail::unification::check_projected(kWho, name, weight, "amount", amount);
  const auto count = detail::pruning::count_of(amount, weight.numel());
  detail::unification::refuse_to_prune_all(kWho, name, amount, count, weight.numel());
  const at::NoGradGuard no_grad;
  const auto chosen = detail::pruning::smallest(weight.detach().abs().to(at::kDouble), count);
  return {detail::unification::like(weight, weight.detach().masked_fill(chosen, 0)), chosen};
}

}  // namespace lawn
