// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
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

/// Options of `LAMB`. Checked when the optimizer is constructed and when a group is added.
struct LAMBOptions : public torch::optim::OptimizerCloneableOptions<LAMBOptions>,
                     public detail::optim::OptionsForDecorators {
  /// Type of `betas`: the decay of the first and of the second moment.
  using betas_t = std::tuple<double, double>;
  /// Options with this learning rate and the defaults.
  LAMBOptions(double lr = 1e-3) : lr_(lr) {}  // converts from a learning rate, as LibTorch's do
  /// Learning rate, >= 0.
  TORCH_ARG(double, lr);
  /// Decay of the two moments per step, each in [0, 1).
  TORCH_ARG(betas_t, betas) = std::make_tuple(0.9, 0.999);
  /// Added to the root of the second moment, > 0.
  TORCH_ARG(double, eps) = 1e-6;
  /// lambda of the decoupled decay, >= 0. With 0, weights are adapted only if `always_adapt` is
  /// set.
  TORCH_ARG(double, weight_decay) = 0.01;
  /// Whether the moments are divided by 1 - beta^t.
  TORCH_ARG(bool, bias_correction) = true;
  /// Upper bound of the trust ratio, > 0; 1 is what other implementations call `trust_clip`.
  TORCH_ARG(double, max_trust_ratio) = std::numeric_limits<double>::infinity();
  /// Whether groups without weight decay (as a rule biases and normalisation) are adapted as well.
  TORCH_ARG(bool, always_adapt) = false;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(std::isfinite(lr()) && lr() >= 0, "lawn::LAMB: lr must be finite and >= 0, got ",
                lr());
    const auto [beta1, beta2] = betas();
    TORCH_CHECK(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1,
                "lawn::LAMB: betas must be in [0, 1), got ", beta1, " and ", beta2);
    TORCH_CHECK(std::isfinite(eps()) && eps() > 0, "lawn::LAMB: eps must be finite and > 0, got ",
                eps());
    TORCH_CHECK(std::isfinite(weight_decay()) && weight_decay() >= 0,
                "lawn::LAMB: weight_decay must be finite and >= 0, got ", weight_decay());
    TORCH_CHECK(max_trust_ratio() > 0, "lawn::LAMB: max_trust_ratio must be > 0, got ",
                max_trust_ratio());
  }

  /// Writes the options; the optimizer's `save` calls it.
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("lr", c10::IValue(lr()));
    archive.write("betas", c10::IValue(betas()));
    archive.write("eps", c10::IValue(eps()));
    archive.write("weight_decay", c10::IValue(weight_decay()));
    archive.write("bias_correction", c10::IValue(bias_correction()));
    archive.write("max_trust_ratio", c10::IValue(max_trust_ratio()));
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
    betas(read("betas").to<betas_t>());
    eps(read("eps").toDouble());
    weight_decay(read("weight_decay").toDouble());
    bias_correction(read("bias_correction").toBool());
    max_trust_ratio(read("max_trust_ratio").toDouble());
    always_adapt(read("always_adapt").toBool());
  }
  /// The learning rate, as schedulers ask for it.
  double get_lr() const override { return lr(); }
  /// Sets the learning rate, as schedulers do.
  void set_lr(const double value) override { lr(value); }

  /// 0: the decay is decoupled.
  double coupled_weight_decay() const override { return 0; }

  friend bool operator==(const LAMBOptions& a, const LAMBOptions& b) {
    return a.lr() == b.lr() && a.betas() == b.betas() && a.eps() == b.eps() &&
           a.weight_decay() == b.weight_decay() && a.bias_correction() == b.bias_correction() &&
           a.max_trust_ratio() == b.max_trust_ratio() && a.always_adapt() == b.always_adapt();
  }
};

/// State that `LAMB` keeps for a parameter.
struct LAMBParamState : public torch::optim::OptimizerCloneableParamState<LAMBParamState>,
                        public detail::optim::StateForDecorators {
  /// Number of steps of this parameter.
  TORCH_ARG(int64_t, step) = 0;
  /// First moment, in the shape and on the device of the parameter; float64 for a float64
  /// parameter, else float32.
  TORCH_ARG(at::Tensor, exp_avg);
  /// Second moment, in the same shape, device and dtype as the first.
  TORCH_ARG(at::Tensor, exp_avg_sq);

 public:
  /// Writes the state; the optimizer's `save` calls it.
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("step", c10::IValue(step()));
    archive.write("exp_avg", exp_avg(), /*is_buffer=*/true);
    archive.write("exp_avg_sq", exp_avg_sq(), /*is_buffer=*/true);
  }
  /// Reads the state; the optimizer's `load` calls it.
  void serialize(torch::serialize::InputArchive& archive) override {
    c10::IValue count;
    at::Tensor first;
    at::Tensor second;
    archive.read("step", count);
    archive.read("exp_avg", first, /*is_buffer=*/true);
    archive.read("exp_avg_sq", second, /*is_buffer=*/true);
    step(count.toInt());
    exp_avg(first);
    exp_avg_sq(second);
  }

  /// The first moment, which `StateAtSwitch::kProject` projects.
  std::vector<at::Tensor> first_moments() const override { return {exp_avg()}; }

  friend bool operator==(const LAMBParamState& a, const LAMBParamState& b) {
    return a.step() == b.step() && detail::optim::same_values(a.exp_avg(), b.exp_avg()) &&
           detail::optim::same_values(a.exp_avg_sq(), b.exp_avg_sq());
  }
};

}  // namespace lawn
