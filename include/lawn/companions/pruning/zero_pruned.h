// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <lawn/companions/cuda/entries.h>
#include <lawn/companions/flat.h>
#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/cuda/by_device.h>
#include <lawn/sphere/cuda/call.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/flatten.h>

/// Sets the pruned elements of a list of tensors to zero.
namespace lawn::detail::pruning {

namespace aten {
/// Fills instead of multiplying, since 0 times NaN is NaN.
inline void zero_pruned_(const at::Tensor& tensor, const at::Tensor& pruned) {
  tensor.masked_fill_(pruned, 0);
}
}  // namespace aten

namespace cpu {

struct ZeroPruned {
  template <class T>
  LAWN_LOOP static void run(T* elements, const std::uint8_t* pruned, std::int64_t numel) {
    LAWN_SIMD()
    for (std::int64_t i = 0; i < numel; ++i) {
      const T element = elements[i];  // unconditional: a conditional load is not vectorized
      const std::int32_t is_pruned = pruned[i];
      elements[i] = is_pruned != 0 ? T(0) : element;
    }
  }
};

inline sphere::cpu::Sums zero_pruned(const companions::FlatPruned& flat, std::int64_t /*sphere*/,
                                     std::int64_t begin, std::int64_t end,
                                     const sphere::cpu::Sums& /*before*/) {
  const auto zero = [&](auto* elements) {
    sphere::cpu::run_loop<ZeroPruned>(elements + begin, flat.pruned + begin, end - begin);
  };
  switch (flat.dtype) {
    case sphere::Dtype::kFloat64:
      zero(static_cast<double*>(flat.elements));
      break;
    case sphere::Dtype::kFloat32:
      zero(static_cast<float*>(flat.elements));
      break;
    case sphere::Dtype::kBFloat16:  // zero is all bits 0 in both
    case sphere::Dtype::kFloat16:
      zero(static_cast<std::uint16_t*>(flat.elements));
      break;
  }
  return {};
}

inline void zero_pruned_(const std::vector<companions::FlatPruned>& list) {
  sphere::cpu::for_each_sphere(list, zero_pruned);
}

}  // namespace cpu

namespace cuda {
/// @param list  all on `device`
inline void zero_pruned_(at::Device device, const std::vector<companions::FlatPruned>& list) {
  sphere::cuda::call(device, 0, [&](void* /*workspace*/, void* stream) {
    return companions::cuda::entries->zero_pruned(list.data(),
                                                  static_cast<std::int64_t>(list.size()), stream);
  });
}
}  // namespace cuda

/// Whether both lie in raw memory in one order, and loops or kernels can do the work.
inline bool takes(const at::Tensor& tensor, const at::Tensor& pruned) {
  return pruned.device() == tensor.device() && sphere::detail::plain(tensor) &&
         tensor.is_non_overlapping_and_dense() && sphere::detail::same_order(tensor, pruned) &&
         (tensor.is_cpu() || sphere::cuda::has_kernels(tensor.device()));
}

/// Sets the pruned elements of each tensor to exactly +0, whatever they were. Loops on the CPU and
/// CUDA kernels process a whole list at once; ATen does the work tensor by tensor if mask and
/// tensor are not plain memory in one order.
/// @param tensors  any dtype, device and stride; changed in place
/// @param pruned   one for each tensor, bool, of its shape and device
/// @note  does not wait for the device
inline void zero_pruned_(const std::vector<at::Tensor>& tensors,
                         const std::vector<at::Tensor>& pruned) {
  TORCH_INTERNAL_ASSERT(tensors.size() == pruned.size(), "a mask for each tensor");
  const at::NoGradGuard no_grad;
  sphere::cuda::ByDevice<companions::FlatPruned> list;
  // Backwards: the optimizer has touched the last tensor last, so that it may still be in a cache.
  for (std::size_t i = tensors.size(); i-- > 0;) {
    if (!takes(tensors[i], pruned[i])) {
      aten::zero_pruned_(tensors[i], pruned[i]);
      continue;
    }
    list.add(tensors[i].device(), {sphere::flat_tensor(tensors[i]), tensors[i].data_ptr(),
                                   static_cast<const std::uint8_t*>(pruned[i].const_data_ptr())});
    sphere::bump_version(tensors[i]);
  }
  list.for_each([](at::Device device, const std::vector<companions::FlatPruned>& all) {
    device.is_cpu() ? cpu::zero_pruned_(all) : cuda::zero_pruned_(device, all);
  });
}

}  // namespace lawn::detail::pruning
