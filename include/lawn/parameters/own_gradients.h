// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <unordered_set>
#include <vector>

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/Device.h>
#include <c10/core/TensorImpl.h>
#include <torch/optim/optimizer.h>

/// Handles gradients that share memory. Autograd produces such gradients: one tensor, or two views
/// of one storage, for the two weights of a sum; one number with strides of 0 for `w.sum()`.
/// Changing one element of such a gradient changes others, too.
namespace lawn::detail::parameters {

/// Finds gradients that overlap themselves or one another, and replaces them by copies.
class GradientMemory {
 public:
  /// @param parameter  with or without a gradient, of any layout; may come several times
  /// @param changes    whether its gradient is about to be changed in place
  void add(const at::Tensor& parameter, bool changes) {
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined()) return;
    const at::Tensor values = gradient.is_sparse() ? gradient._values() : gradient;
    if (values.layout() != at::kStrided || values.numel() == 0 || !values.has_storage()) return;
    const auto begin = reinterpret_cast<std::uintptr_t>(values.const_data_ptr());
    if (begin == 0) return;
    int64_t last = 0;  // offset of the last element
    for (int64_t dim = 0; dim < values.dim(); ++dim) {
      last += (values.size(dim) - 1) * values.stride(dim);
    }
    const auto bytes = static_cast<std::uintptr_t>((last + 1) * values.element_size());
    const bool overlaps_itself = at::has_internal_overlap(values) == at::MemOverlap::Yes;
    spans_.push_back({parameter.unsafeGetTensorImpl(), begin, begin + bytes, values.device()});
    if (changes) changed_.push_back({parameter, overlaps_itself});
  }

  /// Replaces each gradient that is about to be changed, and shares memory, by a copy with the same
  /// values and dtype. Does not wait for the device.
  void separate() {
    const auto shared = find_shared();
    const at::NoGradGuard no_grad;
    for (const auto& [parameter, overlaps_itself] : changed_) {
      if (!overlaps_itself && shared.count(parameter.unsafeGetTensorImpl()) == 0) continue;
      const at::Tensor gradient = parameter.grad();
      parameter.mutable_grad() =
          gradient.is_sparse() ? gradient.clone()
                               : at::empty_like(parameter, gradient.options()).copy_(gradient);
    }
  }

 private:
  /// The memory from a gradient's first element to its last.
  struct Span {
    const c10::TensorImpl* parameter;
    std::uintptr_t begin;
    std::uintptr_t end;
    at::Device device;

    auto place() const { return std::make_tuple(device.type(), device.index(), begin); }
  };

  struct Changed {
    at::Tensor parameter;
    bool overlaps_itself;
  };

  /// The parameters whose gradients' spans overlap.
  std::unordered_set<const c10::TensorImpl*> find_shared() {
    std::unordered_set<const c10::TensorImpl*> shared;
    std::sort(spans_.begin(), spans_.end(),
              [](const Span& a, const Span& b) { return a.place() < b.place(); });
    const Span* reach = nullptr;  // of the earlier spans, the one that ends last
    for (const Span& span : spans_) {
      const bool meet = reach != nullptr && reach->device == span.device && span.begin < reach->end;
      if (meet && reach->parameter != span.parameter) {
        shared.insert(reach->parameter);
        shared.insert(span.parameter);
      }
      if (!meet || span.end > reach->end) reach = &span;
    }
    return shared;
  }

  std::vector<Span> spans_;
  std::vector<Changed> changed_;
};

/// Whether surely only `parameter` refers to the memory of its gradient, and the gradient does not
/// overlap itself. This is the usual case, and quick to check.
inline bool has_gradient_of_its_own(const at::Tensor& parameter) {
  const at::Tensor& gradient = parameter.grad();
  if (!gradient.defined()) return true;
  return gradient.layout() == at::kStrided && gradient.use_count() == 1 &&
         gradient.is_non_overlapping_and_dense() && gradient.has_storage() &&
         gradient.storage().use_count() == 1;
}

/// Makes it safe to change the gradients of `parameters` in place.
/// @param parameters  gradients that share memory, or overlap themselves, are replaced by copies
/// @note  does not wait for the device
inline void own_gradients_(const std::vector<at::Tensor>& parameters) {
  if (std::all_of(parameters.begin(), parameters.end(), has_gradient_of_its_own)) return;
  GradientMemory memory;
  for (const auto& parameter : parameters) memory.add(parameter, /*changes=*/true);
  memory.separate();
}

/// The same for some of the parameters of `optimizer`, so that changing them does not change the
/// gradients of the others.
inline void own_gradients_(const torch::optim::Optimizer& optimizer,
                           const std::vector<at::Tensor>& some) {
  if (std::all_of(some.begin(), some.end(), has_gradient_of_its_own)) return;
  GradientMemory memory;
  for (const auto& parameter : some) memory.add(parameter, /*changes=*/true);
  for (const auto& group : optimizer.param_groups()) {
    for (const auto& parameter : group.params()) memory.add(parameter, /*changes=*/false);
  }
  memory.separate();
}

}  // namespace lawn::detail::parameters
