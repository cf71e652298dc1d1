// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/ArrayRef.h>

#include <lawn/sphere/aten.h>
#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/stages.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>

/// The functions of `sphere.h` in two halves, for spheres of which a process holds a part: the sums
/// over what it holds, and what follows from the sums over all. On the CPU by lawn's own loops,
/// with the same bits for any number of threads; elsewhere by ATen, a layer at a time.
namespace lawn::sphere {

namespace detail {

/// Flat layers on the CPU, and where in the list each stands.
struct OnCpu {
  std::vector<Flat> layers;
  std::vector<std::size_t> index;

  std::size_t index_of(const Flat& layer) const {
    return index[static_cast<std::size_t>(&layer - layers.data())];
  }
};

/// Takes the layers that lawn's own loops can do, and calls `slow(index)` for each of the others.
template <class Slow>
OnCpu on_cpu(c10::ArrayRef<Layer> layers, const Slow& slow) {
  OnCpu taken;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].weight.is_cpu() || !is_flat(layers[i])) {
      slow(i);
      continue;
    }
    taken.layers.push_back(flatten(layers[i]));
    taken.index.push_back(i);
  }
  return taken;
}

/// The sums of one sphere out of `inner_products`' tensor.
inline cpu::Sums sums_of(const at::Tensor& sums, std::int64_t sphere) {
  const auto* values = static_cast<const double*>(sums.const_data_ptr());
  return {values[sphere * sums.stride(1)], values[sums.stride(0) + sphere * sums.stride(1)]};
}

}  // namespace detail

/// Sums over each sphere.
///   s_0 = <g, w>     0 without a gradient
///   s_1 = <w, w>
/// @return one tensor per layer, float64 [2, spheres], on its device
/// @note   does not wait for the device
inline std::vector<at::Tensor> inner_products(c10::ArrayRef<Layer> layers) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> sums;
  sums.reserve(layers.size());
  for (const Layer& layer : layers) {
    const std::int64_t spheres =
        layer.unit_dim == kWholeTensor ? 1 : layer.weight.size(layer.unit_dim);
    sums.push_back(
        at::zeros({2, spheres}, at::TensorOptions(layer.weight.device()).dtype(at::kDouble)));
  }
  const auto taken = detail::on_cpu(layers, [&](std::size_t i) {
    const Layer& layer = layers[i];
    const auto dtype = accumulation_dtype(layer.weight);
    const auto weight = layer.weight.to(dtype);
    const auto add = [&](std::int64_t row, const at::Tensor& other) {
      sums[i][row].copy_(
          aten::detail::inner_product(other, weight, layer.unit_dim, at::kDouble).reshape({-1}));
    };
    if (layer.gradient.defined()) add(0, layer.gradient.to(dtype));
    add(1, weight);
  });
  cpu::for_each_sphere(
      taken.layers,
      [](const Flat& layer, std::int64_t sphere, std::int64_t begin, std::int64_t end,
         const cpu::Sums& before) {
        return layer.gradient == nullptr ? cpu::sum_of_squares(layer, sphere, begin, end, before)
                                         : cpu::inner_products(layer, sphere, begin, end, before);
      },
      [&](const Flat& layer, std::int64_t sphere, std::int64_t begin, std::int64_t /*end*/,
          const cpu::Sums& total) {
        if (begin != sphere * layer.sphere_numel) return cpu::Sums();  // another part writes them
        auto* values = static_cast<double*>(sums[taken.index_of(layer)].data_ptr());
        values[sphere] = total.gw;
        values[layer.spheres + sphere] = total.ww;
        return cpu::Sums();
      });
  return sums;
}

/// g <- g - (s_0 / s_1 + weight_decay) w, as `project_to_tangent_`, by sums that are given.
/// @param sums  of `inner_products`, one for each layer, over all parts
inline void project_to_tangent_(c10::ArrayRef<Layer> layers, c10::ArrayRef<at::Tensor> sums) {
  const at::NoGradGuard no_grad;
  const auto taken = detail::on_cpu(layers, [&](std::size_t i) {
    aten::project_to_tangent_(layers[i], aten::detail::over_units(sums[i][0], layers[i]),
                              aten::detail::over_units(sums[i][1], layers[i]));
  });
  cpu::for_each_sphere(taken.layers, [&](const Flat& layer, std::int64_t sphere, std::int64_t begin,
                                         std::int64_t end, const cpu::Sums& /*before*/) {
    return cpu::subtract_multiple(layer, sphere, begin, end,
                                  detail::sums_of(sums[taken.index_of(layer)], sphere));
  });
  for (const std::size_t i : taken.index) bump_version(layers[i].gradient);
}

/// w <- R w / sqrt(s_1), as `rescale_`, by sums that are given.
/// @param sums  of `inner_products`, one for each layer, over all parts
inline void rescale_(c10::ArrayRef<Layer> layers, c10::ArrayRef<at::Tensor> sums) {
  const at::NoGradGuard no_grad;
  const auto taken = detail::on_cpu(layers, [&](std::size_t i) {
    aten::rescale_(layers[i], aten::detail::over_units(sums[i][1], layers[i]));
  });
  cpu::for_each_sphere(taken.layers, [&](const Flat& layer, std::int64_t sphere, std::int64_t begin,
                                         std::int64_t end, const cpu::Sums& /*before*/) {
    return cpu::scale_to_radius(layer, sphere, begin, end,
                                detail::sums_of(sums[taken.index_of(layer)], sphere));
  });
  for (const std::size_t i : taken.index) bump_version(layers[i].weight);
}

}  // namespace lawn::sphere
