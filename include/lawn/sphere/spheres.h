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
  /// <g, w> and <g, g> over the whole layer; 0 without a dense gradient.
  double gw = 0;
  /// <g, g> over the whole layer.
  double gg = 0;
};

/// Where LAWN has its sums over spheres taken. This class is for weights that lie in this process
/// as a whole; `lawn::ShardedSpheres` (lawn/distributed/sharded_spheres.h) is for weights of which
/// each rank holds a part, and whoever holds weights in another way can derive one.
///
/// The functions take lists of layers, as those of `lawn::sphere` do, and promise the same.
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
  /// @param text  lines that must be the same wherever a part of the weights lies
  virtual void check_agreement(const std::string& text) { (void)text; }

  /// Called at the beginning of each step, before the others.
  /// @param step  its number, from 0
  virtual void begin_step(int64_t step) { (void)step; }

  /// Whether something holds wherever a part of the weights lies, or only here.
  virtual bool anywhere(bool here) { return here; }

  /// As `sphere::norms`.
  virtual std::vector<at::Tensor> norms(c10::ArrayRef<sphere::Layer> layers) {
    return sphere::norms(layers);
  }
  /// As `sphere::project_to_tangent_`.
  virtual void project_to_tangent_(c10::ArrayRef<sphere::Layer> layers) {
    sphere::project_to_tangent_(layers);
  }
  /// As `sphere::rescale_`.
  virtual void rescale_(c10::ArrayRef<sphere::Layer> layers) { sphere::rescale_(layers); }

  /// For `LAWN::report()`. Waits for the device.
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
