// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <ATen/core/Tensor.h>
#include <c10/util/StringUtil.h>

#include <lawn/companions/block_grid.h>
#include <lawn/companions/unification/frozen_structure.h>
#include <lawn/companions/unification/projections.h>

namespace lawn {

/// One of the projections with its parameters, for `Admm`.
class Projection {
 public:
  /// `lawn::unify_blocks` with these parameters.
  static Projection unify_blocks(BlockShape block, double fraction) {
    return {Kind::kUnifyBlocks, block, fraction};
  }
  /// `lawn::prune_blocks` with these parameters.
  static Projection prune_blocks(BlockShape block, double fraction) {
    return {Kind::kPruneBlocks, block, fraction};
  }
  /// `lawn::prune_magnitude` with these parameters.
  static Projection prune_magnitude(double amount) {
    return {Kind::kPruneMagnitude, {1, 1}, amount};
  }

  /// The projection of one weight.
  /// @param weight  as for the projection's function, floating; it does not change
  /// @param name    what messages call it
  /// @param pruned  elements that stay zero, as for `lawn::unify_blocks`, or undefined
  /// @throws c10::Error as the projection's function does
  /// @note   waits for the device
  Projected operator()(const at::Tensor& weight, const std::string& name = "the weight",
                       const at::Tensor& pruned = {}) const {
    switch (kind_) {
      case Kind::kUnifyBlocks:
        return lawn::unify_blocks(weight, block_, fraction_, name, pruned);
      case Kind::kPruneBlocks:
        return lawn::prune_blocks(weight, block_, fraction_, name);
      default:
        return lawn::prune_magnitude(weight, fraction_, name);
    }
  }

  /// The structure that retraining must keep of a projected weight.
  FrozenStructure freeze(const std::string& name, const at::Tensor& weight,
                         const Projected& projected) const {
    if (kind_ == Kind::kUnifyBlocks) {
      return detail::unification::freeze_unified(name, weight, projected, block_);
    }
    auto of_matrix = projected;
    if (kind_ == Kind::kPruneMagnitude) {
      const auto rows = weight.dim() > 0 ? weight.size(0) : 1;
      of_matrix.chosen = projected.chosen.reshape({rows, -1});
    }
    return detail::unification::freeze_pruned(name, weight, of_matrix, block_);
  }

  /// Whether the projection makes absolute values equal; otherwise it prunes.
  bool unifies() const { return kind_ == Kind::kUnifyBlocks; }

  /// The size of its blocks.
  BlockShape block() const { return block_; }

  /// Text for messages and checkpoints: "unify_blocks 4x4 0.5".
  std::string describe() const {
    const char* const name = kind_ == Kind::kUnifyBlocks   ? "unify_blocks "
                             : kind_ == Kind::kPruneBlocks ? "prune_blocks "
                                                           : "prune_magnitude ";
    return c10::str(name, block_.rows, "x", block_.columns, " ", fraction_);
  }

 private:
  enum class Kind { kUnifyBlocks, kPruneBlocks, kPruneMagnitude };

  Projection(Kind kind, BlockShape block, double fraction)
      : kind_(kind), block_(block), fraction_(fraction) {}

  Kind kind_;
  BlockShape block_;
  double fraction_;
};

}  // namespace lawn
