// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/sphere/flat.h>

/// A base optimizer's step with LAWN's projection and rescaling inside: three passes over memory
/// instead of five. Free of torch, so that device code can include it.
///
/// For each sphere
///   c  = <g, w> / <w, w>, 0 where that is not finite     (pass 1)
///   g' = g - c w;  w <- the optimizer's update by g'     (pass 2, which also sums ||w||^2)
///   w <- R w / ||w||, unless that is not finite or 0     (pass 3)
/// and for a free sphere (radius 0) g' = g + weight_decay w and no pass 3. The gradient stays as it
/// is. Equal to sphere::project_to_tangent_, the optimizer's own step, sphere::rescale_ to
/// rounding.
namespace lawn::detail::folded {

/// A layer and the optimizer's state for it, of the weight's dtype and in its order of memory. Its
/// `weight_decay` is the base optimizer's coupled one, and its gradient is there and of the
/// weight's dtype; so is its radius.
struct FlatLayer : sphere::Flat {
  /// Adam: first moment. SGD: momentum; null where it has none.
  void* first_moment = nullptr;
  /// Adam: second moment.
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
  double momentum;  ///< 0: layers have no first moment
  double dampening;
  bool nesterov;
  bool first;
};

/// Where a step that may be captured in a CUDA graph finds what differs from replay to replay: in
/// memory of the layers' device.
struct OnDevice {
  const double* lr = nullptr;
  /// Adam's t, this step counted; null for SGD.
  const float* step_count = nullptr;
  /// {steps that LAWN did before this one, how many there are before the switch}. Where both are
  /// equal, the step takes R = radius_scale ||w|| before it does anything else, or 0 where that
  /// cannot be a radius (`sphere::usable_radii`): a layer's radii must be there then. Null: no step
  /// does.
  const std::int64_t* clock = nullptr;
  /// The same in every replay: a number of the host.
  double radius_scale = 1;
};

/// Bytes in front of a workspace for the numbers that follow from them. What comes after stays
/// aligned.
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
