// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>

#include <lawn/companions/pruning/zero_pruned.h>
#include <lawn/decorator/held_weights.h>

namespace lawn {

/// Says which elements of a weight stay.
struct Mask {
  /// Name of the weight in messages and checkpoints.
  std::string name;
  /// The weight itself (an alias, not a copy): any shape, stride and device, floating point.
  at::Tensor weight;
  /// Bool, in the shape and on the device of `weight`; false means that the element is pruned.
  /// Python's torch.nn.utils.prune has the same convention.
  at::Tensor keep;
};

/// Masks of several weights, in the order in which an optimizer gets them.
using Masks = std::vector<Mask>;

/// Interface by which an optimizer tells about the masks that it holds, whatever is wrapped around
/// it. Other decorators that act on the weights ask it, and leave pruned elements alone. Get it by
/// `dynamic_cast<const MaskSource*>(&optimizer)`.
class MaskSource {
 public:
  virtual ~MaskSource() = default;

  /// The elements of `weight` that are pruned: bool, in its shape; undefined if it has no mask. The
  /// tensor is no copy, and the next mask of this weight may be written into it.
  virtual at::Tensor pruned_of(const at::Tensor& weight) const = 0;

 protected:
  MaskSource() = default;
  /// Only derived classes copy and move it.
  MaskSource(const MaskSource&) = default;
  MaskSource(MaskSource&&) = default;
  MaskSource& operator=(const MaskSource&) = default;
  MaskSource& operator=(MaskSource&&) = default;
};

namespace detail::pruning {

/// What masks prune of each weight, whether their decorator is inside or around the one that asks;
/// undefined where there are none.
inline std::vector<at::Tensor> pruned_in(const torch::optim::Optimizer& optimizer,
                                         const std::vector<at::Tensor>& weights) {
  std::vector<at::Tensor> pruned(weights.size());
  if (const auto* masks = dynamic_cast<const MaskSource*>(&optimizer)) {
    std::transform(weights.begin(), weights.end(), pruned.begin(),
                   [&](const at::Tensor& weight) { return masks->pruned_of(weight); });
  }
  return pruned;
}

/// @throws c10::Error that names the first invalid mask. Waits for the device.
inline void check_masks(const char* who, const Masks& masks) {
  TORCH_CHECK(!masks.empty(), who, ": expected at least one mask, got none");
  for (const Mask& mask : masks) {
    decorator::check_weight(who, mask.name, mask.weight);
    TORCH_CHECK(mask.keep.defined(), who, ": expected a mask for ", mask.name,
                ", got an undefined tensor");
    TORCH_CHECK(mask.keep.scalar_type() == at::kBool, who, ": expected a mask of type Bool for ",
                mask.name, ", got ", mask.keep.scalar_type(), "; convert it, for example by != 0");
    TORCH_CHECK(mask.keep.sizes() == mask.weight.sizes(), who, ": expected the mask of ", mask.name,
                " to have the weight's shape ", mask.weight.sizes(), ", got ", mask.keep.sizes());
    TORCH_CHECK(mask.keep.device() == mask.weight.device(), who, ": expected the mask of ",
                mask.name, " on the weight's device ", mask.weight.device(), ", got ",
                mask.keep.device(), "; move it there");
    TORCH_CHECK(mask.keep.any().item<bool>(), who, ": expected something of ", mask.name,
                " to stay, got a mask that prunes all of its ", mask.weight.numel(),
                " elements; prune less, or leave it out");
  }
}

/// The elements that the mask prunes, in the weight's memory order, so that one loop can run over
/// both.
inline at::Tensor pruned_beside(const Mask& mask) {
  return at::empty_like(mask.weight, mask.keep.options()).copy_(mask.keep.logical_not());
}

}  // namespace detail::pruning

/// Prunes weights: every element that its mask does not keep becomes exactly zero.
///   w <- keep ? w : 0
/// @param masks  the weights are changed in place
/// @throws c10::Error for a mask of another shape, type or device, and for one that keeps nothing:
///         the message names it, and nothing is changed
/// @note   waits for the device, to check that something is kept
inline void apply_masks_(const Masks& masks) {
  detail::pruning::check_masks("lawn::apply_masks_", masks);
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> pruned;
  for (const Mask& mask : masks) {
    weights.push_back(mask.weight);
    pruned.push_back(detail::pruning::pruned_beside(mask));
  }
  detail::pruning::zero_pruned_(weights, pruned);
}

/// The pruned fraction of all elements that have a mask, from 0 to 1. Waits for the device.
inline double sparsity(const Masks& masks) {
  double kept = 0;
  double all = 0;
  for (const Mask& mask : masks) {
    kept += mask.keep.sum().item<double>();
    all += static_cast<double>(mask.keep.numel());
  }
  return all > 0 ? 1 - kept / all : 0;
}

}  // namespace lawn
