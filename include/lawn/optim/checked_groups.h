// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/serialize.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/optimizer_state.h>
#include <lawn/optim/group_options.h>
#include <lawn/optim/parameter_lists.h>
#include <lawn/parameters/held_once.h>

namespace lawn::detail::optim {

/// Base of an optimizer with its own options and state. It refuses invalid options of groups,
/// parameters that are held twice or have changed their shape, and sparse gradients.
/// @tparam kMoment  a tensor of the state in the shape of its parameter
template <class Options, class State, const at::Tensor& (State::*kMoment)() const>
class CheckedGroups : public torch::optim::Optimizer {
 public:
  /// Adds a group as LibTorch does, and checks its options.
  /// @throws c10::Error also for a parameter that is held already; the groups stay as they were
  void add_param_group(const torch::optim::OptimizerParamGroup& group) {
    check_group_options<Options>(who_, group);
    parameters::refuse_held(who_, param_groups_, group);
    Optimizer::add_param_group(group);
    keep_group_options(group, param_groups_.back());
  }

  /// Refuses what a step with the present gradients would refuse; `step()` calls it.
  /// @throws c10::Error that names the parameter, if it is held twice, its state has another shape,
  ///         or its gradient is sparse. Nothing is changed
  void check_step() {
    held_once_.check(who_, param_groups_,
                     [this](const at::Tensor& parameter, const parameters::Position& position) {
                       const auto found = state_.find(parameter.unsafeGetTensorImpl());
                       if (found == state_.end()) return;
                       const auto& state = static_cast<const State&>(*found->second);
                       refuse_other_shape(who_, (state.*kMoment)(), parameter, position);
                     });
    check_gradients<Options>(who_, param_groups_);
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    torch::optim::serialize<State, Options>(archive, *this);
  }
  /// @throws c10::Error for a checkpoint that is damaged or of other parameters; nothing is changed
  ///         then
  void load(torch::serialize::InputArchive& archive) override {
    archive::refuse_other_parameters(who_, archive, *this, /*shaped=*/true);
    archive::load_or_restore(who_, *this, archive,
                             [&] { torch::optim::serialize<State, Options>(archive, *this); });
    held_once_ = {};  // so that the new state is checked
  }

 protected:
  /// @param who  name in messages; must outlive the optimizer
  CheckedGroups(const char* who, const std::vector<torch::optim::OptimizerParamGroup>& groups,
                const Options& defaults)
      : Optimizer(groups, std::make_unique<Options>(defaults)), who_(who) {
    defaults.validate();
    held_once_.check(who_, param_groups_);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      check_group_options<Options>(who_, groups[g]);
      keep_group_options(groups[g], param_groups_[g]);
    }
  }

 private:
  const char* who_;
  parameters::HeldOnce held_once_;
};

}  // namespace lawn::detail::optim
