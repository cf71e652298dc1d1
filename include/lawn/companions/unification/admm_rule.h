// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/capture/state_in_place.h>
#include <lawn/companions/pruning/mask.h>
#include <lawn/companions/unification/admm_options.h>
#include <lawn/companions/unification/admm_penalty.h>
#include <lawn/companions/unification/admm_projection.h>
#include <lawn/companions/unification/frozen_structure.h>
#include <lawn/decorator/held_weights.h>
#include <lawn/parameters/own_gradients.h>
#include <lawn/sphere/layer.h>

namespace lawn::detail::unification {

/// The rule of `Admm`, which documents the behaviour.
class AdmmRule {
 public:
  static constexpr const char* kWho = "lawn::Admm";

  AdmmRule(const torch::optim::Optimizer& optimizer, const Subnetwork& selection,
           std::vector<Projection> projections, const AdmmOptions& options)
      : options_(options), projections_(std::move(projections)), rho_(options_.rho()) {
    options_.validate();
    const auto weights = decorator::weights_of(selection);
    for (const auto& weight : weights) decorator::check_weight(kWho, weight.name, weight.tensor);
    weights_ = decorator::HeldWeights(kWho, optimizer, weights);
    if (projections_.size() == 1) projections_.resize(weights_.size(), projections_.front());
    TORCH_CHECK(projections_.size() == weights_.size(), kWho,
                ": expected one projection, or one for each of ", weights_.size(), " weights, got ",
                projections_.size());
    const at::NoGradGuard no_grad;
    const auto pruned = pruned_in(optimizer);
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const auto value = wide(weights_.tensors()[i].detach());
      targets_.push_back(projections_[i](value, weights_.names()[i], pruned[i]).weight);
      duals_.push_back(at::zeros_like(value));
    }
  }

