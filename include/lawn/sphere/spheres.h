// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/ArrayRef.h>

#include <lawn/sphere/aten.h>
#include <lawn/sphere/functions.h>
#include <lawn/sphere/layer.h>

namespace lawn {

/// Sums over one layer for a report, in float64.
struct LayerSums {
  /// Norm of each sphere: `[]` or `[units]`.
  at::Tensor norms;
  /// <g, w> over the whole layer; 0 without a dense gradient.
  double gw = 0;
  /// <g, g> over the whole layer; 0 without a dense gradient.
  double gg = 0;
};

/// Takes LAWN's sums over spheres. This class is for weights that lie in this process as a whole;
/// `lawn::ShardedSpheres` (lawn/distributed/sharded_spheres.h) is for weights of which each rank
/// holds a part. Derive your own class if you hold weights in another way.
///
/// The functions take lists of layers, like those of `lawn::sphere`, and give the same guarantees.
class Spheres {
 public:
  Spheres() = default;
  Spheres(const Spheres&) = delete;
  Spheres& operator=(const Spheres&) = delete;
  Spheres(Spheres&&) = delete;
  Spheres& operator=(Spheres&&) = delete;
  virtual ~Spheres() = default;

  /// Whether every sphere lies in this process as a whole, so that an optimizer may fold projection
  /// and rescaling into its own step, and a step may be captured.
  virtual bool local() const { return true; }

  /// The shape of the whole of which `weight` is a part; `Layer::unit_dim` is a dimension of it.
  virtual at::IntArrayRef whole_shape(const at::Tensor& weight) const { return weight.sizes(); }

  /// Called once, when the optimizer is wrapped.
  /// @param text  lines that must be the same in every process that holds a part of the weights
  virtual void check_agreement(const std::string& text) { (void)text; }

  /// Called at the beginning of each step, before the other functions.
  /// @param step  number of the step, from 0
  virtual void begin_step(int64_t step) { (void)step; }

  /// Whether `here` is true in any process that holds a part of the weights.
  virtual bool anywhere(bool here) { return here; }

  /// Does what `sphere::norms` does.
  virtual std::vector<at::Tensor> norms(c10::ArrayRef<sphere::Layer> layers) {
    return sphere::norms(layers);
  }
  /// Does what `sphere::project_to_tangent_` does.
  virtual void project_to_tangent_(c10::ArrayRef<sphere::Layer> layers) {
    sphere::project_to_tangent_(layers);
  }
  /// Does what `sphere::rescale_` does.
  virtual void rescale_(c10::ArrayRef<sphere::Layer> layers) { sphere::rescale_(layers); }

  /// Takes the sums for `LAWN::report()`. Waits for the device.
  virtual std::vector<LayerSums> sums(c10::ArrayRef<sphere::Layer> layers) {
    const at::NoGradGuard no_grad;
    std::vector<LayerSums> all;
    for (const sphere::Layer& layer : layers) {
      sphere::Layer wide;
      wide.weight = layer.weight.detach().to(at::kDouble);
      wide.unit_dim = layer.unit_dim;
      LayerSums sums{sphere::aten::norm(wide)};
      if (layer.gradient.defined()) {
        const auto g = layer.gradient.to(at::kDouble);
        sums.gw = (g * wide.weight).sum().item<double>();
        sums.gg = g.square().sum().item<double>();
      }
      all.push_back(std::move(sums));
    }
    return all;
  }

  /// The shape of a layer's norms and radii: `[]`, or `[units]`.
  std::vector<int64_t> radius_shape(const sphere::Layer& layer) const {
    if (layer.unit_dim == sphere::kWholeTensor) return {};
    return {whole_shape(layer.weight)[static_cast<std::size_t>(layer.unit_dim)]};
  }
};

}  // namespace lawn
