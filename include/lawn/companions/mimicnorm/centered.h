// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/companions/mimicnorm/center_rows.h>
#include <lawn/companions/pruning/mask.h>
#include <lawn/decorator.h>
#include <lawn/decorator/held_weights.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

namespace detail::mimicnorm {

/// The rule of `Centered`, which documents the behaviour.
class CenteredRule {
 public:
  static constexpr const char* kWho = "lawn::Centered";

  CenteredRule(const torch::optim::Optimizer& optimizer, const Subnetwork& selection) {
    for (const auto& parameter : selection.all()) {
      if (!parameter.constrained()) continue;
      decorator::check_weight(kWho, parameter.name, parameter.tensor);
      const at::Tensor& weight = parameter.tensor;
      const int64_t units = weight.dim() > parameter.unit_dim ? weight.size(parameter.unit_dim) : 1;
      TORCH_CHECK(weight.dim() > parameter.unit_dim && weight.numel() / units > 1, kWho,
                  ": expected weights with more than one element to an output unit, got ",
                  parameter.name, " of shape ", weight.sizes(),
                  ", which centring would make zero; leave it out");
      rows_.push_back({weight, parameter.unit_dim, {}});
    }
    weights_ = decorator::HeldWeights(kWho, optimizer, decorator::weights_of(selection));
  }

  void check(const torch::optim::Optimizer& optimizer) { weights_.check(kWho, optimizer); }

  void before_step(torch::optim::Optimizer& /*optimizer*/) {}

  void after_step(torch::optim::Optimizer& optimizer) { center(optimizer); }

  void center(const torch::optim::Optimizer& optimizer) {
    weights_.check_shapes(kWho);
    const auto pruned = pruning::pruned_in(optimizer, weights_.tensors());
    for (std::size_t i = 0; i < rows_.size(); ++i) rows_[i].pruned = pruned[i];
    center_rows_(rows_);
    for (WeightRows& rows : rows_) rows.pruned.reset();
  }

  void save(torch::serialize::OutputArchive& archive) const { weights_.save(archive); }

  void load(torch::serialize::InputArchive& archive, const torch::optim::Optimizer& /*optimizer*/) {
    weights_.refuse_others(kWho, archive);
  }

  const std::vector<std::string>& names() const { return weights_.names(); }

 private:
  decorator::HeldWeights weights_;
  std::vector<WeightRows> rows_;
};

}  // namespace detail::mimicnorm

/// MimicNorm's centred weights around any optimizer.
///
///   O.step()
///   w_o <- w_o - mean(w_o)          for every output unit o of every selected weight
///
/// `Centered<Opt>` is-a `Opt`. The outputs of a ReLU have a mean; a centred weight does not pass it
/// on, which is half of what batch norm does. For SGD (including momentum, decay and Nesterov)
/// centring the weights equals centring the gradients, if the start is centred. For Adam it does
/// not: there only the projection keeps the means at zero.
///
/// The constructor does not touch the weights, so that a run that is resumed goes on to the bit:
/// call `center()` or `mimic_norm_init_` before training. Together with `Masked`, in either order,
/// means are taken over the elements that stay. In `LAWN<Centered<Opt>>` scaling keeps the means at
/// zero; in `Centered<LAWN<Opt>>` norms shrink by what the centring removes. Nest
/// `Admm<Centered<Opt>>`, not the other way: centring would break the structure that `Admm` has
/// frozen. `step()` does not wait for the device.
///
/// @source  Fei et al. 2020, arXiv 2010.09278
template <class Opt>
class Centered : public Decorator<Opt, detail::mimicnorm::CenteredRule> {
  using Base = Decorator<Opt, detail::mimicnorm::CenteredRule>;

 public:
  /// @param optimizer  moved in, with its groups, options and state
  /// @param selection  from `select_for_centering`, or by hand; every weight must be dense and
  ///                   floating point, have more than one element in each output unit, and be held
  ///                   by `optimizer` once
  /// @throws c10::Error  that names the weight
  Centered(Opt&& optimizer, const Subnetwork& selection)
      : Base(std::move(optimizer), detail::mimicnorm::CenteredRule(optimizer, selection)) {}

  /// Centres the weights now. Does not wait for the device.
  void center() { this->rule_.center(*this); }

  /// Dotted names of the weights that are centred.
  std::vector<std::string> centered() const { return this->rule_.names(); }
};

}  // namespace lawn
