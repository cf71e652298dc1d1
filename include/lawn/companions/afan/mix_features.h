// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/layer.h>

namespace lawn {

/// Over which elements of `[batch, channels, ...]` features `mix_features` takes mean and
/// deviation.
enum class FeatureStatistics {
  kOverChannels,  ///< at each position: as A-FAN's public code does
  kOverSpace,     ///< of each channel, over the positions: as its abstract says
};

namespace detail::afan {

/// The dimensions over which `statistics` are taken.
inline std::vector<int64_t> statistics_dims(const at::Tensor& features,
                                            FeatureStatistics statistics) {
  if (statistics == FeatureStatistics::kOverChannels) return {1};
  std::vector<int64_t> dims;
  for (int64_t dim = 2; dim < features.dim(); ++dim) dims.push_back(dim);
  return dims;
}

/// Where a deviation is not 0. The computed variance does not tell: the mean of equal numbers may
/// be rounded away from them.
inline at::Tensor varies(const at::Tensor& features, const at::Tensor& variance,
                         at::IntArrayRef dims) {
  const auto most = at::amax(features, dims, /*keepdim=*/true);
  const auto least = at::amin(features, dims, /*keepdim=*/true);
  return (most > least).logical_and(variance > 0);
}

}  // namespace detail::afan

/// Gives clean features the mean and the deviation of perturbed ones.
///   (f - mu(f)) / sigma(f) sigma(f') + mu(f')
/// Deviations are population deviations (divisor n). Features that are constant over the elements
/// of a statistic become mu(f'). Hence mix(f, f) = f.
/// @param clean      f: `[batch, channels, ...]`, floating point; computed in float32 for half and
///                   bfloat16
/// @param perturbed  f', of the same shape, dtype and device
/// @param statistics  over which dimensions mean and deviation are taken
/// @return the same shape and dtype; differentiable in both
/// @throws c10::Error if the shapes do not fit, and for statistics over space of features without
///         positions
/// @note   does not wait for the device
/// @source Chen et al. 2021, arXiv 2103.12171
inline at::Tensor mix_features(const at::Tensor& clean, const at::Tensor& perturbed,
                               FeatureStatistics statistics = FeatureStatistics::kOverChannels) {
  TORCH_CHECK(clean.is_floating_point(), "lawn::mix_features: expected features of floating ",
              "point, got ", clean.scalar_type());
  TORCH_CHECK(clean.sizes() == perturbed.sizes() && clean.scalar_type() == perturbed.scalar_type(),
              "lawn::mix_features: expected clean and perturbed features of one shape and dtype, ",
              "got ", clean.scalar_type(), " ", clean.sizes(), " and ", perturbed.scalar_type(),
              " ", perturbed.sizes());
  TORCH_CHECK(
      clean.dim() >= (statistics == FeatureStatistics::kOverSpace ? 3 : 2),
      "lawn::mix_features: expected features of shape [batch, channels",
      statistics == FeatureStatistics::kOverSpace ? ", positions...], or kOverChannels" : "]",
      ", got ", clean.sizes());
  if (clean.numel() == 0) return clean + perturbed;  // of no element, in the graphs of both
  const auto dims = detail::afan::statistics_dims(clean, statistics);
  const auto dtype = sphere::accumulation_dtype(clean);
  const auto f = clean.to(dtype);
  const auto target = perturbed.to(dtype);
  const auto difference = f - f.mean(dims, /*keepdim=*/true);
  const auto variance = difference.square().mean(dims, /*keepdim=*/true);
  // Not sqrt(0), whose derivative is infinite, nor a division by it.
  const auto varies = detail::afan::varies(f, variance, dims);
  const auto sigma = at::where(varies, variance, 1.0).sqrt();
  const auto normalised = at::where(varies, difference / sigma, at::zeros_like(difference));
  const auto mean = target.mean(dims, /*keepdim=*/true);
  const auto target_variance = (target - mean).square().mean(dims, /*keepdim=*/true);
  const auto target_varies = detail::afan::varies(target, target_variance, dims);
  const auto target_sigma =
      at::where(target_varies, at::where(target_varies, target_variance, 1.0).sqrt(),
                at::zeros_like(target_variance));
  return (normalised * target_sigma + mean).to(clean.scalar_type());
}

}  // namespace lawn
