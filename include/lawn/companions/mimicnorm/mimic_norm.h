// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include <lawn/companions/mimicnorm/center_rows.h>
#include <lawn/subnetwork/module_parameters.h>
#include <lawn/subnetwork/subnetwork.h>

// MimicNorm trains without normalisation between the layers: `Centered` centres weights after every
// step, one `LastBatchNorm` stands before the loss, and `ResidualScale` scales residual branches.
// This header selects the weights and initialises them.

namespace lawn {

/// Options of `select_for_centering` and `mimic_norm_init_`. Checked by both.
struct MimicNormOptions {
  /// Convolutions with a larger fan-in (input channels times kernel elements) are centred; >= 1.
  TORCH_ARG(int64_t, fan_in_above) = 50;
  /// Whether the fan-in of a grouped convolution counts the channels of one group, not of all.
  TORCH_ARG(bool, per_group) = true;
  /// Whether linear layers are centred too, under the same threshold.
  TORCH_ARG(bool, linear) = false;
  /// Whether `mimic_norm_init_` draws new weights; otherwise it only centres the present ones.
  TORCH_ARG(bool, draw) = true;
  /// Factor of the weights that are drawn and centred, > 0. `kCenteringGain` keeps the scale of
  /// signals in a plain chain of layers, which has no `ResidualScale`.
  TORCH_ARG(double, gain) = 1;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(fan_in_above() >= 1, "lawn::MimicNormOptions: fan_in_above must be >= 1, got ",
                fan_in_above());
    TORCH_CHECK(std::isfinite(gain()) && gain() > 0,
                "lawn::MimicNormOptions: gain must be finite and > 0, got ", gain());
  }
};

namespace detail::mimicnorm {

/// Fan-in of a multiplying weight, as its module describes it.
struct FanIn {
  int64_t unit_dim = 0;
  int64_t fan_in = 0;  ///< elements that add up to one output
  int64_t groups = 1;
  bool linear = false;
};

/// The weight of `module` if it is a `Convolution`.
template <class Convolution>
bool describe_convolution(const torch::nn::Module& module, at::Tensor& weight, FanIn& fan) {
  const auto* convolution = dynamic_cast<const Convolution*>(&module);
  if (convolution == nullptr || !convolution->weight.defined()) return false;
  weight = convolution->weight;
  fan.groups = convolution->options.groups();
  fan.unit_dim =
      subnetwork::owner_kind(module) == subnetwork::Owner::kTransposedConvolution ? 1 : 0;
  fan.fan_in = weight.numel() / std::max<int64_t>(weight.size(fan.unit_dim), 1);
  // [in, out / groups, ...]: an output unit sees the channels of its group alone.
  if (fan.unit_dim == 1) fan.fan_in /= fan.groups;
  return true;
}

/// The weights of the convolutions and linear layers of a module.
inline std::unordered_map<const c10::TensorImpl*, FanIn> fan_ins(const torch::nn::Module& module) {
  std::unordered_map<const c10::TensorImpl*, FanIn> all;
  module.apply([&](const torch::nn::Module& owner) {
    namespace nn = torch::nn;
    at::Tensor weight;
    FanIn fan;
    if (const auto* linear = dynamic_cast<const nn::LinearImpl*>(&owner)) {
      weight = linear->weight;
      fan.fan_in = weight.size(1);
      fan.linear = true;
    } else if (!describe_convolution<nn::Conv2dImpl>(owner, weight, fan) &&
               !describe_convolution<nn::Conv1dImpl>(owner, weight, fan) &&
               !describe_convolution<nn::Conv3dImpl>(owner, weight, fan) &&
               !describe_convolution<nn::ConvTranspose2dImpl>(owner, weight, fan) &&
               !describe_convolution<nn::ConvTranspose1dImpl>(owner, weight, fan) &&
               !describe_convolution<nn::ConvTranspose3dImpl>(owner, weight, fan)) {
      return;
    }
    all.emplace(weight.unsafeGetTensorImpl(), fan);
  });
  return all;
}

/// Why a weight is not centred; empty if it is.
inline std::string reason_against_centering(const FanIn& fan, const MimicNormOptions& options) {
  if (fan.linear && !options.linear()) return "the weight of a linear layer";
  if (fan.unit_dim == 1 && fan.groups > 1) {
    return "a grouped transposed convolution, whose output units are not along one dimension";
  }
  const int64_t counted = options.per_group() ? fan.fan_in : fan.fan_in * fan.groups;
  if (counted > options.fan_in_above()) return "";
  return "fan-in " + std::to_string(counted) + ", not above " +
         std::to_string(options.fan_in_above());
}

}  // namespace detail::mimicnorm

