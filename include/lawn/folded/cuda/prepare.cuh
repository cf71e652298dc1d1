// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include <cuda_runtime.h>

#include <lawn/folded/cuda/layer_list.h>
#include <lawn/folded/step.h>
#include <lawn/sphere/cuda/tuning.h>

/// The kernel before a step whose numbers are on the device. It computes learning rate and bias
/// correction once, in float64 as the host does, for all threads of the following kernels.
namespace lawn::detail::folded::cuda {
namespace {

/// step_size = lr / (1 - beta1^t), of_root = 1 / sqrt(1 - beta2^t), decay = 1 - lr decoupled_decay
__device__ inline void complete(InBothTypes<AdamNumbers>& numbers, double decoupled_decay,
                                const OnDevice& at) {
  using std::pow;
  using std::sqrt;
  const double lr = *at.lr;
  const auto step = static_cast<double>(*at.step_count);
  AdamNumbers<double>& wide = numbers.in_float64;
  wide.step_size = lr / (1 - pow(wide.beta1, step));
  wide.of_root = 1 / sqrt(1 - pow(wide.beta2, step));
  wide.decay = 1 - lr * decoupled_decay;
  numbers.in_float32.step_size = static_cast<float>(wide.step_size);
  numbers.in_float32.of_root = static_cast<float>(wide.of_root);
  numbers.in_float32.decay = static_cast<float>(wide.decay);
}

__device__ inline void complete(InBothTypes<SGDNumbers>& numbers, double /*decoupled_decay*/,
                                const OnDevice& at) {
  numbers.in_float64.lr = *at.lr;
  numbers.in_float32.lr = static_cast<float>(*at.lr);
}

}  // namespace

/// Computes the numbers; only one thread works.
/// @param fixed  numbers that are the same in every step
template <class Numbers>
static __global__ void __launch_bounds__(sphere::cuda::kThreads)
    prepare(const ByValue<Numbers> __grid_constant__ fixed, double decoupled_decay,
            const OnDevice __grid_constant__ at, Prepared<Numbers>* prepared) {
  if (threadIdx.x != 0) return;
  Numbers numbers = fixed.numbers;
  complete(numbers, decoupled_decay, at);
  prepared->numbers = numbers;
  prepared->radius_scale = at.radius_scale;
  prepared->takes_radii = at.clock != nullptr && at.clock[0] == at.clock[1];
}

}  // namespace lawn::detail::folded::cuda
