// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <torch/arg.h>
#include <torch/optim/optimizer.h>

#include <lawn/finite_math.h>

namespace lawn {

class Spheres;  // lawn/sphere/spheres.h

/// What one radius constrains: the whole weight tensor, or one output unit of it. A tensor whose
/// units have one element each (`Linear(1, n)`, depthwise 1x1 convolutions) is constrained as a
/// whole: the sphere of one number is two points.
enum class Granularity { kLayer, kOutputUnit };

/// What happens if a norm is zero when its radius is taken.
enum class ZeroNorm {
  kError,     ///< an error that names the tensor; the step that switches waits for the device
  kLeaveFree  ///< the sphere stays unconstrained for good
};

/// What happens to the base optimizer's state of the constrained tensors at the switch.
enum class StateAtSwitch {
  kKeep,    ///< nothing
  kReset,   ///< moments and step counts start anew
  kProject  ///< first moments go onto the tangent space; no effect where there are none (Adagrad,
            ///< L-BFGS)
};

/// Where the radii come from.
enum class Radius {
  kCaptured,  ///< the norms at the switch
  kInitial,   ///< the norms when the optimizer was wrapped
  kGiven      ///< `LAWNOptions::radii`
};

/// Options of `LAWN`. Checked when the optimizer is wrapped, never in a step.
struct LAWNOptions {
  /// `free_steps` for a switch that comes by `LAWN::constrain()` alone.
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  /// T_free, in steps, >= 0: that many steps are the base optimizer's alone, bit for bit.
  TORCH_ARG(int64_t, free_steps) = 0;
  /// One radius per layer, or one per output unit of each layer.
  TORCH_ARG(Granularity, granularity) = Granularity::kLayer;
  /// Whether the biases of the sub-network are constrained too, each on one sphere as a whole.
  TORCH_ARG(bool, biases) = false;
  /// What happens if a norm is zero when its radius is taken.
  TORCH_ARG(ZeroNorm, zero_norm) = ZeroNorm::kError;
  /// What happens to the state of the base optimizer at the switch.
  TORCH_ARG(StateAtSwitch, state_at_switch) = StateAtSwitch::kKeep;
  /// Where radii come from. With `kInitial` and `kGiven` the weights jump to them at the switch.
  TORCH_ARG(Radius, radius) = Radius::kCaptured;
  /// With `Radius::kGiven`: one per constrained tensor, in the selection's order, finite and > 0.
  /// With `Granularity::kOutputUnit` every unit of the tensor gets it.
  TORCH_ARG(std::vector<double>, radii);
  /// Captured and initial radii are this times the norms: > 0 and finite; 1 with `kGiven`.
  /// A step that switches with `kCaptured` begins from the weights for which its gradients were
  /// computed, and ends on the scaled spheres. `LAWN::constrain()` brings the weights onto them at
  /// once. Radii that a checkpoint holds stand, whatever the scale of the optimizer that loads it.
  TORCH_ARG(double, radius_scale) = 1;
  /// Whether each step measures the angle by which it turned each weight, for `LAWN::report()`.
  /// Costs a copy of the constrained weights.
  TORCH_ARG(bool, angular_steps) = false;
  /// Where the sums over spheres are taken; null: in this process, which holds the weights as a
  /// whole. With weights that are sharded over ranks: a `ShardedSpheres`
  /// (lawn/distributed/sharded_spheres.h).
  TORCH_ARG(std::shared_ptr<Spheres>, spheres);

