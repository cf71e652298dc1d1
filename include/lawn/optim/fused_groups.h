// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <c10/util/ArrayRef.h>
#include <torch/optim/optimizer.h>

#include <lawn/optim/folded/folding.h>
#include <lawn/optim/group_options.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>

/// What the fused optimizers share: the walk over the groups, which makes lists of parameters; what
/// a list is stepped with is the rule of the one optimizer.
namespace lawn::detail {

/// A parameter of a step.
template <class State>
struct FusedEntry {
  at::Tensor parameter;
  at::Tensor gradient;     ///< in the parameter's order of memory
  State* state = nullptr;  ///< null where the optimizer keeps none
  bool first = false;      ///< the state was made in this step
};

/// Whether `other` holds its elements as `parameter` does, so that raw memory can be walked.
inline bool beside(const at::Tensor& parameter, const at::Tensor& other) {
  return other.defined() && sphere::detail::plain(other) &&
         other.scalar_type() == parameter.scalar_type() && other.device() == parameter.device() &&
         sphere::detail::same_order(parameter, other);
}

/// Whether LibTorch's fused functions step `parameter` correctly. Those of the CPU check nothing:
/// they walk the memory of each tensor from its first element on.
/// @param reduced_on_cpu  whether the function has half and bfloat16 there
inline bool can_fuse(const at::Tensor& parameter, bool reduced_on_cpu) {
  const auto dtype = parameter.scalar_type();
  const bool wide = dtype == at::kFloat || dtype == at::kDouble;
  return (parameter.is_cuda() || (parameter.is_cpu() && (wide || reduced_on_cpu))) &&
         sphere::detail::plain(parameter) && parameter.is_non_overlapping_and_dense() &&
         parameter.numel() > 0;
}

/// `gradient`, or a copy of it, in `parameter`'s order of memory; undefined if it is sparse or of
/// another kind than the parameter.
inline at::Tensor in_order_of(const at::Tensor& parameter, const at::Tensor& gradient) {
  if (beside(parameter, gradient)) return gradient;
  if (gradient.layout() != at::kStrided || gradient.sizes() != parameter.sizes() ||
      gradient.scalar_type() != parameter.scalar_type() ||
      gradient.device() != parameter.device()) {
    return {};
  }
  return at::empty_like(parameter).copy_(gradient);
}

/// `tensor` as a fused function is to see it. That of the CPU copies a gradient that is not
/// contiguous, and then walks the memory of the original: a flat view spares the copy.
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
/// parameters, shared by those whose count is the same, and filled without waiting.
template <class Entry>
std::vector<at::Tensor> step_counts(c10::ArrayRef<Entry> list) {
  std::map<int64_t, at::Tensor> of_count;
  return column(list, [&](const Entry& entry) {
    at::Tensor& count = of_count[entry.state->step()];
    if (!count.defined()) {
      const auto device = entry.parameter.device();
      count =
          at::full({}, entry.state->step(), at::TensorOptions().device(device).dtype(at::kFloat));
    }
    return count;
  });
}

/// `Base`, stepped by one call of a fused function for each list: the parameters of a group that
/// share device and dtype. Options, state and checkpoints are those of `Base`.
///
/// What the function cannot take (can_fuse; sparse gradients; state in another order of memory) is
/// stepped by `Base` itself, one parameter after the other, or refused as `Base` refuses it. A
/// parameter may be held once only.
///
/// @tparam Rule  static functions; Entry is FusedEntry<State>
///   const char* kName                               in messages
///   Options, State                                  types of Base
///   bool kReducedOnCPU                              its function steps half and bfloat16 there
///   bool kFolds                                     see FoldedGroup for what it has then
///   bool kStateByConstructor                        Base makes its state there alone
///   bool keeps_state(const Options&)
///   bool fits(const State&, const at::Tensor& parameter, const Options&)
///                                                   whether its tensors lie beside the parameter
///   std::unique_ptr<State> make_state(const at::Tensor& parameter, const Options&)
///   void count_step(State&)
///   void update(c10::ArrayRef<Entry> list, const Options&)
///                                                   calls the fused function
template <class Base, class Rule>
class Fused : public Base, public std::conditional_t<Rule::kFolds, Folding, NoFolding> {
 public:
  using Base::Base;

  /// One step. The gradients stay as they are. Does not wait for the device.
  /// @return the loss of the closure, or an undefined tensor
  /// @throws c10::Error  for a group with another optimizer's options, and what `Base` throws
  at::Tensor step(torch::optim::Optimizer::LossClosure closure = nullptr) override {
    const at::NoGradGuard no_grad;
    at::Tensor loss;
    if (closure) {
      const at::AutoGradMode enable_grad(true);
      loss = closure();
    }
    [[maybe_unused]] const auto layers = this->take_layers();
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      const Options& options = options_of(group);
      std::vector<at::Tensor> refused;
      auto entries = collect(group, options, refused);
      if constexpr (Rule::kFolds) {
        if (!layers.empty()) {
          step_constrained(group, options, layers, entries, std::move(refused));
          continue;
        }
      }
      // First, so that what Base refuses with an error leaves the rest of the group as it was.
      if (!refused.empty()) step_unfused(group, std::move(refused));
      for (Entry& entry : entries) advance(entry, options);
      update(entries, options);
    }
    return loss;
  }

