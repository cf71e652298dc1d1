// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unordered_set>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/core/TensorImpl.h>

/// What `GradScaler` and `clip_grad_norm_` both do with the gradients of a list of parameters.
namespace lawn::detail::parameters {

/// `tensors` in their order, each once: a parameter that is listed twice has one gradient.
inline std::vector<at::Tensor> distinct(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> once;
  once.reserve(tensors.size());
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const at::Tensor& tensor : tensors) {
    if (seen.insert(tensor.unsafeGetTensorImpl()).second) once.push_back(tensor);
  }
  return once;
}

/// What is multiplied when a gradient is scaled: of a sparse one, its values.
inline at::Tensor values_of(const at::Tensor& gradient) {
  return gradient.is_sparse() ? gradient._values() : gradient;
}

/// Whether a copy to `device` may return before it is done. What comes to the host is read by the
/// host, which knows no streams, so such a copy is waited for.
inline bool may_return_early(at::Device device) { return !device.is_cpu(); }

/// `tensor` on `device`: itself where it is there already. Waits for a copy to the host alone.
inline at::Tensor to_device(const at::Tensor& tensor, at::Device device, at::ScalarType dtype) {
  return tensor.to(device, dtype, may_return_early(device));
}
inline at::Tensor to_device(const at::Tensor& tensor, at::Device device) {
  return to_device(tensor, device, tensor.scalar_type());
}

}  // namespace lawn::detail::parameters
