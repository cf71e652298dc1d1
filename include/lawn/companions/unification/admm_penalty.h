// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Device.h>

#include <lawn/companions/cuda/entries.h>
#include <lawn/companions/flat.h>
#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/cuda/by_device.h>
#include <lawn/sphere/cuda/call.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>

/// The gradient of the penalty of ADMM, over lists of weights.
namespace lawn::detail::unification {

/// A weight in the penalty rho/2 ||W - Z + U||^2.
struct PenaltyTerm {
  at::Tensor weight;    ///< W, any floating-point dtype
  at::Tensor gradient;  ///< changed in place
  at::Tensor target;    ///< Z, in the dtype in which sums over the weight are taken
  at::Tensor dual;      ///< U, in Z's dtype
};

namespace aten {
/// g <- g + rho (w - z + u): any dtype, device and stride.
inline void add_penalty_(const PenaltyTerm& term, double rho) {
  // The sum is taken in Z's dtype, so that a half-precision gradient is rounded once.
  const auto penalty = term.weight.to(term.target.scalar_type()) - term.target + term.dual;
  const auto sum = term.gradient.to(penalty.scalar_type()) + rho * penalty;
  term.gradient.copy_(sum);
}
}  // namespace aten

namespace cpu {

struct AddPenalty {
  template <class T>
  LAWN_LOOP static void run(T* g, const T* w, const T* z, const T* u, std::int64_t numel, T rho) {
    LAWN_SIMD()
    for (std::int64_t i = 0; i < numel; ++i) g[i] += rho * (w[i] - z[i] + u[i]);
  }
};

template <class T>
void add_penalty(const companions::FlatPenalty& flat, std::int64_t begin, std::int64_t end,
                 double rho) {
  sphere::cpu::run_loop<AddPenalty>(
      static_cast<T*>(flat.gradient) + begin, static_cast<const T*>(flat.weight) + begin,
      static_cast<const T*>(flat.target) + begin, static_cast<const T*>(flat.dual) + begin,
      end - begin, static_cast<T>(rho));
}

/// @param list  in float64 or float32
inline void add_penalty_(const std::vector<companions::FlatPenalty>& list, double rho) {
  sphere::cpu::for_each_sphere(
      list, [rho](const companions::FlatPenalty& flat, std::int64_t /*sphere*/, std::int64_t begin,
                  std::int64_t end, const sphere::cpu::Sums& /*before*/) {
        if (flat.dtype == sphere::Dtype::kFloat64) {
          add_penalty<double>(flat, begin, end, rho);
        } else {
          add_penalty<float>(flat, begin, end, rho);
        }
        return sphere::cpu::Sums();
      });
}

}  // namespace cpu

namespace cuda {
/// @param list  all on `device`
inline void add_penalty_(at::Device device, const std::vector<companions::FlatPenalty>& list,
                         double rho) {
  sphere::cuda::call(device, 0, [&](void* /*workspace*/, void* stream) {
    return companions::cuda::entries->add_penalty(
        list.data(), static_cast<std::int64_t>(list.size()), rho, stream);
  });
}
}  // namespace cuda

/// Whether the term's tensors lie in raw memory in one order, and loops or kernels can do the work.
inline bool takes(const PenaltyTerm& term) {
  const at::Tensor& weight = term.weight;
  const auto wide = sphere::accumulation_dtype(weight);
  return (weight.is_cpu() ? weight.scalar_type() == wide
                          : sphere::cuda::has_kernels(weight.device())) &&
         sphere::detail::plain(weight) && weight.is_non_overlapping_and_dense() &&
         sphere::beside(weight, term.gradient) && sphere::beside(weight, term.target, wide) &&
         sphere::beside(weight, term.dual, wide);
}

/// g <- g + rho (w - z + u) for each term. Loops on the CPU (float64 and float32) and CUDA kernels
/// process a whole list at once; ATen does the work term by term if the tensors are not plain
/// memory in one order.
/// @note  does not wait for the device; a captured step keeps its rho; on the CPU the bits are the
///        same for any number of threads
inline void add_penalty_(const std::vector<PenaltyTerm>& terms, double rho) {
  const at::NoGradGuard no_grad;
  sphere::cuda::ByDevice<companions::FlatPenalty> list;
  for (const auto& term : terms) {
    if (!takes(term)) {
      aten::add_penalty_(term, rho);
      continue;
    }
    list.add(term.weight.device(),
             {sphere::flat_tensor(term.weight), term.weight.const_data_ptr(),
              term.gradient.data_ptr(), term.target.const_data_ptr(), term.dual.const_data_ptr()});
    sphere::bump_version(term.gradient);
  }
  list.for_each([rho](at::Device device, const std::vector<companions::FlatPenalty>& all) {
    device.is_cpu() ? cpu::add_penalty_(all, rho) : cuda::add_penalty_(device, all, rho);
  });
}

}  // namespace lawn::detail::unification
