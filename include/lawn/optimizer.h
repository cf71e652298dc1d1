// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <c10/util/Exception.h>

#include <lawn/decorator.h>
#include <lawn/optimizer/rule.h>
#include <lawn/options.h>
#include <lawn/report.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

/// Logit Attenuating Weight Normalization around any optimizer.
///
///   free phase, t < T_free:        O.step()                       bit for bit what O alone does
///   at t = T_free:                 R_l = radius_scale ||w_l||     as `LAWNOptions` says
///   constrained phase, t >= T_free:
///     g_l <- g_l - (<g_l, w_l> / <w_l, w_l>) w_l                  onto the tangent space
///     O.step()
///     w_l <- R_l w_l / ||w_l||                                    back to the sphere
///
/// `LAWN<Opt>` is-a `Opt`: parameter groups, schedulers, closures, `torch::save` and `torch::load`
/// work as before. Make schedulers for the `LAWN` object, not for the optimizer that was moved into
/// it.
///
/// In the constrained phase weight decay does not act on a constrained tensor: what a coupled decay
/// adds to the gradient is subtracted beforehand, and what a decoupled decay takes off the norm is
/// restored by the rescaling. The options of the optimizer are never changed.
///
/// `step()` projects the gradients of constrained tensors in place. Where `LAWN<FusedSGD>`,
/// `LAWN<FusedAdam>` or `LAWN<FusedAdamW>` folds (not with `amsgrad`, sharded weights, or on a GPU
/// without lawn's kernels), it leaves them unchanged: projection and rescaling are part of the
/// optimizer's own pass over memory. Gradients may be missing, but not sparse. A gradient that
/// shares memory with another one, or with itself (`expand`), is replaced by a copy. A gradient
/// that is not finite affects its own layer alone, except under L-BFGS, whose direction mixes all
/// layers. `step()` never waits for the device, with one exception: the step that switches under
/// `ZeroNorm::kError` reads the norms.
///
/// A step is refused, with nothing changed, when a constrained tensor has another shape than when
/// the optimizer was wrapped, was taken out of the groups, or is held twice. A model may be moved
/// or converted to another type: LAWN follows it. Norms are accurate over the whole range of
/// float32.
///
/// If the weights are sharded over ranks, `LAWNOptions::spheres` takes the norms over all ranks.
///
/// @source  Gupta, Ramanath, Shi, Ramachandran, Zhou, Zhou, Keerthi 2021, arXiv 2108.05839
template <class Opt>
class LAWN : public Decorator<Opt, detail::optimizer::LAWNRule> {
  using Base = Decorator<Opt, detail::optimizer::LAWNRule>;

 public:
  /// @param optimizer  moved in, with its groups, options and state
  /// @param selection  from `final_homogeneous_subnetwork`, or by hand; `optimizer` must hold every
  ///                   constrained tensor once, and each must be floating point
  ///                   (`unique_parameters` lists each parameter of a model with tied weights once)
  /// @param options    checked here
  /// @throws c10::Error  that names the option or the parameter; with `Radius::kInitial` the
  ///                   constructor waits for the device
  LAWN(Opt&& optimizer, const Subnetwork& selection, LAWNOptions options = {})
      : Base(std::move(optimizer), rule_for(optimizer, selection, std::move(options))) {
    if constexpr (detail::folded::kFoldsInto<Opt>) this->rule_.leave_to_base();
    if constexpr (detail::folded::kIsCapturable<Opt>) {
      if (this->capturable()) make_capturable();
    }
  }

  /// Makes the whole step capturable in a CUDA graph, for good. Learning rates and step counts move
  /// to the device, as `Opt::make_capturable` says, which lists the requirements; so does LAWN's
  /// phase. One captured step is replayed through the switch and beyond. From then on `phase()`,
  /// `steps()`, `report()` and `save()` read the device: they wait for its current stream, which
  /// must be that of the steps and replays, or ordered after it.
  ///
  /// The radius of a layer is 0 in the free phase, and the folded step of such a sphere is the base
  /// optimizer's up to rounding, no longer bit for bit. At the switch a sphere stays free for good
  /// if its norm is 0 or not finite, or if `radius_scale` times its norm cannot be a radius.
  ///
  /// The call writes the learning rates, the count of steps and the radii, which encode the phase,
  /// on the current stream of each device; the stream of the capture has to wait for it. Call
  /// `upload_learning_rates()` on the stream of the replay.
  ///
  /// Only the fused optimizers have it, and no class derived from them: their steps differ only in
  /// numbers, which can be kept on the device.
  /// @throws c10::Error  before the switch, for `ZeroNorm::kError` (a captured step cannot throw)
  ///                     and for any but `StateAtSwitch::kKeep` and `Radius::kCaptured`; with
  ///                     `free_steps(LAWNOptions::kNever)`, where `constrain()` is called between
  ///                     replays, only for `StateAtSwitch::kReset` and `Radius::kInitial`; for
  ///                     `angular_steps`. Nothing is changed then
  template <class O = Opt, class = std::enable_if_t<detail::folded::kIsCapturable<O>>>
  void make_capturable() {
    this->rule_.check_capturable();
    O::make_capturable();
    this->rule_.make_capturable();
  }

  /// Switches to the constrained phase now, whatever `free_steps` says; in the constrained phase it
  /// has no effect. Call it before the forward pass if the weights jump: with a `radius_scale`
  /// other than 1, or radii that are not captured.
  /// @throws c10::Error  that names a layer whose norm cannot be a radius; nothing is changed then
  /// @note   waits for the current stream with `ZeroNorm::kError`, and after `make_capturable`
  void constrain() { this->rule_.constrain(*this); }

  /// The phase: free or constrained. After `make_capturable` it waits for the current stream.
  Phase phase() const { return this->rule_.phase(); }

  /// Number of steps done in both phases. After `make_capturable` it waits for the current stream.
  int64_t steps() const { return this->rule_.steps(); }

  /// Dotted names of the constrained tensors.
  const std::vector<std::string>& constrained() const { return this->rule_.names(); }

  /// The options that the constructor got.
  const LAWNOptions& lawn_options() const { return this->rule_.options(); }

  /// Reports each layer's radius, norm and error of the norm, cosine of weight and gradient, and
  /// angular step: look at it when training misbehaves. Waits for the current stream. If weights
  /// are sharded over ranks, every rank must call it, and notes on gradients concern this rank's
  /// part.
  Report report() const { return this->rule_.report(); }

 private:
  /// Throws for whatever the constructor cannot do, before the optimizer is moved from.
  static detail::optimizer::LAWNRule rule_for(const Opt& optimizer, const Subnetwork& selection,
                                              LAWNOptions options) {
    detail::optimizer::LAWNRule rule(optimizer, selection, std::move(options));
    if constexpr (detail::folded::kIsCapturable<Opt>) {
      if (optimizer.capturable()) rule.check_capturable();
    }
    return rule;
  }
};

}  // namespace lawn
