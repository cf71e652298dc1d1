// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <lawn/decorator/base_optimizer.h>
#include <lawn/options.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/spheres.h>

namespace lawn::detail::optimizer {

/// Projects an optimizer's first moments onto the tangent spaces of the layers' spheres:
///   m <- m - (<m,w>/<w,w>) w
/// Each turn projects the first moment of every layer, then the second, and so on. The list always
/// holds every layer, even one without moments, since another process may hold a part of them.
inline void project_first_moments_(const torch::optim::Optimizer& optimizer,
                                   const LAWNOptions& options, std::vector<sphere::Layer> layers,
                                   Spheres& spheres) {
  std::vector<std::vector<at::Tensor>> moments;  // of each layer
  for (auto& layer : layers) {
    layer.weight_decay = 0;
    moments.emplace_back();
    const auto found = optimizer.state().find(layer.weight.unsafeGetTensorImpl());
    if (found == optimizer.state().end()) continue;
    moments.back() =
        options.first_moments()
            ? options.first_moments()(*found->second)
            : decorator::first_moments(*found->second).value_or(std::vector<at::Tensor>());
  }
  for (std::size_t turn = 0;; ++turn) {
    bool some = false;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const bool has = turn < moments[i].size() && moments[i][turn].defined();
      // LAMB and LARS bring a moved model's moments over in their step, which is still to come.
      layers[i].gradient = has ? moments[i][turn].to(layers[i].weight.device()) : at::Tensor();
      some = some || has;
    }
    if (!spheres.anywhere(some)) return;
    spheres.project_to_tangent_(layers);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const at::Tensor& projected = layers[i].gradient;
      if (projected.defined() && !projected.is_same(moments[i][turn])) {
        moments[i][turn].copy_(projected);
      }
    }
  }
}

}  // namespace lawn::detail::optimizer
