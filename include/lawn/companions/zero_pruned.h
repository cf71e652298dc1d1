// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/flatten.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#endif

/// Zeros where a mask says so, over lists of tensors.
namespace lawn::detail {

namespace aten {
/// Not a product: 0 times NaN is NaN.
inline void zero_pruned_(const at::Tensor& tensor, const at::Tensor& pruned) {
  tensor.masked_fill_(pruned, 0);
}
}  // namespace aten

namespace cpu {

/// A tensor and its mask as plain memory; one sphere, as `for_each_sphere` calls it.
struct PrunedRun {
  void* elements;
  const std::uint8_t* pruned;  ///< 0 or 1
  sphere::Dtype dtype;
  std::int64_t spheres;
  std::int64_t sphere_numel;
};

struct ZeroPruned {
  template <class T>
  LAWN_LOOP static void run(T* elements, const std::uint8_t* pruned, std::int64_t numel) {
#pragma omp simd
    for (std::int64_t i = 0; i < numel; ++i) {
      const T element = elements[i];  // read in any case: a load under a condition is no vector's
      const std::int32_t is_pruned = pruned[i];
      elements[i] = is_pruned != 0 ? T(0) : element;
    }
  }
};

inline sphere::cpu::Sums zero_pruned(const PrunedRun& run, std::int64_t /*sphere*/,
                                     std::int64_t begin, std::int64_t end,
                                     const sphere::cpu::Sums& /*before*/) {
  const auto zero = [&](auto* elements) {
    sphere::cpu::run<ZeroPruned>(elements + begin, run.pruned + begin, end - begin);
  };
  switch (run.dtype) {
    case sphere::Dtype::kFloat64:
      zero(static_cast<double*>(run.elements));
      break;
    case sphere::Dtype::kFloat32:
      zero(static_cast<float*>(run.elements));
      break;
    case sphere::Dtype::kBFloat16:  // zero is all bits 0 in both
    case sphere::Dtype::kFloat16:
      zero(static_cast<std::uint16_t*>(run.elements));
      break;
  }
  return {};
}

/// Whether raw memory tells both, in one order.
inline bool takes(const at::Tensor& tensor, const at::Tensor& pruned) {
  return tensor.is_cpu() && pruned.is_cpu() && sphere::detail::plain(tensor) &&
         tensor.is_non_overlapping_and_dense() && sphere::detail::same_order(tensor, pruned);
}

}  // namespace cpu

/// Makes the elements of each tensor that are pruned exactly +0, whatever they were.
/// @param tensors  any dtype, device and stride; changed in place
/// @param pruned   one for each, bool, of its shape and device
/// @note  does not wait for the device
inline void zero_pruned_(const std::vector<at::Tensor>& tensors,
                         const std::vector<at::Tensor>& pruned) {
  TORCH_INTERNAL_ASSERT(tensors.size() == pruned.size());
  const at::NoGradGuard no_grad;
  std::vector<cpu::PrunedRun> runs;
  // From the last on: the optimizer has touched it last, so that it may still be in a cache.
  for (std::size_t i = tensors.size(); i-- > 0;) {
    if (!cpu::takes(tensors[i], pruned[i])) {
      aten::zero_pruned_(tensors[i], pruned[i]);
      continue;
    }
    runs.push_back({tensors[i].data_ptr(),
                    static_cast<const std::uint8_t*>(pruned[i].const_data_ptr()),
                    *sphere::flat_dtype(tensors[i].scalar_type()), 1, tensors[i].numel()});
    sphere::bump_version(tensors[i]);
  }
  sphere::cpu::for_each_sphere(runs, cpu::zero_pruned);
}

}  // namespace lawn::detail

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