  void check(const torch::optim::Optimizer& optimizer) {
    weights_.check(kWho, optimizer);
    if (finalized_) return;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      decorator::refuse_sparse_gradient(kWho, weights_.at(i), "the selection");
    }
  }

  void before_step(torch::optim::Optimizer& optimizer) {
    follow_weights();
    if (finalized_) return;
    parameters::own_gradients_(optimizer, weights_.tensors());
    std::vector<PenaltyTerm> terms;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const at::Tensor& weight = weights_.tensors()[i];
      if (!weight.grad().defined()) continue;
      terms.push_back({weight, weight.grad(), targets_[i], duals_[i]});
    }
    add_penalty_(terms, rho_);
  }

  void after_step(torch::optim::Optimizer& optimizer) {
    if (finalized_) project_(structures_, pruned_in(optimizer));
  }

  void update(const torch::optim::Optimizer& optimizer) {
    TORCH_CHECK(!finalized_, kWho, ": expected update() before finalize(), got it after; ",
                "retraining keeps the structure by itself");
    weights_.check_shapes(kWho);
    const at::NoGradGuard no_grad;
    follow_weights();
    const double rho = std::min(rho_ * options_.rho_growth(), options_.max_rho());
    std::vector<at::Tensor> targets;
    std::vector<at::Tensor> duals;
    const auto pruned = pruned_in(optimizer);
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const auto sum = wide(weights_.tensors()[i]) + duals_[i];
      targets.push_back(projections_[i](sum, weights_.names()[i], pruned[i]).weight);
      // U is the multiplier divided by rho, which is about to change.
      duals.push_back((sum - targets.back()).mul_(rho_ / rho));
    }
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      targets_[i] = capture::replaced(targets_[i], targets[i]);
      duals_[i] = capture::replaced(duals_[i], duals[i]);
    }
    rho_ = rho;
  }

  void finalize(const torch::optim::Optimizer& optimizer) {
    if (finalized_) return;
    weights_.check_shapes(kWho);
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> values;
    std::vector<FrozenStructure> structures;
    const auto pruned = pruned_in(optimizer);
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const auto [name, weight] = weights_.at(i);
      const auto projected = projections_[i](weight, name, pruned[i]);
      structures.push_back(projections_[i].freeze(name, weight, projected));
      values.push_back(projected.weight);
    }
    for (std::size_t i = 0; i < weights_.size(); ++i) weights_.tensors()[i].copy_(values[i]);
    structures_ = std::move(structures);
    targets_.clear();
    duals_.clear();
    finalized_ = true;
  }

  double residual(const torch::optim::Optimizer& optimizer) const {
    const at::NoGradGuard no_grad;
    const auto targets = finalized_ ? nearest(pruned_in(optimizer)) : targets_;
    double apart = 0;
    double all = 0;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const auto weight = weights_.tensors()[i].to(at::kDouble);
      const auto target = targets[i].to(weight.device(), at::kDouble);
      apart += (weight - target).square().sum().item<double>();
      all += weight.square().sum().item<double>();
    }
    return all > 0 ? std::sqrt(apart / all) : 0;
  }

  void save(torch::serialize::OutputArchive& archive) const {
    weights_.save(archive);
    archive.write("projections", c10::IValue(described()));
    archive.write("finalized", c10::IValue(finalized_));
    archive.write("rho", c10::IValue(rho_));
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const auto place = "/" + std::to_string(i);
      if (finalized_) {
        archive.write("chosen" + place, structures_[i].chosen, /*is_buffer=*/true);
        archive.write("structure" + place, elements_of(structures_[i]), /*is_buffer=*/true);
      } else {
        archive.write("target" + place, targets_[i], /*is_buffer=*/true);
        archive.write("dual" + place, duals_[i], /*is_buffer=*/true);
      }
    }
  }

  void load(torch::serialize::InputArchive& archive, const torch::optim::Optimizer& /*optimizer*/) {
    weights_.refuse_others(kWho, archive);
    const auto saved = archive::read_texts(kWho, archive, "projections");
    const bool finalized = archive::read_bool(kWho, archive, "finalized");
    const double rho = archive::read_double(kWho, archive, "rho");
    TORCH_CHECK(std::isfinite(rho) && rho > 0, kWho,
                ": expected a checkpoint whose rho is finite and ", "> 0, got ", rho,
                "; nothing was changed");
    const auto mine = described();
    TORCH_CHECK(saved == mine, kWho, ": expected a checkpoint of the projections ",
                c10::ArrayRef<std::string>(mine), ", got one of ",
                c10::ArrayRef<std::string>(saved), "; nothing was changed");
    structures_.clear();  // of a copy of the rule, which replaces the rule once all is read
    targets_.clear();
    duals_.clear();
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const auto weight = weights_.at(i);
      const auto place = "/" + std::to_string(i);
      const auto read = [&](const std::string& key, at::IntArrayRef shape, at::ScalarType dtype) {
        return decorator::read_beside(kWho, archive, key + place, weight, shape, dtype);
      };
      const auto shape = weight.tensor.sizes();
      if (finalized) {
        const bool unifies = projections_[i].unifies();
        const auto elements = read("structure", shape, unifies ? at::kChar : at::kBool);
        const companions::BlockGrid grid(kWho, weight.name, weight.tensor, projections_[i].block());
        structures_.push_back({weight.name, weight.tensor, projections_[i].block(),
                               read("chosen", grid.shape(), at::kBool),
                               unifies ? elements : at::Tensor(),
                               unifies ? at::Tensor() : elements});
      } else {
        const auto dtype = sphere::accumulation_dtype(weight.tensor);
        targets_.push_back(read("target", shape, dtype));
        duals_.push_back(read("dual", shape, dtype));
      }
    }
    finalized_ = finalized;
    rho_ = rho;
  }

  double rho() const { return rho_; }
  bool finalized() const { return finalized_; }
  const std::vector<FrozenStructure>& structures() const { return structures_; }
  const AdmmOptions& options() const { return options_; }

 private:
  static at::Tensor wide(const at::Tensor& weight) {
    return weight.to(sphere::accumulation_dtype(weight));
  }

  static const at::Tensor& elements_of(const FrozenStructure& structure) {
    return structure.signs.defined() ? structure.signs : structure.pruned;
  }

  std::vector<std::string> described() const {
    std::vector<std::string> all;
    for (const auto& projection : projections_) all.push_back(projection.describe());
    return all;
  }

  std::vector<at::Tensor> pruned_in(const torch::optim::Optimizer& optimizer) const {
    return pruning::pruned_in(optimizer, weights_.tensors());
  }

  /// The nearest weights of the frozen structure.
  std::vector<at::Tensor> nearest(const std::vector<at::Tensor>& pruned) const {
    auto structures = structures_;
    std::vector<at::Tensor> weights;
    for (FrozenStructure& structure : structures) {
      structure.weight = weights.emplace_back(structure.weight.clone());
      follow(structure);
    }
    project_(structures, pruned);
    return weights;
  }

  static void follow(FrozenStructure& structure) {
    for (at::Tensor* tensor : {&structure.chosen, &structure.signs, &structure.pruned}) {
      if (tensor->defined()) *tensor = tensor->to(structure.weight.device());
    }
  }

  /// The model may have been moved, or converted, since the last step.
  void follow_weights() {
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const at::Tensor& weight = weights_.tensors()[i];
      if (finalized_) {
        follow(structures_[i]);
      } else {
        targets_[i] = sphere::beside_sums(weight, targets_[i]);
        duals_[i] = sphere::beside_sums(weight, duals_[i]);
      }
    }
  }

  AdmmOptions options_;
  decorator::HeldWeights weights_;
  std::vector<Projection> projections_;
  double rho_;
  bool finalized_ = false;
  std::vector<at::Tensor> targets_;  ///< Z, until finalized
  std::vector<at::Tensor> duals_;    ///< U, until finalized
  std::vector<FrozenStructure> structures_;
};

}  // namespace lawn::detail::unification
