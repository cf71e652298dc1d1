// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/ArrayRef.h>

#include <lawn/sphere/aten.h>
#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/stages.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>

/// The functions of `functions.h` in two halves, for spheres of which this process holds a part:
/// sums over this part, and what follows from the sums over all parts. On the CPU lawn's own loops
/// do the work, with the same bits for any number of threads; elsewhere ATen does it, one part at a
/// time.
///
/// Sums are a float64 tensor [2, places] on the parts' device: row 0 has <g, w>, row 1 <w, w>.
namespace lawn::sphere {

/// A run of a layer's elements: `numel` of each of `spheres` spheres that follow one another.
struct Part {
  /// The layer: its weight and gradient are contiguous, and it has one radius for each of the whole
  /// layer's spheres, or none.
  const Layer* layer = nullptr;
  /// Index of the first element.
  int64_t begin = 0;
  /// Number of spheres.
  int64_t spheres = 1;
  /// Number of elements of each of these spheres.
  int64_t numel = 0;
  /// Index of the first one among the layer's spheres, and so among its radii.
  int64_t first_radius = 0;
  /// Index of its first sum in a row of sums.
  int64_t place = 0;
};

namespace aten {

/// A part as a layer of its own, [spheres, numel].
inline Layer layer_of(const Part& part) {
  const auto view = [&](const at::Tensor& whole) {
    return whole.detach()
        .view({-1})
        .narrow(0, part.begin, part.spheres * part.numel)
        .view({part.spheres, part.numel});
  };
  Layer layer;
  layer.weight = view(part.layer->weight);
  if (part.layer->gradient.defined()) layer.gradient = view(part.layer->gradient);
  if (part.layer->radius.defined()) {
    layer.radius = part.layer->radius.view({-1}).narrow(0, part.first_radius, part.spheres);
  }
  layer.unit_dim = 0;
  layer.weight_decay = part.layer->weight_decay;
  return layer;
}

/// A part's sums in a row, shaped to broadcast against the part.
inline at::Tensor sums_of(const Part& part, const at::Tensor& sums, int64_t row) {
  return sums[row].narrow(0, part.place, part.spheres).to(part.layer->weight.device()).unsqueeze(1);
}

inline void add_inner_products(const Part& part, const at::Tensor& sums) {
  const auto layer = layer_of(part);
  const auto dtype = accumulation_dtype(layer.weight);
  const auto weight = layer.weight.to(dtype);
  const auto add = [&](int64_t row, const at::Tensor& other) {
    sums[row]
        .narrow(0, part.place, part.spheres)
        .add_(detail::inner_product(other, weight, 0).view({-1}).to(sums.device(), at::kDouble));
  };
  if (layer.gradient.defined()) add(0, layer.gradient.to(dtype));
  add(1, weight);
}

inline void project_to_tangent_(const Part& part, const at::Tensor& sums) {
  project_to_tangent_(layer_of(part), sums_of(part, sums, 0), sums_of(part, sums, 1));
}

inline void rescale_(const Part& part, const at::Tensor& sums) {
  rescale_(layer_of(part), sums_of(part, sums, 1));
}

}  // namespace aten

namespace detail {

/// A part as lawn's own loops take it.
struct FlatPart : Flat {
  double* gw;  ///< <g, w> of its first sphere
  double* ww;
};

/// @param sums  contiguous in its last dimension
inline FlatPart flatten(const Part& part, const at::Tensor& sums) {
  const Layer& layer = *part.layer;
  const auto at = [](const at::Tensor& tensor, int64_t element) -> void* {
    if (!tensor.defined()) return nullptr;
    return static_cast<char*>(tensor.data_ptr()) + element * tensor.element_size();
  };
  FlatPart flat;
  flat.weight = at(layer.weight, part.begin);
  flat.gradient = at(layer.gradient, part.begin);
  flat.radius = at(layer.radius, part.first_radius);
  flat.spheres = part.spheres;
  flat.sphere_numel = part.numel;
  flat.weight_decay = layer.weight_decay;
  flat.weight_dtype = *flat_dtype(layer.weight.scalar_type());
  flat.gradient_dtype =
      layer.gradient.defined() ? *flat_dtype(layer.gradient.scalar_type()) : flat.weight_dtype;
  flat.gw = sums.mutable_data_ptr<double>() + part.place;
  flat.ww = flat.gw + sums.stride(0);
  return flat;
}

/// Whether lawn's own loops take a layer's parts. Ignores unit_dim, which is a dimension of the
/// whole.
inline bool takes(const Layer& layer) {
  Layer run = layer;
  run.unit_dim = kWholeTensor;
  return layer.weight.is_cpu() && is_flat(run);
}

/// The parts that lawn's own loops take; calls `slow(part, sums)` for the others.
template <class Slow>
std::vector<FlatPart> on_cpu(c10::ArrayRef<Part> parts, const at::Tensor& sums, const Slow& slow) {
  std::vector<FlatPart> flat;
  for (const Part& part : parts) {
    if (sums.is_cpu() && takes(*part.layer)) {
      flat.push_back(flatten(part, sums));
    } else {
      slow(part, sums);
    }
  }
  return flat;
}

}  // namespace detail

/// Adds the parts' sums to `sums`. Several parts may share a place.
/// @param parts  parts of weights and gradients
/// @param sums   changed in place
/// @note   does not wait for the device
inline void add_inner_products(c10::ArrayRef<Part> parts, const at::Tensor& sums) {
  const at::NoGradGuard no_grad;
  const auto flat = detail::on_cpu(parts, sums, aten::add_inner_products);
  // The totals are added one after the other, since several parts may share a place.
  std::vector<cpu::Sums> totals;
  std::vector<std::size_t> first;
  for (const auto& part : flat) {
    first.push_back(totals.size());
    totals.resize(totals.size() + static_cast<std::size_t>(part.spheres));
  }
  cpu::for_each_sphere(
      flat,
      [](const detail::FlatPart& part, int64_t sphere, int64_t begin, int64_t end,
         const cpu::Sums& before) {
        return part.gradient == nullptr ? cpu::sum_of_squares(part, sphere, begin, end, before)
                                        : cpu::inner_products(part, sphere, begin, end, before);
      },
      [&](const detail::FlatPart& part, int64_t sphere, int64_t begin, int64_t /*end*/,
          const cpu::Sums& total) {
        if (begin == sphere * part.sphere_numel) {  // the first of a sphere's chunks writes
          totals[first[static_cast<std::size_t>(&part - flat.data())] +
                 static_cast<std::size_t>(sphere)] = total;
        }
        return cpu::Sums();
      });
  for (std::size_t i = 0; i < flat.size(); ++i) {
    for (int64_t sphere = 0; sphere < flat[i].spheres; ++sphere) {
      const auto& total = totals[first[i] + static_cast<std::size_t>(sphere)];
      flat[i].gw[sphere] += total.gw;
      flat[i].ww[sphere] += total.ww;
    }
  }
}

/// g <- g - (<g, w> / <w, w> + weight_decay) w, like `project_to_tangent_` on whole layers.
/// @param parts  changed in place
/// @param sums   over all parts of each sphere
/// @note   does not wait for the device
inline void project_to_tangent_(c10::ArrayRef<Part> parts, const at::Tensor& sums) {
  const at::NoGradGuard no_grad;
  const auto flat = detail::on_cpu(parts, sums, [](const Part& part, const at::Tensor& all) {
    aten::project_to_tangent_(part, all);
  });
  cpu::for_each_sphere(flat, [](const detail::FlatPart& part, int64_t sphere, int64_t begin,
                                int64_t end, const cpu::Sums& /*before*/) {
    return cpu::subtract_multiple(part, sphere, begin, end, {part.gw[sphere], part.ww[sphere]});
  });
  for (const Part& part : parts) bump_version(part.layer->gradient);
}

/// w <- R w / sqrt(<w, w>), like `rescale_` on whole layers.
/// @param parts  changed in place
/// @param sums   over all parts of each sphere
/// @note   does not wait for the device
inline void rescale_(c10::ArrayRef<Part> parts, const at::Tensor& sums) {
  const at::NoGradGuard no_grad;
  const auto flat = detail::on_cpu(
      parts, sums, [](const Part& part, const at::Tensor& all) { aten::rescale_(part, all); });
  cpu::for_each_sphere(flat, [](const detail::FlatPart& part, int64_t sphere, int64_t begin,
                                int64_t end, const cpu::Sums& /*before*/) {
    return cpu::scale_to_radius(part, sphere, begin, end, {part.gw[sphere], part.ww[sphere]});
  });
  for (const Part& part : parts) bump_version(part.layer->weight);
}

}  // namespace lawn::sphere
