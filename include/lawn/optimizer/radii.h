// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/isfinite.h>
#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>
#include <c10/util/accumulate.h>
#include <torch/serialize/input-archive.h>

#include <lawn/archive/checked_read.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/spheres.h>

/// Which numbers can be radii.
namespace lawn::detail::optimizer {

/// `value` as a tensor of `dtype` holds it.
inline double rounded_to(at::ScalarType dtype, double value) {
  const auto narrow = static_cast<float>(value);
  switch (dtype) {
    case at::kDouble:
      return value;
    case at::kHalf:
      return static_cast<float>(c10::Half(narrow));
    case at::kBFloat16:
      return static_cast<float>(c10::BFloat16(narrow));
    default:
      return narrow;
  }
}

/// A radius of a sphere of `weight`, as the tensors would hold it.
struct KeptRadius {
  double radius;   ///< in the type in which radii are kept
  double element;  ///< size of an element, if all are equal, in the weight's type

  KeptRadius(const at::Tensor& weight, double value, double sphere_numel)
      : radius(rounded_to(sphere::accumulation_dtype(weight), value)),
        element(rounded_to(weight.scalar_type(), value / std::sqrt(std::max(sphere_numel, 1.0)))) {}

  bool usable() const {
    return std::isfinite(radius) && radius > 0 && std::isfinite(element) && element > 0;
  }
};

/// Number of elements of each sphere of `layer`.
inline double sphere_numel(const Spheres& spheres, const sphere::Layer& layer) {
  const int64_t numel = c10::multiply_integers(spheres.whole_shape(layer.weight));
  const int64_t units = c10::multiply_integers(spheres.radius_shape(layer));
  return static_cast<double>(numel) / static_cast<double>(std::max<int64_t>(units, 1));
}

/// @param radii  `LAWNOptions::radii`
/// @param names  names of the layers
/// @throws c10::Error unless there is one radius for each layer, > 0 and finite in the type in
///         which radii are kept, and the weight's type can hold the elements of such spheres
inline void check_given_radii(const char* who, const std::vector<double>& radii,
                              const std::vector<std::string>& names,
                              const std::vector<sphere::Layer>& layers, const Spheres& spheres) {
  TORCH_CHECK(radii.size() == layers.size(), who, ": expected one of radii for each of ",
              layers.size(), " constrained tensors, got ", radii.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const at::Tensor& weight = layers[i].weight;
    const double of_sphere = sphere_numel(spheres, layers[i]);
    const KeptRadius kept(weight, radii[i], of_sphere);
    TORCH_CHECK(kept.usable(), who,
                ": radii must be > 0 and finite in the type of the weight, got ", radii[i], " for ",
                names[i], " of type ", weight.scalar_type(), ", in which it is ", kept.radius,
                " and each of its ", of_sphere, " elements ", kept.element);
  }
}

/// @param norms         norms of the spheres of `weight`, which has elements
/// @param sphere_numel  number of elements of each of its spheres
/// @param scale         `LAWNOptions::radius_scale`
/// @param when          when the norms were taken, for the message: "at the switch"
/// @throws c10::Error for a norm that is not finite or not > 0, or for which the norm times a scale
///         other than 1 cannot be a radius. Waits for the device
inline void check_norms(const char* who, const at::Tensor& norms, const at::Tensor& weight,
                        double sphere_numel, double scale, const std::string& name,
                        const char* when) {
  const auto host = norms.to(at::kCPU, at::kDouble).reshape({-1});
  for (int64_t unit = 0; unit < host.numel(); ++unit) {
    const double norm = host.data_ptr<double>()[unit];
    const auto where = norms.dim() == 0 ? std::string() : " in output unit " + std::to_string(unit);
    TORCH_CHECK(std::isfinite(norm) && norm > 0, who, ": expected ", name,
                " to have a finite norm > 0 ", when, ", got ", norm, where,
                "; initialise it otherwise, leave it out of the selection, or use ",
                "LAWNOptions().zero_norm(ZeroNorm::kLeaveFree)");
    if (scale == 1) continue;
    const KeptRadius kept(weight, scale * norm, sphere_numel);
    TORCH_CHECK(kept.usable(), who,
                ": expected radius_scale times a norm to be > 0 and finite in the type of the ",
                "weight ", when, ", got ", scale, " times ", norm, " for ", name, where,
                " of type ", weight.scalar_type(), ", in which it is ", kept.radius,
                " and each of its ", sphere_numel, " elements ", kept.element,
                "; choose a scale nearer to 1, or use ",
                "LAWNOptions().zero_norm(ZeroNorm::kLeaveFree)");
  }
}

/// Reads the radius of a weight, of which there is none in the free phase of `Radius::kAtSwitch`.
/// @param needed  whether there must be one
/// @return the radius in the dtype in which it was saved, or an undefined tensor
/// @throws c10::Error for a radius of another shape, and for one that is not finite or negative
/// @note   waits for the device if the archive was read onto one
inline at::Tensor read_radius(const char* who, torch::serialize::InputArchive& archive,
                              const std::string& key, const std::string& name,
                              at::IntArrayRef shape, bool needed) {
  c10::IValue value;
  if (!archive.try_read(key, value)) {
    TORCH_CHECK(!needed, who, ": the checkpoint of a constrained phase lacks the radius of ", name,
                "; nothing was changed");
    return {};
  }
  TORCH_CHECK(value.isTensor(), who, ": expected the radius of ", name, " to be a tensor, got ",
              value.tagKind(), "; nothing was changed");
  at::Tensor radius = value.toTensor();
  archive::check_storage(who, "the radius of " + name, radius);
  TORCH_CHECK(radius.sizes() == shape, who, ": expected the radius of ", name, " to have shape ",
              shape, ", got ", radius.sizes(),
              ": the checkpoint was written with another granularity; nothing was changed");
  TORCH_CHECK(at::isFloatingType(radius.scalar_type()), who, ": expected the radius of ", name,
              " to be of floating point, got ", radius.scalar_type(), "; nothing was changed");
  const at::Tensor usable = radius.ge(0).logical_and_(radius.isfinite()).all();
  TORCH_CHECK(usable.item<bool>(), who, ": expected the radius of ", name,
              " to be finite and >= 0, got a checkpoint with another; nothing was changed");
  return radius;
}

}  // namespace lawn::detail::optimizer
