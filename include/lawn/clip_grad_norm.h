// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <lawn/optim/tensor_lists.h>
#include <lawn/sphere/layer.h>

namespace lawn {

namespace detail {

/// The norm of order `norm_type` of each of `values`: one 0-dim tensor each, in the dtype in which
/// sums over it are taken.
inline std::vector<at::Tensor> norms_of_order(const std::vector<at::Tensor>& values,
                                              double norm_type) {
  if (norm_type == 2) return norms(values);
  std::vector<at::Tensor> result(values.size());
  for (const auto& list : by_device_and_dtype(values)) {
    const auto chosen = pick(values, list);
    const auto of_list =
        at::_foreach_norm(chosen, norm_type, sphere::accumulation_dtype(chosen.front()));
    for (std::size_t i = 0; i < list.size(); ++i) result[list[i]] = of_list[i];
  }
  return result;
}

}  // namespace detail

/// Scales the gradients of `parameters`, seen as one vector, so that its norm is at most
/// `max_norm`.
///   g <- min(1, max_norm / (||g|| + 1e-6)) g
/// The same numbers as `torch::nn::utils::clip_grad_norm_`, which waits for the device in every
/// call. Norms of gradients in bfloat16 and half are taken in float32.
/// @param parameters  any devices and dtypes; those without a gradient are passed over
/// @param max_norm    >= 0; infinity: nothing is changed but the norm is returned
/// @param norm_type   order p of the norm, > 0; infinity: the largest absolute value
/// @param error_if_nonfinite  a norm that is not finite is an error: the call then waits for the
///                    device, and throws before anything is changed. Otherwise an infinite norm
///                    makes gradients zero, or NaN where they are not finite, and NaN makes all NaN
/// @return the norm before the clipping, 0-dim, on the device of the first gradient; in float64 if
///         one of the gradients is, else in float32. Zero where there is none
/// @note   does not wait for the device, but for `error_if_nonfinite` and for sparse gradients that
///         are not coalesced
/// @source Pascanu et al. 2013, arXiv 1211.5063, algorithm 1
inline at::Tensor clip_grad_norm_(const std::vector<at::Tensor>& parameters, double max_norm,
                                  double norm_type = 2.0, bool error_if_nonfinite = false) {
  TORCH_CHECK(max_norm >= 0, "lawn::clip_grad_norm_: max_norm must be >= 0, got ", max_norm);
  TORCH_CHECK(norm_type > 0, "lawn::clip_grad_norm_: norm_type must be > 0, got ", norm_type);
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> scaled;    // what is multiplied
  std::vector<at::Tensor> measured;  // what the norm is taken of
  for (const at::Tensor& parameter : parameters) {
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined() || gradient.numel() == 0) continue;
    const bool sparse = gradient.is_sparse();
    // Entries of one index add up, so that the norm needs their sums, and scaling does not.
    const auto values = sparse ? gradient.coalesce()._values() : gradient;
    if (values.numel() == 0) continue;
    measured.push_back(values);
    scaled.push_back(sparse ? gradient._values() : gradient);
  }
  if (measured.empty()) {
    const auto device = parameters.empty() ? at::kCPU : parameters.front().device();
    return at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device));
  }

  auto norms = detail::norms_of_order(measured, norm_type);
  const auto device = norms.front().device();
  auto dtype = norms.front().scalar_type();
  for (const at::Tensor& norm : norms) {
    if (norm.scalar_type() == at::kDouble) dtype = at::kDouble;
  }
  for (at::Tensor& norm : norms) norm = norm.to(device, dtype, /*non_blocking=*/true);
  auto total = at::linalg_vector_norm(at::stack(norms), norm_type);
  if (error_if_nonfinite) {
    const double value = total.item<double>();
    TORCH_CHECK(std::isfinite(value), "lawn::clip_grad_norm_: expected a finite norm of order ",
                norm_type, " of the gradients, got ", value,
                "; nothing was changed. Without error_if_nonfinite they are scaled anyway");
  }

  const auto factor = (max_norm / (total + 1e-6)).clamp_max(1.0);
  for (const auto& list : detail::by_device_and_dtype(scaled)) {
    const auto chosen = detail::pick(scaled, list);
    at::_foreach_mul_(chosen, factor.to(chosen.front().device(), /*non_blocking=*/true));
  }
  return total;
}

/// The same for one parameter.
inline at::Tensor clip_grad_norm_(const at::Tensor& parameter, double max_norm,
                                  double norm_type = 2.0, bool error_if_nonfinite = false) {
  return clip_grad_norm_(std::vector<at::Tensor>{parameter}, max_norm, norm_type,
                         error_if_nonfinite);
}

}  // namespace lawn
