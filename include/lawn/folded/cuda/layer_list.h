// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <lawn/folded/step.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/cuda/tuning.h>

/// Parameters of a folded step's kernels: layers with an optimizer's state, and the step's numbers.
namespace lawn::detail::folded::cuda {

/// A launch's layers. Kernels that need no state take only the base.
template <int kCapacity>
struct LayerList : sphere::cuda::LayerList<kCapacity> {
  using Item = FlatLayer;

  void* first_moment[kCapacity];
  void* second_moment[kCapacity];
};

/// Puts the arrays of `layer`, from `sphere` on, into entry `at`.
template <int kCapacity>
void put_arrays(LayerList<kCapacity>& list, int at, const FlatLayer& layer, std::int64_t sphere) {
  sphere::cuda::put_arrays<kCapacity>(list, at, layer, sphere);
  const auto bytes = sphere * layer.sphere_numel * sphere::cuda::element_bytes(layer.weight_dtype);
  list.first_moment[at] = sphere::cuda::moved(layer.first_moment, bytes);
  list.second_moment[at] = sphere::cuda::moved(layer.second_moment, bytes);
}

/// `Adam` in the type in which a kernel computes.
template <class A>
struct AdamNumbers {
  A beta1;
  A beta2;
  A one_minus_beta1;
  A one_minus_beta2;
  A eps;
  A step_size;
  A of_root;  ///< 1 / bias_correction2_sqrt
  A decay;

  explicit AdamNumbers(const Adam& step)
      : beta1(static_cast<A>(step.beta1)),
        beta2(static_cast<A>(step.beta2)),
        one_minus_beta1(static_cast<A>(1 - step.beta1)),
        one_minus_beta2(static_cast<A>(1 - step.beta2)),
        eps(static_cast<A>(step.eps)),
        step_size(static_cast<A>(step.step_size)),
        of_root(static_cast<A>(1 / step.bias_correction2_sqrt)),
        decay(static_cast<A>(step.decay)) {}
};

/// `SGD` in the type in which a kernel computes.
template <class A>
struct SGDNumbers {
  A lr;
  A momentum;
  A of_gradient;  ///< 1 - dampening
  bool nesterov;
  bool first;

  explicit SGDNumbers(const SGD& step)
      : lr(static_cast<A>(step.lr)),
        momentum(static_cast<A>(step.momentum)),
        of_gradient(static_cast<A>(1 - step.dampening)),
        nesterov(step.nesterov),
        first(step.first) {}
};

/// A step's numbers in both types of arithmetic: the host rounds them once, instead of each thread.
template <template <class> class Numbers>
struct InBothTypes {
  Numbers<double> in_float64;
  Numbers<float> in_float32;

  template <class Step>
  explicit InBothTypes(const Step& step) : in_float64(step), in_float32(step) {}
};

/// A step's numbers as a kernel's parameter.
template <class Numbers>
struct ByValue {
  Numbers numbers;
};

/// A step's numbers that are computed on the device; they lie before the workspace.
template <class Numbers>
struct Prepared {
  Numbers numbers;
  double radius_scale;  ///< factor from norms to radii
  bool takes_radii;     ///< whether this step takes the radii
};

static_assert(sizeof(Prepared<InBothTypes<AdamNumbers>>) <= kPreparedBytes,
              "the prepared numbers must fit their place in the workspace");
static_assert(sizeof(LayerList<sphere::cuda::kManySteppedLayers>) +
                      sizeof(InBothTypes<AdamNumbers>) + sizeof(void*) <=
                  sphere::cuda::kMaxParameterBytes,
              "the list, the numbers and the workspace's address must fit a kernel's parameters");
static_assert(sizeof(InBothTypes<SGDNumbers>) <= sizeof(InBothTypes<AdamNumbers>),
              "Adam has the most numbers");

}  // namespace lawn::detail::folded::cuda
