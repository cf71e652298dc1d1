// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/ArrayRef.h>
#include <torch/optim/optimizer.h>

#include <lawn/sphere/flatten.h>

/// Parameters on their way into LibTorch's fused functions.
namespace lawn::detail::optim {

/// A parameter in one step.
template <class State>
struct FusedEntry {
  at::Tensor parameter;
  at::Tensor gradient;     ///< in the parameter's memory order
  State* state = nullptr;  ///< null where the optimizer keeps none
  bool first = false;      ///< the state was made in this step
  at::Tensor count{};      ///< step count of its `Cohort`, if on the device
};

/// Whether LibTorch's fused functions step `parameter` correctly. Those of the CPU check nothing:
/// they walk the memory of each tensor from its first element on.
/// @param reduced_on_cpu  whether the function steps half and bfloat16 on the CPU
/// @param on_gpu          whether it steps parameters on a GPU
inline bool can_fuse(const at::Tensor& parameter, bool reduced_on_cpu, bool on_gpu) {
  const auto dtype = parameter.scalar_type();
  const bool wide = dtype == at::kFloat || dtype == at::kDouble;
  return ((parameter.is_cuda() && on_gpu) || (parameter.is_cpu() && (wide || reduced_on_cpu))) &&
         sphere::detail::plain(parameter) && parameter.is_non_overlapping_and_dense() &&
         parameter.numel() > 0;
}

/// `gradient`, or a copy of it, in `parameter`'s memory order; undefined if it is sparse, or
/// differs from the parameter in shape, dtype or device.
inline at::Tensor in_order_of(const at::Tensor& parameter, const at::Tensor& gradient) {
  if (sphere::beside(parameter, gradient)) return gradient;
  if (gradient.layout() != at::kStrided || gradient.sizes() != parameter.sizes() ||
      gradient.scalar_type() != parameter.scalar_type() ||
      gradient.device() != parameter.device()) {
    return {};
  }
  return at::empty_like(parameter).copy_(gradient);
}

/// `tensor` as a fused function takes it. The CPU's function copies a gradient that is not
/// contiguous, and then walks the memory of the original: a flat view avoids the copy.
/// @param tensor  dense without gaps
inline at::Tensor flat(const at::Tensor& tensor) {
  if (!tensor.is_cpu() || tensor.is_contiguous()) return tensor;
  return tensor.as_strided({tensor.numel()}, {1});
}

/// One tensor for each entry of a list.
template <class Entry, class Get>
std::vector<at::Tensor> column(c10::ArrayRef<Entry> list, const Get& get) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(list.size());
  for (const Entry& entry : list) tensors.push_back(flat(get(entry)));
  return tensors;
}

/// The step counts of a list as the fused functions take them: float32 scalars on the device of the
/// parameters. Parameters with the same count share one scalar; filling it does not wait for the
/// device.
template <class Entry>
std::vector<at::Tensor> step_counts(c10::ArrayRef<Entry> list) {
  std::map<int64_t, at::Tensor> of_count;
  return column(list, [&](const Entry& entry) {
    if (entry.count.defined()) return entry.count;
    at::Tensor& count = of_count[entry.state->step()];
    if (!count.defined()) {
      const auto device = entry.parameter.device();
      count =
          at::full({}, entry.state->step(), at::TensorOptions().device(device).dtype(at::kFloat));
    }
    return count;
  });
}

/// For as long as it lives, `parameters` of one group are all that an optimizer holds.
class HoldAlone {
 public:
  HoldAlone(std::vector<torch::optim::OptimizerParamGroup>& groups, std::size_t group,
            std::vector<at::Tensor> parameters)
      : groups_(groups), held_(groups.size()) {
    held_[group] = std::move(parameters);
    swap();
  }
  ~HoldAlone() { swap(); }
  HoldAlone(const HoldAlone&) = delete;
  HoldAlone& operator=(const HoldAlone&) = delete;
  HoldAlone(HoldAlone&&) = delete;
  HoldAlone& operator=(HoldAlone&&) = delete;

 private:
  void swap() noexcept {
    for (std::size_t i = 0; i < held_.size(); ++i) held_[i].swap(groups_[i].params());
  }

  std::vector<torch::optim::OptimizerParamGroup>& groups_;
  std::vector<std::vector<at::Tensor>> held_;
};

}  // namespace lawn::detail::optim
