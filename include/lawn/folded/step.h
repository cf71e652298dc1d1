// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/sphere/flat.h>

/// A base optimizer's step that includes LAWN's projection and rescaling: three passes over memory
/// instead of five. Free of torch, so that device code can include it.
///
/// For each sphere
///   c  = <g, w> / <w, w>, 0 where that is not finite     (pass 1)
///   g' = g - c w;  w <- the optimizer's update by g'     (pass 2, which also sums ||w||^2)
///   w <- R w / ||w||, unless that is not finite or 0     (pass 3)
/// For a free sphere (radius 0), g' = g + weight_decay w, and there is no pass 3. The gradient
/// stays as it is. Up to rounding, the result is that of sphere::project_to_tangent_, the
/// optimizer's own step and sphere::rescale_.
namespace lawn::detail::folded {

/// A layer and the optimizer's state for it, in the weight's dtype and memory order. `weight_decay`
/// is the base optimizer's coupled one. The gradient, in the weight's dtype, and the radius must be
/// present.
struct FlatLayer : sphere::Flat {
  /// Adam's first moment, or SGD's momentum; null if SGD has none.
  void* first_moment = nullptr;
  /// Adam's second moment.
  void* second_moment = nullptr;
};

/// m <- beta1 m + (1 - beta1) g';  v <- beta2 v + (1 - beta2) g'^2
/// w <- decay w - step_size m / (sqrt(v) / bias_correction2_sqrt + eps)
struct Adam {
  double beta1;
  double beta2;
  double eps;
  double step_size;              ///< lr / (1 - beta1^t)
  double bias_correction2_sqrt;  ///< sqrt(1 - beta2^t)
  double decay;                  ///< 1 - lr weight_decay for AdamW, else 1
};

/// m <- momentum m + (1 - dampening) g', or g' in the first step;
/// w <- w - lr (g' + momentum m if nesterov, else m; g' where there is no momentum)
struct SGD {
  double lr;
  double momentum;  ///< if 0, layers have no first moment
  double dampening;
  bool nesterov;
  bool first;
};

/// The numbers of a step that differ from replay to replay of a CUDA graph, in memory of the
/// layers' device.
struct OnDevice {
  const double* lr = nullptr;
  /// Adam's t, including this step; null for SGD.
  const float* step_count = nullptr;
  /// {number of LAWN's steps before this one, number of steps before the switch}. If both are
  /// equal, the step first takes R = radius_scale ||w||, or 0 if that cannot be a radius
  /// (`sphere::usable_radii`); the layers must then have memory for the radii. If null, no step
  /// takes radii.
  const std::int64_t* clock = nullptr;
  /// Factor from norms to radii; a number of the host, the same in every replay.
  double radius_scale = 1;
};

/// Number of bytes before a workspace for the numbers that a kernel computes from `OnDevice`; keeps
/// the workspace aligned.
constexpr std::int64_t kPreparedBytes = 128;

/// `Adam` with its numbers on the device.
struct DeviceAdam {
  double beta1;
  double beta2;
  double eps;
  double decoupled_decay;  ///< weight_decay for AdamW, else 0
  OnDevice at;
};

/// `SGD` with its numbers on the device.
struct DeviceSGD {
  double momentum;
  double dampening;
  bool nesterov;
  bool first;
  OnDevice at;
};

}  // namespace lawn::detail::folded
