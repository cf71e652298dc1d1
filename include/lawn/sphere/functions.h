// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceType.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/aten.h>
#include <lawn/sphere/cpu/table.h>
#include <lawn/sphere/cuda/table.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/table.h>

namespace lawn::sphere {

/// The table of `device`: the registered one, else lawn's own, or null if ATen does the work.
inline const Table* table_of(c10::DeviceType device) {
  const Table* registered = detail::registered_tables()[static_cast<std::size_t>(device)];
  if (registered != nullptr) return registered;
  if (device == c10::DeviceType::CPU) return &cpu::kTable;
  if (device == c10::DeviceType::CUDA) return &cuda::kTable;
  return nullptr;
}

namespace detail {

/// The table that takes `layer`, or null if ATen does.
inline const Table* taker(const Layer& layer) {
  const Table* table = table_of(layer.weight.device().type());
  return table != nullptr && table->takes(layer) ? table : nullptr;
}

/// Calls `fast(table, layers)` for each table with the layers that it takes, `slow(layer)` for the
/// others. In the usual case one table takes all layers, and nothing is copied.
template <class Fast, class Slow>
void dispatch(c10::ArrayRef<Layer> layers, const Fast& fast, const Slow& slow) {
  if (layers.empty()) return;
  const at::NoGradGuard no_grad;
  const Table* first = taker(layers.front());
  const bool one_table = std::all_of(layers.begin(), layers.end(),
                                     [&](const Layer& layer) { return taker(layer) == first; });
  if (one_table) {
    if (first != nullptr) {
      fast(*first, layers);
    } else {
      std::for_each(layers.begin(), layers.end(), slow);
    }
    return;
  }
  std::vector<const Table*> tables;
  for (const Layer& layer : layers) {
    const Table* table = taker(layer);
    if (table == nullptr) {
      slow(layer);
    } else if (std::find(tables.begin(), tables.end(), table) == tables.end()) {
      tables.push_back(table);
    }
  }
  for (const Table* table : tables) {
    std::vector<Layer> taken;
    std::copy_if(layers.begin(), layers.end(), std::back_inserter(taken),
                 [&](const Layer& layer) { return taker(layer) == table; });
    fast(*table, taken);
  }
}

}  // namespace detail

/// Norms of the spheres of each layer.
///   n = ||w||, over the whole tensor or over each output unit
/// @return one tensor per layer, `[]` or `[units]`, in `accumulation_dtype(weight)`, on its device
/// @note   does not wait for the device
inline std::vector<at::Tensor> norms(c10::ArrayRef<Layer> layers) {
  std::vector<at::Tensor> result;
  result.reserve(layers.size());
  std::vector<Layer> into;  // `radius` carries the place of the result through the dispatch
  for (const Layer& layer : layers) {
    const auto options = layer.weight.options()
                             .dtype(accumulation_dtype(layer.weight))
                             .layout(at::kStrided)
                             .requires_grad(false);
    result.push_back(at::empty(radius_shape(layer), options));
    into.push_back({layer.weight, {}, result.back(), layer.unit_dim, 0});
  }
  detail::dispatch(
      into, [](const Table& table, c10::ArrayRef<Layer> taken) { table.norms(taken); },
      [](const Layer& layer) { layer.radius.copy_(aten::norm(layer)); });
  return result;
}

/// Removes from each gradient the part that would change a norm, and subtracts what the base
/// optimizer's coupled weight decay will add.
///   g <- g - (<g,w> / <w,w> + weight_decay) w
/// @param layers  the gradients are changed in place; a layer without one is skipped. On a free
///                sphere (radius 0) nothing changes; a quotient that is not finite counts as 0
/// @note    does not wait for the device
/// @source  Gupta et al. 2021, arXiv 2108.05839; Absil et al. 2008, eq. 3.36
inline void project_to_tangent_(c10::ArrayRef<Layer> layers) {
  detail::dispatch(
      layers,
      [](const Table& table, c10::ArrayRef<Layer> taken) { table.project_to_tangent_(taken); },
      [](const Layer& layer) { aten::project_to_tangent_(layer); });
}

/// Brings each weight back to its sphere.
///   w <- R w / ||w||
/// @param layers  each with a radius; the weights are changed in place. A sphere stays as it is if
///                it is free, or if its norm is zero or not finite
/// @note    does not wait for the device
/// @source  Gupta et al. 2021, arXiv 2108.05839
inline void rescale_(c10::ArrayRef<Layer> layers) {
  detail::dispatch(
      layers, [](const Table& table, c10::ArrayRef<Layer> taken) { table.rescale_(taken); },
      [](const Layer& layer) { aten::rescale_(layer); });
}

}  // namespace lawn::sphere
