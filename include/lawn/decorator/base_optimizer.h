// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/ArrayRef.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <lawn/archive/optimizer_state.h>
#include <lawn/optim/for_decorators.h>

/// All that the decorators need to know about LibTorch's and lawn's own optimizers. Options and
/// state of a derived class are recognised too.
namespace lawn::detail::decorator {

/// The lambda of `g + lambda w` that a group's optimizer computes before its moments; 0 where decay
/// is decoupled or absent; nullopt for options of an unknown type.
inline std::optional<double> coupled_weight_decay(const torch::optim::OptimizerOptions& options) {
  namespace optim = torch::optim;
  if (const auto* sgd = dynamic_cast<const optim::SGDOptions*>(&options)) {
    return sgd->weight_decay();
  }
  if (const auto* adam = dynamic_cast<const optim::AdamOptions*>(&options)) {
    return adam->weight_decay();
  }
  if (const auto* rmsprop = dynamic_cast<const optim::RMSpropOptions*>(&options)) {
    return rmsprop->weight_decay();
  }
  if (const auto* adagrad = dynamic_cast<const optim::AdagradOptions*>(&options)) {
    return adagrad->weight_decay();
  }
  if (const auto* own = dynamic_cast<const detail::optim::OptionsForDecorators*>(&options)) {
    return own->coupled_weight_decay();
  }
  if (dynamic_cast<const optim::AdamWOptions*>(&options) != nullptr ||
      dynamic_cast<const optim::LBFGSOptions*>(&options) != nullptr) {
    return 0.0;
  }
  return std::nullopt;
}

/// The tensors of a parameter's state that are running sums or means of its gradients; nullopt for
/// state of an unknown type.
inline std::optional<std::vector<at::Tensor>> first_moments(
    torch::optim::OptimizerParamState& state) {
  namespace optim = torch::optim;
  std::vector<at::Tensor> moments;
  if (auto* sgd = dynamic_cast<optim::SGDParamState*>(&state)) {
    moments = {sgd->momentum_buffer()};
  } else if (auto* adam = dynamic_cast<optim::AdamParamState*>(&state)) {
    moments = {adam->exp_avg()};
  } else if (auto* adamw = dynamic_cast<optim::AdamWParamState*>(&state)) {
    moments = {adamw->exp_avg()};
  } else if (auto* rmsprop = dynamic_cast<optim::RMSpropParamState*>(&state)) {
    moments = {rmsprop->momentum_buffer()};
  } else if (auto* own = dynamic_cast<detail::optim::StateForDecorators*>(&state)) {
    moments = own->first_moments();
  } else if (dynamic_cast<optim::AdagradParamState*>(&state) == nullptr &&
             dynamic_cast<optim::LBFGSParamState*>(&state) == nullptr) {
    return std::nullopt;
  }
  if (!moments.empty() && !moments.front().defined()) moments.clear();
  return moments;
}

/// Whether the optimizer of these options is known to move each element by its own gradient alone.
/// LARS and LAMB do not (norms of a layer), nor does L-BFGS (inner products over everything), nor
/// perhaps a user's own optimizer.
inline bool elementwise(const torch::optim::OptimizerOptions& options) {
  return archive::has_state_like_parameters(options);
}

/// State that was taken from an optimizer, to which a step that is under way may still refer.
using ForgottenState = std::vector<std::shared_ptr<torch::optim::OptimizerParamState>>;

/// Forgets the state of `parameters`, so that the optimizer starts on them anew. Adagrad creates
/// its state only in its constructor, so the state is set to the initial value of its group.
/// L-BFGS's step refers to its state from the first evaluation on, so the state stays, but says that
/// no direction was taken yet: L-BFGS begins anew, without history, with its next direction.
/// @return the state that was taken away; keep it until a step that is under way has ended
inline ForgottenState reset_state(torch::optim::Optimizer& optimizer,
                                  c10::ArrayRef<at::Tensor> parameters) {
  namespace optim = torch::optim;
  ForgottenState forgotten;
  std::unordered_set<const c10::TensorImpl*> chosen;
  for (const auto& parameter : parameters) chosen.insert(parameter.unsafeGetTensorImpl());
  for (const auto& group : optimizer.param_groups()) {
    for (const auto& parameter : group.params()) {
      c10::TensorImpl* key = parameter.unsafeGetTensorImpl();
      const auto found = optimizer.state().find(key);
      if (found == optimizer.state().end()) continue;
      // One state for all parameters, under the first one's key.
      if (auto* lbfgs = dynamic_cast<optim::LBFGSParamState*>(found->second.get())) {
        lbfgs->n_iter(0);
        continue;
      }
      if (chosen.count(key) == 0) continue;
      if (auto* adagrad = dynamic_cast<optim::AdagradParamState*>(found->second.get())) {
        const auto& options = dynamic_cast<const optim::AdagradOptions&>(group.options());
        adagrad->step(0);
        adagrad->sum(at::full_like(parameter, options.initial_accumulator_value()).detach());
        continue;
      }
      forgotten.emplace_back(std::move(found->second));
      optimizer.state().erase(found);
    }
  }
  return forgotten;
}

}  // namespace lawn::detail::decorator
