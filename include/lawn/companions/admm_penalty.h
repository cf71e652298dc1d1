// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <lawn/sphere/cpu/chunks.h>
#include <lawn/sphere/cpu/instruction_set.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#endif

/// The gradient of the penalty of ADMM, over lists of weights.
namespace lawn::detail {

/// A weight in the penalty rho/2 ||W - Z + U||^2.
struct PenaltyTerm {
  at::Tensor weight;    ///< W, any floating-point dtype
  at::Tensor gradient;  ///< changed in place
  at::Tensor target;    ///< Z, in the dtype in which sums over the weight are taken
  at::Tensor dual;      ///< U, as Z
};

namespace aten {
/// g <- g + rho (w - z + u): any dtype, device and stride.
inline void add_penalty_(const PenaltyTerm& term, double rho) {
  // Rounded once, where the weight is of half precision: the sum is taken in Z's dtype.
  const auto penalty = term.weight.to(term.target.scalar_type()) - term.target + term.dual;
  const auto sum = term.gradient.to(penalty.scalar_type()) + rho * penalty;
  term.gradient.copy_(sum);
}
}  // namespace aten

namespace cpu {

/// A term as plain memory of one dtype; one sphere, as `for_each_sphere` calls it.
struct PenaltyRun {
  const void* weight;
  void* gradient;
  const void* target;
  const void* dual;
  bool wide;  ///< float64, else float32
  std::int64_t spheres;
  std::int64_t sphere_numel;
};

struct AddPenalty {
  template <class T>
  LAWN_LOOP static void run(T* g, const T* w, const T* z, const T* u, std::int64_t numel, T rho) {
#pragma omp simd
    for (std::int64_t i = 0; i < numel; ++i) g[i] += rho * (w[i] - z[i] + u[i]);
  }
};

inline bool takes(const PenaltyTerm& term) {
  const auto dtype = term.weight.scalar_type();
  return term.weight.is_cpu() && (dtype == at::kFloat || dtype == at::kDouble) &&
         sphere::detail::plain(term.weight) && term.weight.is_non_overlapping_and_dense() &&
         sphere::beside(term.weight, term.gradient) && sphere::beside(term.weight, term.target) &&
         sphere::beside(term.weight, term.dual);
}

template <class T>
void add_penalty(const PenaltyRun& run, std::int64_t begin, std::int64_t end, double rho) {
  sphere::cpu::run<AddPenalty>(
      static_cast<T*>(run.gradient) + begin, static_cast<const T*>(run.weight) + begin,
      static_cast<const T*>(run.target) + begin, static_cast<const T*>(run.dual) + begin,
      end - begin, static_cast<T>(rho));
}

}  // namespace cpu

/// g <- g + rho (w - z + u) for each term.
/// @note  does not wait for the device; the same bits whatever the number of threads
inline void add_penalty_(const std::vector<PenaltyTerm>& terms, double rho) {
  const at::NoGradGuard no_grad;
  std::vector<cpu::PenaltyRun> runs;
  for (const auto& term : terms) {
    if (!cpu::takes(term)) {
      aten::add_penalty_(term, rho);
      continue;
    }
    runs.push_back({term.weight.const_data_ptr(), term.gradient.data_ptr(),
                    term.target.const_data_ptr(), term.dual.const_data_ptr(),
                    term.weight.scalar_type() == at::kDouble, 1, term.weight.numel()});
    sphere::bump_version(term.gradient);
  }
  sphere::cpu::for_each_sphere(
      runs, [rho](const cpu::PenaltyRun& run, std::int64_t /*sphere*/, std::int64_t begin,
                  std::int64_t end, const sphere::cpu::Sums& /*before*/) {
        if (run.wide) {
          cpu::add_penalty<double>(run, begin, end, rho);
        } else {
          cpu::add_penalty<float>(run, begin, end, rho);
        }
        return sphere::cpu::Sums();
      });
}

}  // namespace lawn::detail

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
