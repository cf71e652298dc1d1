// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <lawn/distributed/shard_ranks.h>
#include <lawn/parameters/gradient_values.h>
#include <lawn/parameters/own_gradients.h>
#include <lawn/parameters/tensor_lists.h>
#include <lawn/sphere/layer.h>

namespace lawn {

namespace detail {

/// Dtype in which norms are combined: float64 where the device has it, else float32.
inline at::ScalarType total_dtype(at::Device device) {
  return device.is_mps() ? at::kFloat : at::kDouble;
}

/// The norm of order p of `values`, without an overflow or underflow on the way to it.
///   m (sum_i |x_i / m|^p)^(1/p),   m = max_i |x_i|
/// @param values  of any shape, with at least one element, in the dtype of the result
/// @return 0-dim; an infinity or NaN among the values stays one
inline at::Tensor scaled_norm(const at::Tensor& values, double norm_type) {
  const bool wide = values.scalar_type() == at::kDouble;
  const double least =
      wide ? std::numeric_limits<double>::min() : std::numeric_limits<float>::min();
  const double most = wide ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
  const auto largest = at::linalg_vector_norm(values, std::numeric_limits<double>::infinity());
  const auto scale = largest.clamp(least, most);  // keeps 0 and infinity out
  return at::linalg_vector_norm(values / scale, norm_type) * scale;
}

/// The norm of order `norm_type` of each of `values`, none of them empty.
/// @return `[values.size()]` on `device`, in `total_dtype(device)`, in no particular order
inline at::Tensor norms_of_order(const std::vector<at::Tensor>& values, double norm_type,
                                 at::Device device) {
  std::vector<at::Tensor> all;
  for (const auto& list : parameters::by_device_and_dtype(values)) {
    const auto chosen = parameters::pick(values, list);
    const auto wide = total_dtype(chosen.front().device());
    std::vector<at::Tensor> of_list;
    if (norm_type == 2) {
      of_list = parameters::norms(chosen);
    } else if (norm_type == 1 || std::isinf(norm_type)) {
      of_list = at::_foreach_norm(chosen, norm_type, wide);
    } else {
      for (const auto& value : chosen) of_list.push_back(scaled_norm(value.to(wide), norm_type));
    }
    all.push_back(parameters::to_device(at::stack(of_list), device, total_dtype(device)));
  }
  if (all.empty()) return at::zeros({0}, at::TensorOptions(device).dtype(total_dtype(device)));
  return at::cat(all);
}

/// The values over which the norm of a gradient is taken: of complex numbers the absolute ones. A
/// sparse gradient may have several entries of one index, which add up: the norm needs their sums,
/// scaling does not.
inline at::Tensor summed_values(const at::Tensor& gradient) {
  const auto values = gradient.is_sparse() ? gradient.coalesce()._values() : gradient;
  return values.is_complex() ? values.abs() : values;
}

/// The norm over the gradients of all `parameters`, seen as one vector.
/// @param ranks  over which some parameters are sharded, or null
/// @return 0-dim on `device`, in `total_dtype(device)`; the same bits on every rank
inline at::Tensor gradient_norm(const std::vector<at::Tensor>& parameters, double norm_type,
                                Collective* ranks, at::Device device) {
  at::Tensor numbers;
  at::Tensor mine;  // norm of this rank's parts of sharded parameters
  distributed::tell_ranks_of_errors(ranks, [&] {
    std::vector<at::Tensor> wholes;
    std::vector<at::Tensor> parts;
    at::Device on_ranks = device;
    for (const at::Tensor& parameter : parameters) {
      const bool sharded = distributed::ShardMark::of(parameter) != nullptr;
      if (sharded) on_ranks = parameter.device();
      if (!parameter.grad().defined()) continue;
      const auto values = summed_values(parameter.grad());
      if (values.numel() != 0) (sharded ? parts : wholes).push_back(values);
    }
    numbers = norms_of_order(wholes, norm_type, device);
    if (ranks == nullptr) return;
    mine = norms_of_order(parts, norm_type, on_ranks);
    mine = mine.numel() == 0 ? at::zeros({}, mine.options()) : scaled_norm(mine, norm_type);
  });
  if (ranks != nullptr) {
    const auto of_ranks = distributed::gather_numbers(*ranks, mine);
    numbers = at::cat({numbers, parameters::to_device(of_ranks, device, numbers.scalar_type())});
  }
  return numbers.numel() == 0 ? at::zeros({}, numbers.options()) : scaled_norm(numbers, norm_type);
}

}  // namespace detail

/// Scales the gradients of `parameters`, seen as one vector, so that its norm is at most
/// `max_norm`.
///   g <- min(1, max_norm / (||g|| + 1e-6)) g
/// It gives the same numbers as `torch::nn::utils::clip_grad_norm_`, which waits for the device in
/// every call. The norm of each gradient is taken in float32 (of a float64 gradient in float64),
/// and these norms are combined in float64: nothing overflows or underflows on the way to a norm
/// that these types can hold.
///
/// If parameters are sharded over ranks (the parts of `ParameterShards`, or those given to
/// `ShardedSpheres`), the norm is that of the whole. Each rank calls this function with its own
/// parts, even if they have no elements or no gradients, and all ranks scale by the same factor.
/// Each rank holds the other parameters of such a list as a whole; they count once.
/// @param parameters  on any devices and of any dtypes; those without a gradient are skipped, and a
///                    parameter that is listed twice counts once. Gradients that share memory with
///                    one another, or with themselves (`expand`), are replaced by copies before
///                    they are scaled; memory shared with a gradient outside the list is not seen
/// @param max_norm    >= 0; with infinity nothing is changed and the norm is returned
/// @param norm_type   order p of the norm, > 0; infinity takes the largest absolute value
/// @param error_if_nonfinite  whether a norm that is not finite is an error: the call then waits
///                    for the device, and throws before anything is changed. Otherwise an infinite
///                    norm turns finite gradients into zeros and others into NaN, and a NaN norm
///                    turns all gradients into NaN
/// @return the norm before the clipping, 0-dim, on the device of the first gradient; float64 if one
///         of the gradients is float64 (over shards: one of the parameters), else float32. The norm
///         is zero if there are no gradients
/// @throws c10::Error for numbers out of range; over shards also if a rank does not call, as the
///         ranks' collective reports it. Nothing is changed then
/// @note   does not wait for the device, with three exceptions: `error_if_nonfinite`, sparse
///         gradients that are not coalesced, and gradients on several devices of which one is the
///         host. Over shards it takes one sum over the ranks, with one number for each rank
/// @source Pascanu et al. 2013, arXiv 1211.5063, algorithm 1
inline at::Tensor clip_grad_norm_(const std::vector<at::Tensor>& parameters, double max_norm,
                                  double norm_type = 2.0, bool error_if_nonfinite = false) {
  constexpr const char* kWho = "lawn::clip_grad_norm_";
  TORCH_CHECK(max_norm >= 0, kWho, ": max_norm must be >= 0, got ", max_norm);
  TORCH_CHECK(norm_type > 0, kWho, ": norm_type must be > 0, got ", norm_type);
  const at::NoGradGuard no_grad;
  const auto once = detail::parameters::distinct(parameters);
  Collective* const ranks = detail::distributed::ranks_of(kWho, once);
  at::Device device = once.empty() ? at::Device(at::kCPU) : once.front().device();
  auto dtype = at::kFloat;
  bool some = false;
  for (const at::Tensor& parameter : once) {
    const at::Tensor& gradient = parameter.grad();
    const bool sharded = detail::distributed::ShardMark::of(parameter) != nullptr;
    const auto& decides = sharded || !gradient.defined() ? parameter : gradient;
    const bool has = gradient.defined() && gradient.numel() != 0;
    if (has && !some) device = gradient.device();
    some = some || has;
    const auto real = c10::toRealValueType(decides.scalar_type());
    if ((has || sharded) && real == at::kDouble) dtype = at::kDouble;
  }
  if (!some && ranks == nullptr) {
    return at::zeros({}, at::TensorOptions().dtype(dtype).device(device));
  }

  const auto total = detail::gradient_norm(once, norm_type, ranks, device);
  if (error_if_nonfinite) {
    const double value = total.item<double>();
    TORCH_CHECK(std::isfinite(value), kWho, ": expected a finite norm of order ", norm_type,
                " of the gradients, got ", value,
                "; nothing was changed. Without error_if_nonfinite they are scaled anyway");
  }
  if (std::isinf(max_norm)) return total.to(dtype);

  const auto factor = (max_norm / (total + 1e-6)).clamp_max(1.0);
  detail::parameters::own_gradients_(once);
  std::vector<at::Tensor> scaled;
  for (const at::Tensor& parameter : once) {
    if (!parameter.grad().defined() || parameter.grad().numel() == 0) continue;
    const auto values = detail::parameters::values_of(parameter.grad());
    if (values.numel() != 0) scaled.push_back(values);
  }
  for (const auto& list : detail::parameters::by_device_and_dtype(scaled)) {
    const auto chosen = detail::parameters::pick(scaled, list);
    const auto& first = chosen.front();
    at::_foreach_mul_(chosen, detail::parameters::to_device(factor, first.device(),
                                                            sphere::accumulation_dtype(first)));
  }
  return total.to(dtype);
}

/// The same for one parameter.
inline at::Tensor clip_grad_norm_(const at::Tensor& parameter, double max_norm,
                                  double norm_type = 2.0, bool error_if_nonfinite = false) {
  return clip_grad_norm_(std::vector<at::Tensor>{parameter}, max_norm, norm_type,
                         error_if_nonfinite);
}

}  // namespace lawn
