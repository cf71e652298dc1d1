// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <c10/util/accumulate.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/checked_read.h>
#include <lawn/capture/phase_clock.h>
#include <lawn/capture/stream.h>
#include <lawn/decorator/base_optimizer.h>
#include <lawn/decorator/held_weights.h>
#include <lawn/folded/folding.h>
#include <lawn/optimizer/angular_steps.h>
#include <lawn/optimizer/measure.h>
#include <lawn/optimizer/project_first_moments.h>
#include <lawn/optimizer/radii.h>
#include <lawn/options.h>
#include <lawn/parameters/own_gradients.h>
#include <lawn/report.h>
#include <lawn/sphere/functions.h>
#include <lawn/sphere/spheres.h>
#include <lawn/sphere/usable_radii.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn::detail::optimizer {

/// The rule of LAWN: phase, radii, and the work around a step. `LAWN` documents the behaviour.
class LAWNRule {
 public:
  static constexpr const char* kWho = "lawn::LAWN";

  LAWNRule(const torch::optim::Optimizer& optimizer, const Subnetwork& selection,
           LAWNOptions options)
      : options_(std::move(options)),
        spheres_(options_.spheres() ? options_.spheres() : std::make_shared<Spheres>()) {
    options_.validate();
    TORCH_CHECK(!options_.angular_steps() || spheres_->local(), kWho,
                ": angular_steps(true) needs weights that lie in this process as a whole, "
                "got shards; measure the angles where the weights are gathered");
    std::vector<NamedTensor> selected;
    for (const auto& parameter : selection.all()) {
      // A bias of one element would be frozen on its sphere, which is two points.
      const bool bias = options_.biases() && parameter.inside && parameter.role == Role::kBias &&
                        whole_numel(parameter.tensor) > 1;
      if (!parameter.constrained() && !bias) continue;
      layers_.push_back(layer_of(parameter));
      selected.push_back({parameter.name, parameter.tensor});
    }
    weights_ = decorator::HeldWeights(kWho, optimizer, selected);
    if (options_.radius() == Radius::kGiven) {
      check_given_radii(kWho, options_.radii(), weights_.names(), layers_, *spheres_);
    }
    for (const auto& group : optimizer.param_groups()) {
      const bool known = !group.has_options() || decorator::coupled_weight_decay(group.options());
      TORCH_CHECK(
          known || options_.first_moments() ||
              options_.state_at_switch() != StateAtSwitch::kProject,
          kWho,
          ": StateAtSwitch::kProject needs LAWNOptions().first_moments(...) for an optimizer ",
          "that is not LibTorch's");
    }
    spheres_->check_agreement(description());
    if (options_.radius() == Radius::kInitial) set_radii(usable_norms("when it was wrapped"));
  }

  void begin_step() {
    let_go();  // in case a step threw
  }

