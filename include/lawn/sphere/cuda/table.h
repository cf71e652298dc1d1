// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <lawn/sphere/cuda/by_device.h>
#include <lawn/sphere/cuda/call.h>
#include <lawn/sphere/cuda/entries.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/table.h>

/// The host's half of the CUDA table. It compiles in every program. If there are no kernels,
/// because the program was built without nvcc or for other GPUs, it takes no layer, and ATen does
/// the work.
namespace lawn::sphere::cuda {

namespace detail {

/// Calls `entry` once for each device, with the layers that lie there.
inline void launch(LayersEntry entry, c10::ArrayRef<Layer> layers) {
  ByDevice<Flat> all;
  for (const Layer& layer : layers) all.add(layer.weight.device(), flatten(layer));
  all.for_each(
      [&](at::Device device, const std::vector<Flat>& flat) { call(device, entry, flat); });
}

inline bool takes(const Layer& layer) {
  if (!has_kernels(layer.weight.device()) || !is_flat(layer)) return false;
  const auto weight = *flat_dtype(layer.weight.scalar_type());
  const auto gradient =
      layer.gradient.defined() ? *flat_dtype(layer.gradient.scalar_type()) : weight;
  return entries->takes(weight, gradient);
}

inline void norms(c10::ArrayRef<Layer> layers) { launch(entries->norms, layers); }

inline void project_to_tangent_(c10::ArrayRef<Layer> layers) {
  launch(entries->project_to_tangent, layers);
  for (const Layer& layer : layers) bump_version(layer.gradient);
}

inline void rescale_(c10::ArrayRef<Layer> layers) {
  launch(entries->rescale, layers);
  for (const Layer& layer : layers) bump_version(layer.weight);
}

}  // namespace detail

inline constexpr Table kTable{detail::takes, detail::norms, detail::project_to_tangent_,
                              detail::rescale_};

}  // namespace lawn::sphere::cuda
