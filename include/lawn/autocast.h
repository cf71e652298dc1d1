// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/autocast_mode.h>
#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

namespace lawn {

/// Autocasts forward passes while it lives: on devices of one type matrix products and convolutions
/// compute in half precision, from parameters that stay in float32. It is what `torch.autocast` is
/// in Python.
///
///   torch::Tensor loss;
///   {
///     const lawn::Autocast autocast(torch::kCUDA, torch::kHalf);
///     loss = torch::nn::functional::cross_entropy(model->forward(x), y);
///   }
///   scaler.scale(loss).backward();  // outside; the gradients of float32 parameters are in float32
///
/// It nests: the end of one restores what was before, also after an exception. The end of the
/// outermost one clears the cache of cast parameters, which the next step changes. A step within
/// one leaves stale casts to the rest of it. The state belongs to the thread: create and destroy
/// one in the same thread, the inner before the outer.
///
/// lawn.h does not include this header, which needs all of ATen.
/// @note  does not wait for the device
class Autocast {
 public:
  /// @param device   the type of the devices: a CPU, a GPU or another that LibTorch autocasts on
  /// @param dtype    kHalf or kBFloat16, in which to compute; not looked at if `enabled` is false
  /// @param enabled  false turns an outer one off while this one lives
  /// @throws c10::Error  for another dtype or device; nothing is changed
  explicit Autocast(c10::DeviceType device, at::ScalarType dtype, bool enabled = true)
      : device_(device) {
    TORCH_CHECK(at::autocast::is_autocast_available(device),
                "lawn::Autocast: expected a type of device that LibTorch autocasts on, as CPU and ",
                "CUDA, got ", device);
    TORCH_CHECK(!enabled || dtype == at::kHalf || dtype == at::kBFloat16,
                "lawn::Autocast: expected Half or BFloat16 on ", device, ", got ", dtype,
                "; for other dtypes pass enabled = false and cast the model");
    outer_enabled_ = at::autocast::is_autocast_enabled(device);
    outer_dtype_ = at::autocast::get_autocast_dtype(device);
    if (enabled) at::autocast::set_autocast_dtype(device, dtype);
    at::autocast::set_autocast_enabled(device, enabled);
    at::autocast::increment_nesting();
  }

  ~Autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, outer_enabled_);
    at::autocast::set_autocast_dtype(device_, outer_dtype_);
  }

  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  c10::DeviceType device_;
  bool outer_enabled_ = false;
  at::ScalarType outer_dtype_ = at::kFloat;
};

}  // namespace lawn
