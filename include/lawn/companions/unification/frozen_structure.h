// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>

#include <lawn/companions/block_grid.h>
#include <lawn/companions/pruning/zero_pruned.h>
#include <lawn/companions/unification/projections.h>
#include <lawn/companions/unification/unify_frozen.h>

namespace lawn {

/// The structure that retraining keeps of a projected weight: which blocks have it, and with which
/// signs.
struct FrozenStructure {
  /// Name of the weight in messages and checkpoints.
  std::string name;
  /// The weight itself (an alias, not a copy).
  at::Tensor weight;
  /// Size of a block; 1x1 if elements are pruned.
  BlockShape block;
  /// Which blocks have the structure: bool, one value for each block.
  at::Tensor chosen;
  /// For unification: int8 in the weight's shape, -1 or 1 in a chosen block, else 0.
  at::Tensor signs;
  /// For pruning: bool in the weight's shape, whether the element is zero.
  at::Tensor pruned;
};

namespace detail::unification {

/// `value` in `dtype` and in the weight's memory order.
inline at::Tensor beside_weight(const at::Tensor& weight, const at::Tensor& value,
                                at::ScalarType dtype) {
  return at::empty_like(weight, weight.options().dtype(dtype).requires_grad(false)).copy_(value);
}

inline FrozenStructure freeze_unified(const std::string& name, const at::Tensor& weight,
                                      const Projected& projected, BlockShape block) {
  const companions::BlockGrid grid("lawn::Admm", name, weight, block);
  const auto signs = at::where(grid.spread(projected.chosen), signs_of(projected.weight), 0.0);
  return {name, weight, block, projected.chosen, beside_weight(weight, signs, at::kChar), {}};
}

inline FrozenStructure freeze_pruned(const std::string& name, const at::Tensor& weight,
                                     const Projected& projected, BlockShape block) {
  const companions::BlockGrid grid("lawn::Admm", name, weight, block);
  const auto pruned = grid.spread(projected.chosen);
  return {name, weight, block, projected.chosen, {}, beside_weight(weight, pruned, at::kBool)};
}

}  // namespace detail::unification

/// Brings each weight back to its structure.
///   unified:  w <- s a, a = max(0, mean of s w over the block)
///   pruned:   w <- 0
/// @param structures  of `Admm::structures`; the weights are changed in place
/// @param pruned      for each weight the elements that take no part in its blocks and stay as they
///                    are (bool, of its shape and device), or an undefined tensor; may be empty.
///                    ATen does the work for such a weight
/// @note  does not wait for the device
inline void project_(const std::vector<FrozenStructure>& structures,
                     const std::vector<at::Tensor>& pruned = {}) {
  TORCH_CHECK(pruned.empty() || pruned.size() == structures.size(),
              "lawn::project_: expected pruned elements of each of ", structures.size(),
              " weights, or none at all, got a list of ", pruned.size());
  const at::NoGradGuard no_grad;
  std::vector<detail::unification::FrozenSigns> unified;
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> zeros;
  for (std::size_t i = 0; i < structures.size(); ++i) {
    const FrozenStructure& structure = structures[i];
    if (structure.pruned.defined()) {
      weights.push_back(structure.weight);
      zeros.push_back(structure.pruned);
    } else if (!pruned.empty() && pruned[i].defined()) {
      detail::unification::aten::unify_frozen_(structure.weight, structure.signs, structure.block,
                                               pruned[i]);
    } else {
      unified.push_back({structure.weight, structure.signs, structure.block});
    }
  }
  detail::unification::unify_frozen_(unified);
  detail::pruning::zero_pruned_(weights, zeros);
}

/// Bytes of weights, dense and encoded.
struct EncodedSize {
  /// Bytes of the dense weights.
  int64_t dense = 0;
  /// Bytes when the structure is used, as `encoded_size` says.
  int64_t encoded = 0;
};

/// Size of the weights in a file that uses the structure. Each block takes one bit that says
/// whether it has the structure; a unified block takes one value, and a sign bit for each element;
/// a pruned block takes nothing more; any other block takes its values. Each weight is rounded up
/// to whole bytes. LibTorch's kernels do not run faster for it.
/// @param structures  of `Admm::structures`
/// @note  waits for the device
inline EncodedSize encoded_size(const std::vector<FrozenStructure>& structures) {
  EncodedSize size;
  for (const auto& structure : structures) {
    const auto bytes = static_cast<int64_t>(structure.weight.element_size());
    const auto numel = structure.weight.numel();
    const bool unified = structure.signs.defined();
    const auto elements =
        (unified ? structure.signs.ne(0) : structure.pruned).sum().item<int64_t>();
    int64_t bits = structure.chosen.numel() + (numel - elements) * bytes * 8;
    if (unified) bits += structure.chosen.sum().item<int64_t>() * bytes * 8 + elements;
    size.dense += numel * bytes;
    size.encoded += (bits + 7) / 8;
  }
  return size;
}

}  // namespace lawn