 protected:
  using Options = typename Rule::Options;
  using State = typename Rule::State;
  using Entry = FusedEntry<State>;

  const Options& options_of(std::size_t group) const {
    return group_options<Options>(Rule::kName, this->param_groups_[group]);
  }

  /// The parameters of `group` that have gradients and can be fused; the others with gradients go
  /// to `refused`. Nothing is changed.
  std::vector<Entry> collect(std::size_t group, const Options& options,
                             std::vector<at::Tensor>& refused) const {
    const auto& parameters = this->param_groups_[group].params();
    std::vector<Entry> entries;
    entries.reserve(parameters.size());
    for (const at::Tensor& parameter : parameters) {
      const at::Tensor& gradient = parameter.grad();
      if (!gradient.defined()) continue;
      Entry entry;
      entry.state = find_state(parameter);
      if (can_fuse(parameter, Rule::kReducedOnCPU) &&
          (entry.state == nullptr || Rule::fits(*entry.state, parameter, options))) {
        entry.gradient = in_order_of(parameter, gradient);
      }
      if (entry.gradient.defined()) {
        entry.parameter = parameter;
        entries.push_back(std::move(entry));
      } else {
        refused.push_back(parameter);
      }
    }
    return entries;
  }

  /// Makes the state that is missing, and counts the step.
  void advance(Entry& entry, const Options& options) {
    if (!Rule::keeps_state(options)) return;
    if (entry.state == nullptr) {
      entry.state = make_state(entry.parameter, options);
      entry.first = true;
    }
    Rule::count_step(*entry.state);
  }

  /// Moves the parameters: one call of the fused function for each list. Reorders `entries`.
  static void update(std::vector<Entry>& entries, const Options& options) {
    auto begin = entries.begin();
    while (begin != entries.end()) {
      const auto device = begin->parameter.device();
      const auto dtype = begin->parameter.scalar_type();
      const bool first = begin->first;
      const auto end = std::stable_partition(begin, entries.end(), [&](const Entry& entry) {
        return entry.parameter.device() == device && entry.parameter.scalar_type() == dtype &&
               entry.first == first;
      });
      Rule::update({&*begin, static_cast<std::size_t>(end - begin)}, options);
      // The fused functions do not, so that autograd would not notice a stale graph.
      std::for_each(begin, end, [](const Entry& entry) { sphere::bump_version(entry.parameter); });
      begin = end;
    }
  }

 private:
  /// The step of a group in LAWN's constrained phase.
  void step_constrained(std::size_t group, const Options& options,
                        c10::ArrayRef<sphere::Layer> layers, std::vector<Entry>& entries,
                        std::vector<at::Tensor> refused) {
    FoldedGroup<Rule> folded(layers, this->param_groups_[group].params(), entries, options);
    folded.begin();
    if (!refused.empty()) step_unfused(group, std::move(refused));
    folded.for_each_entry([&](Entry& entry) { advance(entry, options); });
    for (Entry& entry : entries) advance(entry, options);
    update(entries, options);
    folded.finish(options);
  }

  State* find_state(const at::Tensor& parameter) const {
    const auto found = this->state_.find(parameter.unsafeGetTensorImpl());
    return found == this->state_.end() ? nullptr : static_cast<State*>(found->second.get());
  }

  State* make_state(const at::Tensor& parameter, const Options& options) {
    auto state = Rule::make_state(parameter, options);
    State* made = state.get();
    this->state_[parameter.unsafeGetTensorImpl()] = std::move(state);
    return made;
  }

  /// `Base`'s own step, with `parameters` as all that it holds.
  void step_unfused(std::size_t group, std::vector<at::Tensor> parameters) {
    if constexpr (Rule::kStateByConstructor) {  // and Base asserts that it is there
      for (const auto& parameter : parameters) {
        if (find_state(parameter) == nullptr) make_state(parameter, options_of(group));
      }
    }
    std::vector<std::vector<at::Tensor>> held(this->param_groups_.size());
    held[group] = std::move(parameters);
    const auto swap_held = [&] {
      for (std::size_t i = 0; i < held.size(); ++i) held[i].swap(this->param_groups_[i].params());
    };
    swap_held();
    try {
      Base::step();
    } catch (...) {
      swap_held();
      throw;
    }
    swap_held();
  }
};

}  // namespace lawn::detail
