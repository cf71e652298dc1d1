// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>

#include <lawn/companions/block_grid.h>
#include <lawn/companions/pruning/mask.h>
#include <lawn/companions/pruning/smallest.h>
#include <lawn/decorator/held_weights.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

/// Where magnitudes are compared.
enum class PruneScope {
  kPerLayer,  ///< each weight loses the same fraction (l1_unstructured, ln_structured of Python)
  kGlobal     ///< the smallest of all weights go (global_unstructured)
};

/// The unit that is pruned as a whole.
enum class PruneUnit {
  kElement,  ///< one element, compared by |w|
  kRow,      ///< a slice of `dim`: an output channel, a neuron
  kBlock     ///< a block of the matrix [size of dimension 0, all the rest]
};

/// Options of `magnitude_masks`.
struct MagnitudeOptions {
  /// The fraction of the units that is pruned, in [0, 1]. The number of units is rounded as
  /// Python's torch.nn.utils.prune does, and is exact even if magnitudes are equal.
  TORCH_ARG(double, amount) = 0.5;
  /// Whether the smallest units are sought in each layer or among all weights.
  TORCH_ARG(PruneScope, scope) = PruneScope::kPerLayer;
  /// The unit that is pruned as a whole.
  TORCH_ARG(PruneUnit, unit) = PruneUnit::kElement;
  /// The dimension along which rows are sliced.
  TORCH_ARG(int64_t, dim) = 0;
  /// Order of the norm by which rows and blocks are compared, > 0 and finite. The norm is a mean
  /// over the elements, so that rows of different lengths, and the smaller blocks at the edges,
  /// have equal chances.
  TORCH_ARG(double, n) = 2;
  /// With `PruneUnit::kBlock`: the size of a block.
  TORCH_ARG(BlockShape, block);

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    detail::decorator::check_fraction("lawn::magnitude_masks", "amount", amount());
    TORCH_CHECK(std::isfinite(n()) && n() > 0,
                "lawn::magnitude_masks: n must be finite and > 0, got ", n());
  }
};

namespace detail::pruning {

/// Scores the units of a weight, and spreads a choice of units over its elements.
struct UnitScores {
  /// One score for each unit.
  static at::Tensor of(const NamedTensor& weight, const at::Tensor& values,
                       const MagnitudeOptions& options) {
    if (options.unit() == PruneUnit::kElement) return values.reshape({-1});
    const auto wide = values.to(at::kDouble);
    // Elements are divided by the largest of their unit, so that no power is out of range.
    const auto or_one = [](const at::Tensor& most) { return most.masked_fill(most == 0, 1); };
    if (options.unit() == PruneUnit::kBlock) {
      const companions::BlockGrid grid(kWho, weight.name, values, options.block());
      const auto most = or_one(grid.tiles(wide, 0).amax({1, 3}));
      const auto powers = (wide / grid.spread(most)).pow(options.n());
      const auto norms = (grid.sums(powers) / grid.counts(powers)).pow(1 / options.n());
      return (norms * most).reshape({-1});
    }
    const auto moved = wide.movedim(options.dim(), 0);
    const auto rows = moved.reshape({moved.size(0), -1});
    const auto most = or_one(rows.amax(1, /*keepdim=*/true));
    const auto powers = (rows / most).pow(options.n());
    return powers.mean(1).pow(1 / options.n()) * most.squeeze(1);
  }

  /// The elements of chosen units.
  static at::Tensor spread(const NamedTensor& weight, const at::Tensor& chosen,
                           const MagnitudeOptions& options) {
    const auto& tensor = weight.tensor;
    if (options.unit() == PruneUnit::kElement) return chosen.view(tensor.sizes());
    if (options.unit() == PruneUnit::kBlock) {
      return companions::BlockGrid(kWho, weight.name, tensor, options.block()).spread(chosen);
    }
    std::vector<int64_t> shape(static_cast<std::size_t>(tensor.dim()), 1);
    shape[static_cast<std::size_t>(options.dim())] = chosen.numel();
    return chosen.view(shape).expand(tensor.sizes());
  }

  static constexpr const char* kWho = "lawn::magnitude_masks";
};

/// The mask among `masks` of this weight, or an undefined tensor.
inline at::Tensor keep_of(const Masks& masks, const at::Tensor& weight) {
  for (const Mask& mask : masks) {
    if (mask.weight.is_same(weight)) return mask.keep;
  }
  return {};
}

}  // namespace detail::pruning

