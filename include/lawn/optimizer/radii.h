// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>
#include <c10/util/accumulate.h>

#include <lawn/sphere/layer.h>
#include <lawn/sphere/spheres.h>

/// Which numbers can be radii.
namespace lawn::detail::optimizer {

/// `value` as it is after it was kept in a tensor of `dtype`.
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

/// @param radii  `LAWNOptions::radii`
/// @param names  of the layers
/// @throws c10::Error unless there is one for each layer, > 0 and finite in the type in which radii
///         are kept, of spheres whose elements the type of the weight can hold
inline void check_given_radii(const char* who, const std::vector<double>& radii,
                              const std::vector<std::string>& names,
                              const std::vector<sphere::Layer>& layers, const Spheres& spheres) {
  TORCH_CHECK(radii.size() == layers.size(), who, ": expected one of radii for each of ",
              layers.size(), " constrained tensors, got ", radii.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const at::Tensor& weight = layers[i].weight;
    const int64_t numel = c10::multiply_integers(spheres.whole_shape(weight));
    const int64_t units = c10::multiply_integers(spheres.radius_shape(layers[i]));
    const double of_sphere =
        static_cast<double>(numel) / static_cast<double>(std::max<int64_t>(units, 1));
    const double radius = rounded_to(sphere::accumulation_dtype(weight), radii[i]);
    const double element =
        rounded_to(weight.scalar_type(), radii[i] / std::sqrt(std::max(of_sphere, 1.0)));
    TORCH_CHECK(std::isfinite(radius) && radius > 0 && std::isfinite(element) && element > 0, who,
                ": radii must be > 0 and finite in the type of the weight, got ", radii[i], " for ",
                names[i], " of type ", weight.scalar_type(), ", in which it is ", radius,
                " and each of its ", of_sphere, " elements ", element);
  }
}

/// @param norms  of a layer that has elements
/// @param when   the norms were taken: "at the switch"
/// @throws c10::Error for a norm that is not finite or not > 0. Waits for the device
inline void check_norms(const char* who, const at::Tensor& norms, const std::string& name,
                        const char* when) {
  const auto host = norms.to(at::kCPU, at::kDouble).reshape({-1});
  for (int64_t unit = 0; unit < host.numel(); ++unit) {
    const double norm = host.data_ptr<double>()[unit];
    TORCH_CHECK(std::isfinite(norm) && norm > 0, who, ": expected ", name,
                " to have a finite norm > 0 ", when, ", got ", norm,
                norms.dim() == 0 ? std::string() : " in output unit " + std::to_string(unit),
                "; initialise it otherwise, leave it out of the selection, or use ",
                "LAWNOptions().zero_norm(ZeroNorm::kLeaveFree)");
  }
}

}  // namespace lawn::detail::optimizer