  void check(const torch::optim::Optimizer& optimizer) {
    weights_.check(kWho, optimizer);
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      decorator::refuse_sparse_gradient(kWho, weights_.at(i), "the selection");
    }
    TORCH_CHECK(clock_.on_devices() || !capture::any_captures(optimizer.param_groups()), kWho,
                ": expected make_capturable() before a capture, whose replays would otherwise ",
                "stay in the present phase: call it (around the fused optimizers LAWN has it), ",
                "do some steps, then capture; nothing was changed");
    clock_.check(layers_);
    if (!clock_.on_devices()) spheres_->begin_step(clock_.steps());
    // Here as well as in constrain(), before another decorator has changed a gradient.
    const bool takes_norms =
        options_.radius() != Radius::kInitial && options_.zero_norm() == ZeroNorm::kError;
    if (takes_norms && clock_.is_due(options_.free_steps())) usable_norms("at the switch");
  }

  void before_step(torch::optim::Optimizer& optimizer) {
    for (auto& layer : layers_) layer.gradient.reset();  // from an earlier evaluation
    parameters::own_gradients_(optimizer, weights_.tensors());
    attach_gradients(optimizer);
    if (options_.angular_steps()) angles_.remember(layers_);
    if (clock_.is_due(options_.free_steps())) constrain(optimizer, /*within_step=*/true);
    if (!clock_.may_constrain()) return;
    if (folds_) {
      dynamic_cast<folded::Folding&>(optimizer).fold(layers_, clock_);
    } else {
      clock_.take_radii(layers_);
      spheres_->project_to_tangent_(layers_);
    }
  }

  void after_step(torch::optim::Optimizer& /*optimizer*/) {
    if (clock_.may_constrain() && !folds_) spheres_->rescale_(layers_);
    if (options_.angular_steps()) angles_.measure(layers_);
    let_go();
    clock_.advance();
  }

  /// @param within_step  whether gradients of the present weights exist; with captured radii the
  ///                     weights then stay where they are until the end of the step
  void constrain(torch::optim::Optimizer& optimizer, bool within_step = false) {
    if (clock_.switched()) return;
    weights_.check(kWho, optimizer);
    place_radii();
    if (options_.radius() == Radius::kCaptured) {
      set_radii(usable_norms("at the switch"));
    } else if (options_.radius() == Radius::kGiven) {
      auto radii = usable_norms("at the switch");
      for (std::size_t i = 0; i < radii.size(); ++i) {
        radii[i] = at::where(radii[i] > 0, at::full_like(radii[i], options_.radii()[i]), 0.0);
      }
      set_radii(std::move(radii));
    }
    if (options_.state_at_switch() == StateAtSwitch::kReset) {
      forgotten_ = decorator::reset_state(optimizer, weights_.tensors());
    }
    if (options_.state_at_switch() == StateAtSwitch::kProject) {
      project_first_moments_(optimizer, options_, layers_, *spheres_);
    }
    const bool jumps =
        options_.radius() != Radius::kCaptured || (options_.radius_scale() != 1 && !within_step);
    if (jumps) spheres_->rescale_(layers_);
    clock_.set_switched();
  }

  /// Refuses a rule whose step cannot be captured. Nothing is changed.
  void check_capturable() const {
    TORCH_CHECK(spheres_->local(), kWho,
                ": make_capturable() expected weights that lie in this process as a whole, got "
                "shards; nothing was changed");
    options_.check_capturable(clock_.switched());
  }

  /// Moves the phase to the devices of the layers. The radii encode it, as 0 before the switch.
  void make_capturable() {
    if (!clock_.on_devices()) move_to_devices();
  }

  void save(torch::serialize::OutputArchive& archive) const {
    const bool has_radii = !clock_.on_devices() || clock_.switched();
    archive.write("phase", c10::IValue(static_cast<int64_t>(phase())));
    archive.write("steps", c10::IValue(steps()));
    weights_.save(archive);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (layers_[i].radius.defined() && has_radii) {
        archive.write("radius/" + std::to_string(i), layers_[i].radius, /*is_buffer=*/true);
      }
    }
  }

  void load(torch::serialize::InputArchive& archive, const torch::optim::Optimizer& /*optimizer*/) {
    const bool constrained = archive::read_int(kWho, archive, "phase", 0, 1) ==
                             static_cast<int64_t>(Phase::kConstrained);
    const int64_t steps = archive::read_int(kWho, archive, "steps");
    weights_.refuse_others(kWho, archive);
    if (clock_.on_devices()) options_.check_capturable(constrained);
    auto layers = layers_;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const at::Tensor radius = read_radius(kWho, archive, "radius/" + std::to_string(i),
                                            weights_.names()[i], spheres_->radius_shape(layers[i]),
                                            /*needed=*/constrained);
      // Another LAWN's free phase has none; those taken when this one was wrapped then stay.
      if (!radius.defined() && options_.radius() == Radius::kInitial) continue;
      layers[i].radius = sphere::beside_sums(layers[i].weight, radius);
    }
    layers_ = std::move(layers);
    const bool on_devices = clock_.on_devices();
    clock_.set(steps, constrained);
    angles_ = {};
    if (on_devices) move_to_devices();
  }

  Report report() const {
    weights_.check_shapes(kWho);
    Report result{phase(), steps(), {}};
    auto layers = layers_;
    for (auto& layer : layers) {
      if (has_dense_gradient(layer.weight)) layer.gradient = layer.weight.grad();
      if (clock_.on_devices() && result.phase == Phase::kFree) layer.radius.reset();
    }
    const auto sums = spheres_->sums(layers);
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      result.layers.push_back(measure(weights_.names()[i], layers[i], sums[i], result.phase));
      const auto& angles = angles_.angles();
      if (!angles.empty()) result.layers.back().angular_step = if_finite(angles[i].item<double>());
    }
    return result;
  }

  /// Leaves projection and rescaling to the step of an optimizer that is a `Folding`, if it can do
  /// them.
  void leave_to_base() { folds_ = spheres_->local(); }

  /// `phase` and `steps` wait for the current stream after make_capturable.
  Phase phase() const { return clock_.switched() ? Phase::kConstrained : Phase::kFree; }
  int64_t steps() const { return clock_.steps(); }
  const LAWNOptions& options() const { return options_; }
  const std::vector<std::string>& names() const { return weights_.names(); }

 private:
  /// Moves the clock, and before the switch makes radii of 0.
  void move_to_devices() {
    const bool switched = clock_.switched();
    clock_.move_to_devices(layers_, options_.free_steps(), options_.radius_scale());
    if (switched) return;
    for (auto& layer : layers_) {
      layer.radius = at::zeros(
          spheres_->radius_shape(layer),
          at::TensorOptions(layer.weight.device()).dtype(sphere::accumulation_dtype(layer.weight)));
    }
  }

  int64_t whole_numel(const at::Tensor& weight) const {
    return c10::multiply_integers(spheres_->whole_shape(weight));
  }

  /// Describes, in lines, what must be the same on every rank that holds a part of the weights.
  std::string description() const {
    auto text = options_.describe();
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      text += c10::str("constrained ", weights_.names()[i], ' ', layers_[i].weight.scalar_type(),
                       ' ', spheres_->whole_shape(layers_[i].weight), '\n');
    }
    return text;
  }

  sphere::Layer layer_of(const SubnetworkParameter& parameter) const {
    sphere::Layer layer;
    layer.weight = parameter.tensor;
    const auto shape = spheres_->whole_shape(parameter.tensor);
    if (options_.granularity() != Granularity::kOutputUnit || parameter.role == Role::kBias ||
        shape.size() < 2) {
      return layer;
    }
    const auto dims = static_cast<int64_t>(shape.size());
    TORCH_CHECK(parameter.unit_dim >= 0 && parameter.unit_dim < dims, kWho, ": expected ",
                parameter.name, ", of shape ", shape, ", with a unit_dim in [0, ", dims, "), got ",
                parameter.unit_dim);
    // On its sphere, which is two points, a unit of one element would be frozen.
    const auto units = shape[static_cast<std::size_t>(parameter.unit_dim)];
    if (c10::multiply_integers(shape) > units) layer.unit_dim = parameter.unit_dim;
    return layer;
  }

  /// Releases what is held only during a step.
  void let_go() {
    for (auto& layer : layers_) layer.gradient.reset();
    angles_.forget();
    forgotten_.clear();
  }

  void attach_gradients(const torch::optim::Optimizer& optimizer) {
    std::vector<double> decays;  // of each group: users change options between steps
    for (const auto& group : optimizer.param_groups()) {
      decays.push_back(group.has_options() ? weight_decay_of(group.options()) : 0);
    }
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      auto& layer = layers_[i];
      layer.gradient = layer.weight.grad();
      layer.weight_decay = decays[weights_.position(i).group];
    }
    place_radii();
  }

  /// Brings the radii beside the weights, which may have been moved.
  void place_radii() {
    for (auto& layer : layers_) layer.radius = sphere::beside_sums(layer.weight, layer.radius);
  }

  double weight_decay_of(const torch::optim::OptimizerOptions& options) const {
    if (options_.coupled_weight_decay()) return options_.coupled_weight_decay()(options);
    return decorator::coupled_weight_decay(options).value_or(0);
  }

  /// Norms as radii. A norm that cannot be a radius is an error or becomes 0 (a free sphere), as
  /// the options say.
  std::vector<at::Tensor> usable_norms(const char* when) const {
    auto norms = spheres_->norms(layers_);
    const double scale = options_.radius_scale();
    for (std::size_t i = 0; i < norms.size(); ++i) {
      const at::Tensor& weight = layers_[i].weight;
      const double numel = sphere_numel(*spheres_, layers_[i]);
      if (options_.zero_norm() == ZeroNorm::kLeaveFree) {
        norms[i] = sphere::usable_radii(norms[i], scale, weight.scalar_type(), numel);
        continue;
      }
      if (whole_numel(weight) > 0) {
        check_norms(kWho, norms[i], weight, numel, scale, weights_.names()[i], when);
      }
      norms[i] = sphere::scaled_radii(norms[i], scale);
    }
    return norms;
  }

  void set_radii(std::vector<at::Tensor> radii) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (clock_.on_devices()) {
        layers_[i].radius.copy_(radii[i]);  // a captured step reads it there
      } else {
        layers_[i].radius = std::move(radii[i]);
      }
    }
  }

  LAWNOptions options_;
  std::shared_ptr<Spheres> spheres_;
  decorator::HeldWeights weights_;
  std::vector<sphere::Layer> layers_;  // of weights_
  capture::PhaseClock clock_;
  bool folds_ = false;
  AngularSteps angles_;
  decorator::ForgottenState
      forgotten_;  // from the switch until the end of the step in which it happens
};

}  // namespace lawn::detail::optimizer
