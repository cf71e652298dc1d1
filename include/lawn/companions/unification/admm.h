// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

#include <torch/optim/optimizer.h>

#include <lawn/companions/unification/admm_options.h>
#include <lawn/companions/unification/admm_projection.h>
#include <lawn/companions/unification/admm_rule.h>
#include <lawn/companions/unification/frozen_structure.h>
#include <lawn/decorator.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

/// Trains towards weights of a given structure by the alternating direction method of multipliers,
/// around any optimizer.
///
///   at the construction:   Z = P(W), U = 0
///   step():                g <- g + rho (W - Z + U), O.step()      loss + rho/2 ||W - Z + U||^2
///   update(), each epoch:  Z = P(W + U), U <- U + W - Z; rho grows, and U shrinks as much
///   finalize(), once:      W = P(W); which blocks and which signs is frozen
///   step() from then on:   O.step(), W <- the nearest weight of the frozen structure
///
/// `Admm<Opt>` is-a `Opt`. The loss that a closure returns does not include the penalty, but the
/// gradients do: a line search (L-BFGS with strong Wolfe conditions) therefore gets values and
/// gradients of different functions. The penalty does not act on a weight without a gradient. Z and
/// U are kept in float32 for half and bfloat16 weights. `step()` does not wait for the device. The
/// structure does not make LibTorch's kernels faster, only files smaller (`encoded_size`).
///
/// In `Admm<LAWN<Opt>>` LAWN sees the penalty's gradients and makes them tangent, but once
/// finalized, norms shrink by what the projection removes; in `LAWN<Admm<Opt>>` the norms are
/// restored after the structure, which scaling keeps. Together with `Masked`, in either order,
/// pruned elements stay zero and take no part in the blocks that are unified. Centring is to be
/// inside, `Admm<Centered<Opt>>`: from outside it moves weights away from the frozen structure,
/// which `residual()` shows.
///
/// @source  reconstructed from the abstract of arXiv 2106.08301 (2021); Boyd et al. 2011, sections
///          3.1.1 and 9.1, for ADMM in scaled form over a set that is not convex
template <class Opt>
class Admm : public Decorator<Opt, detail::unification::AdmmRule> {
  using Base = Decorator<Opt, detail::unification::AdmmRule>;

 public:
  /// @param optimizer    moved in, with its groups, options and state
  /// @param selection    the weights that get the structure; `optimizer` must hold each of them
  ///                     once
  /// @param projections  one for each weight of the selection, in its order, or one for all
  /// @param options      checked here
  /// @throws c10::Error  that names the option or the weight, before anything is changed: blocks
  ///                     that are larger than a matrix, fractions outside [0, 1], everything pruned
  /// @note   waits for the device
  Admm(Opt&& optimizer, const Subnetwork& selection, std::vector<Projection> projections,
       const AdmmOptions& options = {})
      : Base(std::move(optimizer),
             detail::unification::AdmmRule(optimizer, selection, std::move(projections), options)) {
  }

  /// The same projection for every weight.
  Admm(Opt&& optimizer, const Subnetwork& selection, const Projection& projection,
       const AdmmOptions& options = {})
      : Admm(std::move(optimizer), selection, std::vector<Projection>{projection}, options) {}

  /// Does the other two steps of ADMM; call it once in each epoch. Waits for the device. A graph
  /// that was captured before reads the new Z and U, and keeps its rho: capture anew whenever rho
  /// has grown.
  /// @throws c10::Error  after `finalize`, and for weights that are not finite; nothing is changed
  void update() { this->rule_.update(*this); }

  /// Projects the weights and freezes their structure, which every later step keeps. The
  /// optimizer's state stays. A second call has no effect. Waits for the device. Later steps
  /// differ: capture anew.
  /// @throws c10::Error  for weights that are not finite; nothing is changed then
  void finalize() { this->rule_.finalize(*this); }

  /// Whether `finalize()` was called, that is, the structure is frozen.
  bool finalized() const { return this->rule_.finalized(); }

  /// ||W - Z|| / ||W|| over all weights, the relative distance from the structure. Once finalized,
  /// it is the distance from the frozen structure: 0, unless something outside moves the weights.
  /// Waits for the device.
  double residual() const { return this->rule_.residual(*this); }

  /// The present weight of the penalty.
  double rho() const { return this->rule_.rho(); }

  /// The frozen structures, one for each weight; empty until finalized.
  const std::vector<FrozenStructure>& structures() const { return this->rule_.structures(); }

  /// The options that the constructor got.
  const AdmmOptions& admm_options() const { return this->rule_.options(); }
};

}  // namespace lawn