  /// Gives, from a group's options, the weight decay that your own optimizer adds to gradients.
  using WeightDecayOf = std::function<double(const torch::optim::OptimizerOptions&)>;
  /// Gives, from a parameter's state, the first moments that your own optimizer keeps.
  using FirstMomentsOf = std::function<std::vector<at::Tensor>(torch::optim::OptimizerParamState&)>;
  /// For your own optimizer that adds `lambda * weight` to the gradient: gives lambda from a
  /// group's options. LAWN knows LibTorch's own optimizers; for others lambda counts as 0.
  TORCH_ARG(WeightDecayOf, coupled_weight_decay);
  /// For your own optimizer, with `StateAtSwitch::kProject`: gives the tensors of a parameter's
  /// state that are sums of gradients, in the shape of the parameter.
  TORCH_ARG(FirstMomentsOf, first_moments);

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(free_steps() >= 0, "lawn::LAWN: free_steps must be >= 0, got ", free_steps(),
                "; use LAWNOptions::kNever to switch by hand");
    TORCH_CHECK(radii().empty() || radius() == Radius::kGiven,
                "lawn::LAWN: radii are used with radius(Radius::kGiven) alone, got ",
                radii().size(), " of them with another radius option");
    for (const double value : radii()) {
      TORCH_CHECK(std::isfinite(value) && value > 0,
                  "lawn::LAWN: radii must be finite and > 0, got ", value);
    }
    TORCH_CHECK(std::isfinite(radius_scale()) && radius_scale() > 0,
                "lawn::LAWN: radius_scale must be finite and > 0, got ", radius_scale());
    TORCH_CHECK(radius_scale() == 1 || radius() != Radius::kGiven,
                "lawn::LAWN: radius_scale must be 1 with Radius::kGiven, got ", radius_scale(),
                "; multiply the radii by it");
  }

  /// Refuses options whose switch cannot be captured. Nothing is changed.
  /// @param switched  whether the constrained phase has begun
  /// @throws c10::Error that names the option, what was expected and what came
  void check_capturable(bool switched) const {
    const auto refuse_unless = [](bool can, const char* what) {
      TORCH_CHECK(can, "lawn::LAWN: make_capturable() expected ", what, "; nothing was changed");
    };
    refuse_unless(!angular_steps(),
                  "angular_steps(false), got true: the copies of the "
                  "weights that it takes cannot be captured");
    if (switched) return;
    refuse_unless(
        state_at_switch() != StateAtSwitch::kReset && radius() != Radius::kInitial,
        "StateAtSwitch::kKeep and Radius::kCaptured before the switch, got kReset or kInitial, "
        "for which a captured step has no form: call it after the switch");
    if (free_steps() == kNever) return;  // constrain() is not captured
    refuse_unless(zero_norm() == ZeroNorm::kLeaveFree,
                  "ZeroNorm::kLeaveFree, got kError: a captured step cannot throw; or switch by "
                  "constrain() between replays, with free_steps(LAWNOptions::kNever)");
    refuse_unless(radius() == Radius::kCaptured && state_at_switch() == StateAtSwitch::kKeep,
                  "Radius::kCaptured and StateAtSwitch::kKeep, got others: switch by constrain() "
                  "between replays, with free_steps(LAWNOptions::kNever)");
  }

  /// The options that decide what a step does, a line each.
  std::string describe() const {
    return c10::str("free_steps ", free_steps(), "\ngranularity ",
                    granularity() == Granularity::kLayer ? "layer" : "output unit", "\nbiases ",
                    biases(), "\nzero_norm ",
                    zero_norm() == ZeroNorm::kError ? "error" : "leave free", "\nstate_at_switch ",
                    to_text(state_at_switch()), "\nradius ", to_text(radius()), ' ',
                    c10::ArrayRef<double>(radii()), "\nradius_scale ", radius_scale(), '\n');
  }

 private:
  static const char* to_text(StateAtSwitch what) {
    switch (what) {
      case StateAtSwitch::kReset:
        return "reset";
      case StateAtSwitch::kProject:
        return "project";
      default:
        return "keep";
    }
  }
  static const char* to_text(Radius from) {
    switch (from) {
      case Radius::kInitial:
        return "initial";
      case Radius::kGiven:
        return "given";
      default:
        return "captured";
    }
  }
};

}  // namespace lawn
