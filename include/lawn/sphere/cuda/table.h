// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <lawn/sphere/cuda/call.h>
#include <lawn/sphere/cuda/launch.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/table.h>

/// The host's half of the CUDA table. It compiles in every program; where `launchers` is null,
/// since the program was built without nvcc, it takes no layer and ATen does the work.
namespace lawn::sphere::cuda {

namespace detail {

using Launch = const char* (*)(const Flat*, std::int64_t, void*, void*);

/// Launches `function` once for each device, with the layers that lie there.
inline void launch(Launch Launchers::*function, c10::ArrayRef<Layer> layers) {
  std::vector<at::Device> devices;
  for (const Layer& layer : layers) {
    const auto device = layer.weight.device();
    if (std::find(devices.begin(), devices.end(), device) == devices.end()) {
      devices.push_back(device);
    }
  }
  for (const auto device : devices) {
    std::vector<Flat> flat;
    for (const Layer& layer : layers) {
      if (layer.weight.device() == device) flat.push_back(flatten(layer));
    }
    const auto count = static_cast<std::int64_t>(flat.size());
    call(device, launchers->workspace_bytes(flat.data(), count),
         [&](void* workspace, void* stream) {
           return (launchers->*function)(flat.data(), count, workspace, stream);
         });
  }
}

inline bool takes(const Layer& layer) {
  if (launchers == nullptr || !is_flat(layer)) return false;
  const auto weight = *flat_dtype(layer.weight.scalar_type());
  const auto gradient =
      layer.gradient.defined() ? *flat_dtype(layer.gradient.scalar_type()) : weight;
  return launchers->takes(weight, gradient);
}

inline void norms(c10::ArrayRef<Layer> layers) { launch(&Launchers::norms, layers); }

inline void project_to_tangent_(c10::ArrayRef<Layer> layers) {
  launch(&Launchers::project_to_tangent, layers);
  for (const Layer& layer : layers) bump_version(layer.gradient);
}

inline void rescale_(c10::ArrayRef<Layer> layers) {
  launch(&Launchers::rescale, layers);
  for (const Layer& layer : layers) bump_version(layer.weight);
}

}  // namespace detail

inline constexpr Table kTable{detail::takes, detail::norms, detail::project_to_tangent_,
                              detail::rescale_};

}  // namespace lawn::sphere::cuda