/// Makes masks that prune the smallest units.
/// @param selection  the weights for which masks are made; no weight is changed
/// @param options    `amount` refers to all units of the weights; with `previous`, units that are
///                   pruned already count first
/// @param previous   earlier masks of some of the selected weights: what they prune stays pruned.
///                   Masks of growing amounts, each made with the last, are nested
/// @return one mask for each weight of the selection, in its order
/// @throws c10::Error  for an option out of range; also for a weight all of whose elements would be
///                   pruned (leave it out of a global scope, or prune less), that is smaller than a
///                   block, has no dimension `dim`, or is not finite: the message names it
/// @note   waits for the device
/// @source Han et al. 2015, arXiv 1506.02626, for elements; Li et al. 2017, arXiv 1608.08710, rows
inline Masks magnitude_masks(const Subnetwork& selection, const MagnitudeOptions& options = {},
                             const Masks& previous = {}) {
  constexpr const char* kWho = detail::pruning::UnitScores::kWho;
  options.validate();
  const at::NoGradGuard no_grad;
  const auto weights = detail::decorator::weights_of(selection);
  if (!previous.empty()) detail::pruning::check_masks(kWho, previous);
  for (const Mask& mask : previous) {
    const bool selected = std::any_of(weights.begin(), weights.end(), [&](const auto& weight) {
      return weight.tensor.is_same(mask.weight);
    });
    TORCH_CHECK(selected, kWho, ": expected previous masks of selected weights, got one of ",
                mask.name, ", which is not; select it too");
  }

  std::vector<at::Tensor> scores;
  for (const auto& weight : weights) {
    detail::decorator::check_weight(kWho, weight.name, weight.tensor);
    detail::pruning::check_finite(kWho, weight.name, weight.tensor);
    TORCH_CHECK(options.unit() != PruneUnit::kRow ||
                    (options.dim() >= 0 && options.dim() < weight.tensor.dim()),
                kWho, ": expected a dimension of ", weight.name, ", of shape ",
                weight.tensor.sizes(), ", got dim ", options.dim());
    auto values = weight.tensor.detach().abs();
    if (values.scalar_type() != at::kDouble) values = values.to(at::kFloat);
    const auto keep = detail::pruning::keep_of(previous, weight.tensor);
    // Pruned units get a score below every magnitude, so that they precede a zero that is not
    // pruned.
    if (keep.defined()) values = values.masked_fill(keep.logical_not(), 0);
    auto of_units = detail::pruning::UnitScores::of(weight, values, options);
    if (keep.defined()) {
      const auto kept =
          detail::pruning::UnitScores::of(weight, keep.to(values.scalar_type()), options);
      of_units = of_units.masked_fill(kept == 0, -1);
    }
    scores.push_back(std::move(of_units));
  }
  std::vector<at::Tensor> pruned;
  const auto choose = [&](const at::Tensor& of_units) {
    const auto already = (of_units < 0).sum().item<int64_t>();
    const auto count = detail::pruning::count_of(options.amount(), of_units.numel());
    return detail::pruning::smallest(of_units, std::max(count, already));
  };
  if (options.scope() == PruneScope::kPerLayer) {
    for (const auto& of_units : scores) pruned.push_back(choose(of_units));
  } else {
    std::vector<int64_t> sizes;
    std::vector<at::Tensor> together;
    for (const auto& of_units : scores) {
      sizes.push_back(of_units.numel());
      together.push_back(of_units.to(scores.front().device()));
    }
    pruned = choose(at::cat(together)).split_with_sizes(sizes);
  }

  Masks masks;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto& weight = weights[i];
    const auto chosen = pruned[i].to(weight.tensor.device());
    auto keep = at::empty_like(weight.tensor, weight.tensor.options().dtype(at::kBool));
    keep.copy_(detail::pruning::UnitScores::spread(weight, chosen, options).logical_not());
    const auto before = detail::pruning::keep_of(previous, weight.tensor);
    if (before.defined()) keep.logical_and_(before);
    TORCH_CHECK(keep.any().item<bool>(), kWho, ": expected something of ", weight.name,
                " to stay, got everything pruned at amount ", options.amount(),
                "; prune less, or leave it out of the selection");
    masks.push_back({weight.name, weight.tensor, keep});
  }
  return masks;
}

}  // namespace lawn
