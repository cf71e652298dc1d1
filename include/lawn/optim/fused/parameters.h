// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>

#include <lawn/optim/fused/entries.h>
#include <lawn/optim/group_options.h>

namespace lawn::detail::optim {

/// `Base` with access to what it holds: groups, the parameters that a fused function takes, their
/// state.
///
/// @tparam Policy  static functions; Entry is FusedEntry<State>
///   const char* kWho                               in messages
///   Options, State                                  types of Base
///   bool kReducedOnCPU                              its function steps half and bfloat16 there
///   bool kOnGPU                                     its function steps parameters on a GPU
///   bool kFolds                                     see FoldedGroup for what it has then
///   bool kSparse                                    Base takes sparse gradients, without decay
///   bool kStateByConstructor                        Base makes its state there alone
///   bool keeps_state(const Options&)
///   bool fits(const State&, const at::Tensor& parameter, const Options&)
///                                                   whether its tensors lie beside the parameter
///   const at::Tensor& moment(const State&)          one of them, undefined where there is none
///   std::unique_ptr<State> make_state(const at::Tensor& parameter, const Options&)
///   void begin_in_place(State&, const Options&)     fills its tensors as make_state does
///   bool begins_in_place(const Options&)            whether the next step then is as a first one
///   bool kCounts                                    State has a step count
///   void count_step(State&)
///   void update(c10::ArrayRef<Entry> list, const Options&, const Rate&)
///                                                   calls the fused function with a learning rate
///                                                   that is a double or a tensor
template <class Base, class Policy>
class FusedParameters : public Base {
 public:
  using Base::Base;

 protected:
  using Options = typename Policy::Options;
  using State = typename Policy::State;
  using Entry = FusedEntry<State>;

  const Options& options_of(std::size_t group) const {
    return group_options<Options>(Policy::kWho, this->param_groups_[group]);
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
      // SGD keeps its buffer when its momentum becomes 0, and no longer uses it.
      if (Policy::keeps_state(options)) entry.state = find_state(parameter);
      if (can_fuse(parameter, Policy::kReducedOnCPU, Policy::kOnGPU) &&
          (entry.state == nullptr || Policy::fits(*entry.state, parameter, options))) {
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

  State* find_state(const at::Tensor& parameter) const {
    const auto found = this->state_.find(parameter.unsafeGetTensorImpl());
    return found == this->state_.end() ? nullptr : static_cast<State*>(found->second.get());
  }

  State* make_state(const at::Tensor& parameter, const Options& options) {
    auto state = Policy::make_state(parameter, options);
    State* made = state.get();
    this->state_[parameter.unsafeGetTensorImpl()] = std::move(state);
    return made;
  }
};

}  // namespace lawn::detail::optim
