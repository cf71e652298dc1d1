// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unordered_set>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/core/TensorImpl.h>

/// Functions on the gradients of a list of parameters, for `GradScaler` and `clip_grad_norm_`.
namespace lawn::detail::parameters {

/// `tensors` in their order, each once, since a parameter that is listed twice has one gradient.
inline std::vector<at::Tensor> distinct(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> once;
  once.reserve(tensors.size());
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const at::Tensor& tensor : tensors) {
    if (seen.insert(tensor.unsafeGetTensorImpl()).second) once.push_back(tensor);
  }
  return once;
}

/// The tensor to multiply in order to scale a gradient: the gradient itself, or the values of a
/// sparse one.
inline at::Tensor values_of(const at::Tensor& gradient) {
  return gradient.is_sparse() ? gradient._values() : gradient;
}

/// Whether a copy to `device` may return before it is done. A copy to the host must not, since the
/// host reads it without regard to streams.
inline bool may_return_early(at::Device device) { return !device.is_cpu(); }

/// `tensor` on `device`; the tensor itself if it is there already. Waits only for a copy to the
/// host.
inline at::Tensor to_device(const at::Tensor& tensor, at::Device device, at::ScalarType dtype) {
  return tensor.to(device, dtype, may_return_early(device));
}
inline at::Tensor to_device(const at::Tensor& tensor, at::Device device) {
  return to_device(tensor, device, tensor.scalar_type());
}

}  // namespace lawn::detail::parameters
