// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>
#include <lawn/optim/lamb.h>
#include <lawn/optim/lars.h>

#include "tests/support/equal.h"
#include "tests/support/own_optimizer.h"

/// The rows of the conformance table. A new optimizer is one row here.
namespace lawn::testing {

using Groups = std::vector<torch::optim::OptimizerParamGroup>;
using OptionsPointer = std::unique_ptr<torch::optim::OptimizerOptions>;

/// What a row says beside `Opt make(Groups)`:
///   undecayed   options of a group whose coupled weight decay is off, or null where there is none
///   lawn        the options that LAWN needs for this optimizer
///   kTwinSteps  steps for which a float32 and a float64 trajectory stay within the tolerance
struct Row {
  static OptionsPointer undecayed() { return nullptr; }
  static LAWNOptions lawn() { return {}; }
  static constexpr int64_t kTwinSteps = 30;
};

struct PlainSGD : Row {
  using Opt = torch::optim::SGD;
  static Opt make(const Groups& groups) { return Opt(groups, torch::optim::SGDOptions(0.05)); }
};

struct MomentumSGD : Row {
  using Opt = torch::optim::SGD;
  static auto options() { return torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(0.1); }
  static Opt make(const Groups& groups) { return Opt(groups, options()); }
  static OptionsPointer undecayed() {
    return std::make_unique<torch::optim::SGDOptions>(options().weight_decay(0));
  }
};

struct NesterovSGD : Row {
  using Opt = torch::optim::SGD;
  static auto options() { return torch::optim::SGDOptions(0.05).momentum(0.9).nesterov(true); }
  static Opt make(const Groups& groups) { return Opt(groups, options()); }
};

struct PlainAdam : Row {
  using Opt = torch::optim::Adam;
  static Opt make(const Groups& groups) { return Opt(groups, torch::optim::AdamOptions(0.01)); }
};

struct DecayedAdam : Row {
  using Opt = torch::optim::Adam;
  static auto options() { return torch::optim::AdamOptions(0.01).weight_decay(0.1).amsgrad(true); }
  static Opt make(const Groups& groups) { return Opt(groups, options()); }
  static OptionsPointer undecayed() {
    return std::make_unique<torch::optim::AdamOptions>(options().weight_decay(0));
  }
};

struct AdamW : Row {
  using Opt = torch::optim::AdamW;
  static auto options() { return torch::optim::AdamWOptions(0.01).weight_decay(0.1); }
  static Opt make(const Groups& groups) { return Opt(groups, options()); }
};

struct RMSprop : Row {
  using Opt = torch::optim::RMSprop;
  static auto options() {
    return torch::optim::RMSpropOptions(0.01).momentum(0.5).centered(true).weight_decay(0.1);
  }
  static Opt make(const Groups& groups) { return Opt(groups, options()); }
  static OptionsPointer undecayed() {
    return std::make_unique<torch::optim::RMSpropOptions>(options().weight_decay(0));
  }
};

struct Adagrad : Row {
  using Opt = torch::optim::Adagrad;
  static auto options() { return torch::optim::AdagradOptions(0.05).weight_decay(0.1); }
  static Opt make(const Groups& groups) { return Opt(groups, options()); }
  static OptionsPointer undecayed() {
    return std::make_unique<torch::optim::AdagradOptions>(options().weight_decay(0));
  }
  static constexpr bool kGroups =
      false;  // its constructor alone makes state: LibTorch asserts later
};

struct LBFGS : Row {
  using Opt = torch::optim::LBFGS;
  static Opt make(const Groups& groups) {
    return Opt(groups, torch::optim::LBFGSOptions(0.1).max_iter(4).history_size(5));
  }
  // It divides by differences of gradients: the plain optimizer in float32 is 2e-4 away from
  // itself in float64 after 4 steps of this problem, and percents after 20.
  static constexpr int64_t kTwinSteps = 3;
};

struct Own : Row {
  using Opt = SignMomentum;
  static auto options() { return SignMomentumOptions(0.01).decay(0.1); }
  static Opt make(const Groups& groups) { return Opt(groups, options()); }
  static OptionsPointer undecayed() {
    return std::make_unique<SignMomentumOptions>(options().decay(0));
  }
  static LAWNOptions lawn() {
    return LAWNOptions()
        .coupled_weight_decay([](const torch::optim::OptimizerOptions& options) {
          return static_cast<const SignMomentumOptions&>(options).decay();
        })
        .first_moments([](torch::optim::OptimizerParamState& state) {
          return std::vector<at::Tensor>{static_cast<SignMomentumState&>(state).average()};
        });
  }
};

/// The row `Plain` with a fused optimizer in the place of LibTorch's.
template <class Plain, class Fused>
struct FusedRow : Plain {
  using Opt = Fused;
  static Opt make(const Groups& groups) { return Opt(groups, Plain::options()); }
};

using FusedMomentumSGD = FusedRow<MomentumSGD, lawn::FusedSGD>;
using FusedNesterovSGD = FusedRow<NesterovSGD, lawn::FusedSGD>;
using FusedDecayedAdam = FusedRow<DecayedAdam, lawn::FusedAdam>;
using FusedDecayedAdamW = FusedRow<AdamW, lawn::FusedAdamW>;
using FusedDecayedAdagrad = FusedRow<Adagrad, lawn::FusedAdagrad>;

struct LAMB : Row {
  using Opt = lawn::LAMB;
  static Opt make(const Groups& groups) {
    return Opt(groups, lawn::LAMBOptions(0.01).weight_decay(0.1));
  }
};

struct LARS : Row {
  using Opt = lawn::LARS;
  // Without decay, of which LAWN leaves a trace in the trust ratio that the twin has not.
  static Opt make(const Groups& groups) {
    return Opt(groups,
               lawn::LARSOptions(0.5).trust_coefficient(0.02).weight_decay(0).always_adapt(true));
  }
};

/// Those that take more groups after their construction. (LibTorch's Adagrad makes the state of its
/// parameters in its constructor alone, and L-BFGS has one group.)
using RowsOfGroups =
    ::testing::Types<PlainSGD, MomentumSGD, NesterovSGD, PlainAdam, DecayedAdam, AdamW, RMSprop,
                     FusedMomentumSGD, FusedNesterovSGD, FusedDecayedAdam, FusedDecayedAdamW,
                     FusedDecayedAdagrad, LAMB, LARS, Own>;

using Rows =
    ::testing::Types<PlainSGD, MomentumSGD, NesterovSGD, PlainAdam, DecayedAdam, AdamW, RMSprop,
                     Adagrad, LBFGS, FusedMomentumSGD, FusedNesterovSGD, FusedDecayedAdam,
                     FusedDecayedAdamW, FusedDecayedAdagrad, LAMB, LARS, Own>;

/// lawn's own, which refuse to hold a tensor twice. (LibTorch's step it twice.)
using OwnRows = ::testing::Types<FusedMomentumSGD, FusedNesterovSGD, FusedDecayedAdam,
                                 FusedDecayedAdamW, FusedDecayedAdagrad, LAMB, LARS>;

/// A network, its data and loss: two constrained weights, two free biases.
struct Problem {
  explicit Problem(torch::ScalarType dtype = torch::kFloat, int64_t seed = 0) {
    torch::manual_seed(seed);
    model =
        torch::nn::Sequential(torch::nn::Linear(6, 8), torch::nn::ReLU(), torch::nn::Linear(8, 3));
    x = torch::randn({32, 6});
    y = torch::randint(3, {32});
    model->to(dtype);
    x = x.to(dtype);
  }

  /// The loss of a step, on another part of the data each time; leaves its gradients.
  torch::Tensor backward(int64_t step) {
    model->zero_grad();
    const auto part = 16 * (step % 2);
    const auto logits = model->forward(x.slice(0, part, part + 16));
    auto loss = torch::nn::functional::cross_entropy(logits, y.slice(0, part, part + 16));
    loss.backward();
    return loss;
  }

  Groups groups() const { return {torch::optim::OptimizerParamGroup(model->parameters())}; }
  Subnetwork weights() const { return select_all_weights(*model); }

  std::vector<torch::Tensor> values() const {
    std::vector<torch::Tensor> all;
    for (const auto& parameter : model->parameters()) all.push_back(parameter.detach().clone());
    return all;
  }

  torch::nn::Sequential model{nullptr};
  torch::Tensor x;
  torch::Tensor y;
};

}  // namespace lawn::testing
