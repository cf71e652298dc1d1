// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/capture/state_in_place.h>
#include <lawn/companions/pruning/mask.h>
#include <lawn/companions/pruning/zero_pruned.h>
#include <lawn/decorator.h>
#include <lawn/decorator/base_optimizer.h>
#include <lawn/decorator/held_weights.h>
#include <lawn/parameters/own_gradients.h>

namespace lawn {

namespace detail::pruning {

/// The rule of `Masked`, which documents the behaviour.
class MaskRule {
 public:
  static constexpr const char* kWho = "lawn::Masked";

  MaskRule(const torch::optim::Optimizer& optimizer, const Masks& masks) { set(optimizer, masks); }

  /// Replaces all masks, or throws and changes nothing.
  void set(const torch::optim::Optimizer& optimizer, const Masks& masks) {
    check_masks(kWho, masks);
    std::vector<NamedTensor> weights;
    for (const Mask& mask : masks) weights.push_back({mask.name, mask.weight});
    decorator::HeldWeights held(kWho, optimizer, weights);
    std::vector<at::Tensor> pruned;
    for (const Mask& mask : masks) pruned.push_back(pruned_beside(mask));
    for (std::size_t i = 0; i < masks.size(); ++i) {
      pruned[i] = capture::replaced(pruned_of(masks[i].weight), pruned[i]);
    }
    weights_ = std::move(held);
    pruned_ = std::move(pruned);
    zero_pruned_(weights_.tensors(), pruned_);
  }

  void check(const torch::optim::Optimizer& optimizer) {
    weights_.check(kWho, optimizer);
    for (const std::size_t i : with_masked_gradient(optimizer)) {
      decorator::refuse_sparse_gradient(kWho, weights_.at(i), "the masks");
    }
  }

  void before_step(torch::optim::Optimizer& optimizer) {
    follow_devices();
    const auto chosen = with_masked_gradient(optimizer);
    std::vector<at::Tensor> weights;
    std::vector<at::Tensor> pruned;
    for (const std::size_t i : chosen) {
      weights.push_back(weights_.tensors()[i]);
      pruned.push_back(pruned_[i]);
    }
    parameters::own_gradients_(optimizer, weights);
    std::vector<at::Tensor> gradients;
    gradients.reserve(weights.size());
    for (const at::Tensor& weight : weights) gradients.push_back(weight.grad());
    zero_pruned_(gradients, pruned);
  }

  void after_step(torch::optim::Optimizer& /*optimizer*/) {
    zero_pruned_(weights_.tensors(), pruned_);
  }

  void save(torch::serialize::OutputArchive& archive) const {
    weights_.save(archive);
    for (std::size_t i = 0; i < pruned_.size(); ++i) {
      archive.write("pruned/" + std::to_string(i), pruned_[i], /*is_buffer=*/true);
    }
  }

  void load(torch::serialize::InputArchive& archive, const torch::optim::Optimizer& /*optimizer*/) {
    weights_.refuse_others(kWho, archive);
    std::vector<at::Tensor> pruned;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      pruned.push_back(decorator::read_beside(kWho, archive, "pruned/" + std::to_string(i),
                                              weights_.at(i), weights_.tensors()[i].sizes(),
                                              at::kBool));
    }
    pruned_ = std::move(pruned);
  }

  Masks masks() const {
    Masks all;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const at::Tensor& weight = weights_.tensors()[i];
      all.push_back({weights_.names()[i], weight, beside(weight, pruned_[i]).logical_not()});
    }
    return all;
  }

  at::Tensor pruned_of(const at::Tensor& weight) const {
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      if (weights_.tensors()[i].is_same(weight)) return beside(weight, pruned_[i]);
    }
    return {};
  }

 private:
  /// Indices of the weights whose gradient has pruned elements that the optimizer must not see.
  std::vector<std::size_t> with_masked_gradient(const torch::optim::Optimizer& optimizer) const {
    std::vector<std::size_t> chosen;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const auto& group = optimizer.param_groups()[weights_.position(i).group];
      const bool by_element = group.has_options() && decorator::elementwise(group.options());
      if (!by_element && weights_.tensors()[i].grad().defined()) chosen.push_back(i);
    }
    return chosen;
  }

  /// A mask on the device of its weight, which may have been moved since the last step.
  static at::Tensor beside(const at::Tensor& weight, const at::Tensor& pruned) {
    return pruned.device() == weight.device() ? pruned : pruned.to(weight.device());
  }

  void follow_devices() {
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      pruned_[i] = beside(weights_.tensors()[i], pruned_[i]);
    }
  }

  decorator::HeldWeights weights_;
  std::vector<at::Tensor> pruned_;
};

}  // namespace detail::pruning

/// Training of a pruned network, around any optimizer.
///
///   O.step()
///   w <- keep ? w : 0          exactly zero after every step, and once at the construction
///
/// Masking gradients alone is not enough: momentum, and moments from before the pruning, go on
/// moving the weights. If the update of one element depends on the gradients of others (LARS, LAMB,
/// L-BFGS, and optimizers that lawn does not know), the gradients of pruned elements are also set
/// to zero before the step. The elements that stay then move, to the bit, as in a network that
/// multiplies its weights by the masks and starts with zero pruned elements.
///
/// `Masked<Opt>` is-a `Opt`. Pruned elements that are NaN or infinite become zero too. The masks
/// live outside the module, whose `clone()` and checkpoints do not change; checkpoints of the
/// optimizer hold them. Loading one does not touch the weights: load the module's beside it. In
/// `LAWN<Masked<Opt>>` norms are those of the pruned weights; in `Masked<LAWN<Opt>>` norms shrink
/// by what the pruned elements moved in the step. `step()` does not wait for the device.
///
/// @source  Han et al. 2015, arXiv 1506.02626; Liu et al. 2021, arXiv 2102.11068
template <class Opt>
class Masked : public Decorator<Opt, detail::pruning::MaskRule>, public MaskSource {
  static_assert(!std::is_base_of_v<MaskSource, Opt>,
                "lawn::Masked: the optimizer is masked already; give it all masks in one list");
  using Base = Decorator<Opt, detail::pruning::MaskRule>;

 public:
  /// Prunes the weights at once.
  /// @param optimizer  moved in, with its groups, options and state
  /// @param masks      from `magnitude_masks`, or by hand; each for a weight that `optimizer` holds
  ///                   once, bool, of the weight's shape and device, keeping at least one element.
  ///                   A mask that keeps everything is allowed: `set_masks` may replace it later
  /// @throws c10::Error  that names the weight, before anything is changed
  /// @note   waits for the device
  Masked(Opt&& optimizer, const Masks& masks)
      : Base(std::move(optimizer), detail::pruning::MaskRule(optimizer, masks)) {}

  /// Replaces all masks and prunes the weights at once, for gradual pruning. A graph that was
  /// captured before reads the new masks, if they are of the same weights; otherwise capture anew.
  /// @param masks   as for the constructor
  /// @throws c10::Error  as the constructor
  /// @note   waits for the device
  void set_masks(const Masks& masks) { this->rule_.set(*this, masks); }

  /// Copies of the present masks; the weights in them are aliases.
  Masks masks() const { return this->rule_.masks(); }

  at::Tensor pruned_of(const at::Tensor& weight) const override {
    return this->rule_.pruned_of(weight);
  }
};

}  // namespace lawn
