// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ivalue.h>
#include <lawn/decorator.h>
#include <lawn/options.h>
#include <lawn/sphere/functions.h>
#include <lawn/subnetwork/subnetwork.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>

#include <string>
#include <utility>
#include <vector>

namespace examples {

/// Which part of LAWN is taken away, to see what the other does alone.
struct Ablation {
  bool projection = true;  ///< g <- g - (<g,w> / <w,w>) w before a step
  bool rescaling = true;   ///< w <- R w / ||w|| after it
};

/// LAWN's rule with parts missing: what lawn::LAWN does by default, written out, so that a part can
/// be left out. For experiments; nobody trains with it. It knows no weight decay.
class AblatedRule {
 public:
  static constexpr const char* kWho = "examples::AblatedLAWN";

  AblatedRule(const lawn::Subnetwork& selection, int64_t free_steps, Ablation parts)
      : free_steps_(free_steps), parts_(parts) {
    for (const at::Tensor& weight : selection.parameters()) {
      layers_.emplace_back().weight = weight;
    }
  }

  void before_step(torch::optim::Optimizer& /*optimizer*/) {
    if (steps_ < free_steps_) return;
    if (!constrained_) {
      const auto radii = lawn::sphere::norms(layers_);
      for (size_t index = 0; index < layers_.size(); ++index) layers_[index].radius = radii[index];
      constrained_ = true;
    }
    if (!parts_.projection) return;
    for (auto& layer : layers_) layer.gradient = layer.weight.grad();
    lawn::sphere::project_to_tangent_(layers_);
    for (auto& layer : layers_) layer.gradient.reset();
  }

  void after_step(torch::optim::Optimizer& /*optimizer*/) {
    if (constrained_ && parts_.rescaling) lawn::sphere::rescale_(layers_);
    ++steps_;
  }

  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("steps", c10::IValue(steps_));
    archive.write("constrained", c10::IValue(constrained_));
    for (size_t index = 0; constrained_ && index < layers_.size(); ++index) {
      archive.write("radius/" + std::to_string(index), layers_[index].radius, /*is_buffer=*/true);
    }
  }

  void load(torch::serialize::InputArchive& archive, const torch::optim::Optimizer& /*optimizer*/) {
    c10::IValue steps;
    c10::IValue constrained;
    archive.read("steps", steps);
    archive.read("constrained", constrained);
    steps_ = steps.toInt();
    constrained_ = constrained.toBool();
    for (size_t index = 0; index < layers_.size(); ++index) {
      at::Tensor radius;
      if (constrained_) archive.read("radius/" + std::to_string(index), radius, /*is_buffer=*/true);
      layers_[index].radius = radius;
    }
  }

  bool constrained() const { return constrained_; }

 private:
  int64_t free_steps_;
  Ablation parts_;
  std::vector<lawn::sphere::Layer> layers_;
  int64_t steps_ = 0;
  bool constrained_ = false;
};

/// An optimizer with LAWN around it of which parts are missing.
template <class Opt>
class AblatedLAWN : public lawn::Decorator<Opt, AblatedRule> {
 public:
  AblatedLAWN(Opt&& optimizer, const lawn::Subnetwork& selection, int64_t free_steps,
              Ablation parts)
      : lawn::Decorator<Opt, AblatedRule>(std::move(optimizer),
                                          AblatedRule(selection, free_steps, parts)) {}

  lawn::Phase phase() const {
    return this->rule_.constrained() ? lawn::Phase::kConstrained : lawn::Phase::kFree;
  }
};

}  // namespace examples
