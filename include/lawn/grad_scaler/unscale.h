// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>

#include <lawn/distributed/collective.h>
#include <lawn/distributed/shard_ranks.h>
#include <lawn/parameters/gradient_values.h>
#include <lawn/parameters/own_gradients.h>
#include <lawn/parameters/tensor_lists.h>

/// Unscales the gradients of one optimizer, for `GradScaler`.
namespace lawn::detail::grad_scaler {

/// All parameters of `optimizer`, each once.
inline std::vector<at::Tensor> parameters_of(const torch::optim::Optimizer& optimizer) {
  std::vector<at::Tensor> parameters;
  for (const auto& group : optimizer.param_groups()) {
    parameters.insert(parameters.end(), group.params().begin(), group.params().end());
  }
  return parameters::distinct(parameters);
}

/// Whether LibTorch divides gradients of `dtype` on `device` in place. Half could be divided, but
/// has already lost what scaling preserves.
inline bool can_unscale(c10::DeviceType device, at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return device != at::kCUDA;
  return dtype == at::kFloat || dtype == at::kDouble;
}

/// Refuses `parameters` of which a gradient cannot be divided.
inline void check_unscalable(const std::vector<at::Tensor>& parameters) {
  for (const at::Tensor& parameter : parameters) {
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined()) continue;
    TORCH_CHECK(gradient.scalar_type() != at::kHalf,
                "lawn::GradScaler: attempting to unscale FP16 gradients: expected gradients in "
                "float32, as autocast leaves those of float32 parameters, got Half for a "
                "parameter of shape ",
                parameter.sizes());
    TORCH_CHECK(can_unscale(gradient.device().type(), gradient.scalar_type()),
                "lawn::GradScaler: expected gradients that LibTorch can unscale (float32 or "
                "float64, on a CPU also bfloat16), got ",
                gradient.scalar_type(), " on ", gradient.device(), " for a parameter of shape ",
                parameter.sizes(),
                "; keep the parameter in float32 and autocast the forward pass, or train it "
                "without a scaler");
    TORCH_CHECK(gradient.layout() == at::kStrided || gradient.is_sparse(),
                "lawn::GradScaler: expected gradients that are strided or sparse COO, got layout ",
                gradient.layout(), " for a parameter of shape ", parameter.sizes());
  }
}

/// Findings of the division of gradients.
struct Unscaled {
  /// Number of lists with a gradient that is not finite, over all ranks: 0-dim, float32, on the
  /// scale's device; undefined without gradients.
  at::Tensor not_finite;
  /// Over shards: that number, and the number of lists of gradients on all ranks, `[2]`.
  at::Tensor over_ranks;

  struct Numbers {
    bool finite = true;
    bool gradients = false;  ///< whether there are gradients
  };
  /// Waits for the device once.
  Numbers read() const {
    if (over_ranks.defined()) {
      const auto host = over_ranks.cpu();
      return {host[0].item<float>() == 0, host[1].item<float>() > 0};
    }
    if (!not_finite.defined()) return {};
    return {not_finite.item<float>() == 0, true};
  }
};

/// Divides each gradient of `parameters` by `scale` once, even if some share memory.
///   g <- g / scale
/// @param parameters  each once
/// @param scale       0-dim, float32
/// @param sharded     whether the findings must be added over ranks; then call `share` next
/// @throws c10::Error for gradients that cannot be divided, before anything is changed
/// @note   does not wait for the device, except for copies from a device to a scale on the host
inline Unscaled unscale_(const std::vector<at::Tensor>& parameters, const at::Tensor& scale,
                         bool sharded) {
  check_unscalable(parameters);
  const at::NoGradGuard no_grad;
  parameters::own_gradients_(parameters);
  std::vector<at::Tensor> gradients;
  at::Device on_ranks = scale.device();
  for (const at::Tensor& parameter : parameters) {
    if (distributed::ShardMark::of(parameter) != nullptr) on_ranks = parameter.device();
    if (parameter.grad().defined()) gradients.push_back(parameters::values_of(parameter.grad()));
  }
  const auto inverse = scale.to(at::kDouble).reciprocal().to(at::kFloat);
  const auto lists = parameters::by_device_and_dtype(gradients);
  Unscaled result;
  for (const auto& list : lists) {
    const auto chosen = parameters::pick(gradients, list);
    const auto device = chosen.front().device();
    auto found = at::zeros({}, inverse.options().device(device));
    at::_amp_foreach_non_finite_check_and_unscale_(chosen, found,
                                                   parameters::to_device(inverse, device));
    found = parameters::to_device(found, scale.device());
    result.not_finite = result.not_finite.defined() ? result.not_finite + found : found;
  }
  if (sharded) {
    result.over_ranks = at::zeros({2}, scale.options().device(on_ranks));
    if (result.not_finite.defined()) result.over_ranks[0].copy_(result.not_finite);
    result.over_ranks[1].fill_(static_cast<double>(lists.size()));
  }
  return result;
}

/// Tells all ranks what each found in its shards, by one sum.
inline void share(Collective& ranks, Unscaled& found, at::Device device_of_scale) {
  ranks.sum_(found.over_ranks);
  found.not_finite = parameters::to_device(found.over_ranks[0], device_of_scale);
}

}  // namespace lawn::detail::grad_scaler