/// Selects the weights that MimicNorm centres: those of convolutions with a large fan-in.
/// @param module   the network
/// @param options  which fan-in counts as large
/// @return every parameter of the module; those to be centred are inside, the others have a reason
/// @throws c10::Error with the reasons if no weight is selected, and for options out of range
/// @note   does not wait for the device; the result aliases the parameters
/// @source Fei et al. 2020, arXiv 2010.09278
inline Subnetwork select_for_centering(const torch::nn::Module& module,
                                       const MimicNormOptions& options = {}) {
  options.validate();
  const auto fan_ins = detail::mimicnorm::fan_ins(module);
  auto parameters = detail::subnetwork::module_parameters(module);
  std::ostringstream reasons;
  bool any = false;
  for (auto& parameter : parameters) {
    const auto found = fan_ins.find(parameter.tensor.unsafeGetTensorImpl());
    if (found != fan_ins.end()) {
      parameter.reason = detail::mimicnorm::reason_against_centering(found->second, options);
    } else {
      parameter.reason = parameter.role == Role::kBias ? "a bias" : "not of a convolution";
    }
    parameter.inside = parameter.reason.empty();
    any = any || parameter.inside;
    reasons << "\n  " << parameter.name << ": " << parameter.reason;
  }
  TORCH_CHECK(any, "lawn::select_for_centering: expected a weight to centre, got none of ",
              parameters.size(), " parameters; lower fan_in_above, allow linear(true), or select ",
              "by hand:", reasons.str());
  return Subnetwork(std::move(parameters));
}

/// Initialises a MimicNorm network.
///   w ~ N(0, 2 / fan_in)     every convolution and linear layer; biases 0
///   w_o <- w_o - mean(w_o)   those of `select_for_centering`, drawn `gain` times as large
/// LibTorch's default initialisation has a sixth of that variance. It shrinks signals in every
/// layer, until nothing is left at the last batch norm.
/// @param options  which weights are centred, and the gain
/// @param module  the network; changed in place. Weights are drawn from the default generator
/// @return the selection of the centred weights, for `Centered`
/// @throws c10::Error as `select_for_centering` does, before anything is changed
/// @note   does not wait for the device
/// @source Fei et al. 2020, arXiv 2010.09278; He et al. 2015, arXiv 1502.01852, eq. 10
inline Subnetwork mimic_norm_init_(torch::nn::Module& module,
                                   const MimicNormOptions& options = {}) {
  auto selection = select_for_centering(module, options);
  const at::NoGradGuard no_grad;
  const auto fan_ins = detail::mimicnorm::fan_ins(module);
  std::vector<WeightRows> rows;
  for (const auto& parameter : selection.all()) {
    const auto found = fan_ins.find(parameter.tensor.unsafeGetTensorImpl());
    if (options.draw() && found != fan_ins.end() && found->second.fan_in > 0) {
      const double gain = parameter.inside ? options.gain() : 1;
      parameter.tensor.normal_(0,
                               gain * std::sqrt(2.0 / static_cast<double>(found->second.fan_in)));
    }
    if (parameter.inside) rows.push_back({parameter.tensor, parameter.unit_dim, {}});
  }
  if (options.draw()) {
    module.apply([&](torch::nn::Module& owner) {
      auto own = owner.named_parameters(/*recurse=*/false);
      const auto* weight = own.find("weight");
      auto* bias = own.find("bias");
      const bool multiplies =
          weight != nullptr && fan_ins.count(weight->unsafeGetTensorImpl()) == 1;
      if (multiplies && bias != nullptr) bias->zero_();
    });
  }
  center_rows_(rows);
  return selection;
}

}  // namespace lawn
