// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/optim/for_decorators.h>
#include <lawn/optim/group_options.h>

namespace lawn {

/// Options of `LARS`. Checked when the optimizer is constructed and when a group is added.
struct LARSOptions : public torch::optim::OptimizerCloneableOptions<LARSOptions>,
                     public detail::optim::OptionsForDecorators {
  /// Options with this learning rate and the defaults.
  LARSOptions(double lr) : lr_(lr) {}  // converts from a learning rate, as LibTorch's do
  /// Learning rate, >= 0.
  TORCH_ARG(double, lr);
  /// Decay of the momentum per step, in [0, 1); with 0 there is no momentum.
  TORCH_ARG(double, momentum) = 0.9;
  /// lambda, >= 0. With 0, weights are adapted only if `always_adapt` is set.
  TORCH_ARG(double, weight_decay) = 1e-4;
  /// Factor eta of the trust ratio, > 0.
  TORCH_ARG(double, trust_coefficient) = 0.001;
  /// Added to the denominator of the trust ratio, >= 0.
  TORCH_ARG(double, eps) = 1e-8;
  /// Whether the step uses Nesterov momentum; needs a momentum > 0.
  TORCH_ARG(bool, nesterov) = false;
  /// Whether the learning rate of a weight is min(trust ratio, lr), as in LARC, instead of lr times
  /// its trust ratio.
  TORCH_ARG(bool, trust_clip) = false;
  /// Whether groups without weight decay (as a rule biases and normalisation) are adapted as well.
  TORCH_ARG(bool, always_adapt) = false;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    const auto check = [](const char* option, double value, bool good, const char* range) {
      TORCH_CHECK(std::isfinite(value) && good, "lawn::LARS: ", option, " must be ", range,
                  ", got ", value);
    };
    check("lr", lr(), lr() >= 0, "finite and >= 0");
    check("momentum", momentum(), momentum() >= 0 && momentum() < 1, "in [0, 1)");
    check("weight_decay", weight_decay(), weight_decay() >= 0, "finite and >= 0");
    check("trust_coefficient", trust_coefficient(), trust_coefficient() > 0, "finite and > 0");
    check("eps", eps(), eps() >= 0, "finite and >= 0");
    TORCH_CHECK(!nesterov() || momentum() > 0, "lawn::LARS: nesterov needs a momentum > 0, got ",
                momentum());
  }

  /// Writes the options; the optimizer's `save` calls it.
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("lr", c10::IValue(lr()));
    archive.write("momentum", c10::IValue(momentum()));
    archive.write("weight_decay", c10::IValue(weight_decay()));
    archive.write("trust_coefficient", c10::IValue(trust_coefficient()));
    archive.write("eps", c10::IValue(eps()));
    archive.write("nesterov", c10::IValue(nesterov()));
    archive.write("trust_clip", c10::IValue(trust_clip()));
    archive.write("always_adapt", c10::IValue(always_adapt()));
  }
  /// Reads the options; the optimizer's `load` calls it.
  void serialize(torch::serialize::InputArchive& archive) override {
    const auto read = [&archive](const char* key) {
      c10::IValue value;
      archive.read(key, value);
      return value;
    };
    lr(read("lr").toDouble());
    momentum(read("momentum").toDouble());
    weight_decay(read("weight_decay").toDouble());
    trust_coefficient(read("trust_coefficient").toDouble());
    eps(read("eps").toDouble());
    nesterov(read("nesterov").toBool());
    trust_clip(read("trust_clip").toBool());
    always_adapt(read("always_adapt").toBool());
  }
  /// The learning rate, as schedulers ask for it.
  double get_lr() const override { return lr(); }
  /// Sets the learning rate, as schedulers do.
  void set_lr(const double value) override { lr(value); }

  /// The decay, which is added to the gradient before the momentum.
  double coupled_weight_decay() const override { return weight_decay(); }

  friend bool operator==(const LARSOptions& a, const LARSOptions& b) {
    return a.lr() == b.lr() && a.momentum() == b.momentum() &&
           a.weight_decay() == b.weight_decay() && a.trust_coefficient() == b.trust_coefficient() &&
           a.eps() == b.eps() && a.nesterov() == b.nesterov() && a.trust_clip() == b.trust_clip() &&
           a.always_adapt() == b.always_adapt();
  }
};

/// State that `LARS` keeps for a parameter; without momentum there is none.
struct LARSParamState : public torch::optim::OptimizerCloneableParamState<LARSParamState>,
                        public detail::optim::StateForDecorators {
  /// Momentum, in the shape and on the device of the parameter; float64 for a float64 parameter,
  /// else float32.
  TORCH_ARG(at::Tensor, momentum_buffer);

 public:
  /// Writes the state; the optimizer's `save` calls it.
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("momentum_buffer", momentum_buffer(), /*is_buffer=*/true);
  }
  /// Reads the state; the optimizer's `load` calls it.
  void serialize(torch::serialize::InputArchive& archive) override {
    at::Tensor buffer;
    archive.read("momentum_buffer", buffer, /*is_buffer=*/true);
    momentum_buffer(buffer);
  }

  /// The momentum, which `StateAtSwitch::kProject` projects.
  std::vector<at::Tensor> first_moments() const override { return {momentum_buffer()}; }

  friend bool operator==(const LARSParamState& a, const LARSParamState& b) {
    return detail::optim::same_values(a.momentum_buffer(), b.momentum_buffer());
  }
};

}  // namespace lawn
