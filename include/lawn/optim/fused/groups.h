// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>

#include <lawn/archive/optimizer_state.h>
#include <lawn/folded/folding.h>
#include <lawn/optim/fused/capturable.h>
#include <lawn/optim/fused/entries.h>
#include <lawn/parameters/for_each_alike.h>
#include <lawn/parameters/held_once.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>

/// What the fused optimizers share: the walk over the groups, which makes lists of parameters. Each
/// optimizer's policy says how a list is stepped.
namespace lawn::detail::optim {

/// `Base`, stepped by one call of a fused function for each list: the parameters of a group that
/// share device and dtype. Options, state and checkpoints are those of `Base`.
///
/// `Base` itself steps, or refuses, the parameters that the function cannot take: those that fail
/// can_fuse, those with sparse gradients, and those whose state has another memory order. A
/// parameter that is held twice is refused, and a sparse gradient that `Base` would refuse when it
/// has stepped other parameters.
///
/// @tparam Policy  as of `FusedParameters`
template <class Base, class Policy>
class Fused : public Capturable<Base, Policy>,
              public std::conditional_t<Policy::kFolds, folded::Folding, folded::NoFolding> {
  using Parent = Capturable<Base, Policy>;

 public:
  using Parent::Parent;

  /// One step. The gradients stay as they are. Does not wait for the device.
  /// @return the loss of the closure, or an undefined tensor
  /// @throws c10::Error  for a group with another optimizer's options, what `Base` throws, and,
  ///                     before anything is changed, for what `make_capturable` lists
  at::Tensor step(torch::optim::Optimizer::LossClosure closure = nullptr) override {
    const at::NoGradGuard no_grad;
    this->begin_capturable_step(closure != nullptr);
    at::Tensor loss;
    if (closure) {
      const at::AutoGradMode enable_grad(true);
      loss = closure();
    }
    [[maybe_unused]] const folded::Folded folded = this->take_layers();
    check_step();
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      const Options& options = this->options_of(group);
      std::vector<at::Tensor> refused;
      auto entries = this->collect(group, options, refused);
      this->count_on_devices(entries, options);
      if constexpr (Policy::kFolds) {
        if (!folded.layers.empty()) {
          step_constrained(group, options, folded, entries, std::move(refused));
          continue;
        }
      }
      // First, so that what Base refuses with an error leaves the rest of the group as it was.
      if (!refused.empty()) step_unfused(group, std::move(refused));
      for (Entry& entry : entries) this->count_on_host(entry, options);
      update(entries, options, group);
    }
    return loss;
  }

  /// Refuses what a step with the present gradients would refuse; `step()` calls it.
  /// @throws c10::Error  that names the parameter, if it is held twice or its state has another
  ///                     shape, or if it has a sparse gradient that `Base` does not take; for a
  ///                     group with another optimizer's options; after `make_capturable` also for
  ///                     what is listed there. Nothing is changed
  void check_step() {
    held_once_.check(Policy::kWho, this->param_groups_,
                     [this](const at::Tensor& parameter, const parameters::Position& position) {
                       const State* state = this->find_state(parameter);
                       if (state == nullptr) return;
                       refuse_other_shape(Policy::kWho, Policy::moment(*state), parameter,
                                          position);
                     });
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      const Options& options = this->options_of(group);
      if (Policy::kSparse && options.weight_decay() == 0) continue;
      const auto& parameters = this->param_groups_[group].params();
      for (std::size_t index = 0; index < parameters.size(); ++index) {
        refuse_sparse_gradient(Policy::kWho, parameters[index], {group, index},
                               Policy::kSparse ? " in a group with weight decay" : "");
      }
    }
    this->check_capturable_step();
  }

  /// Adds a group as `Base` does.
  /// @throws c10::Error  also for a parameter that is held already, naming both places; the groups
  ///                     stay as they were
  void add_param_group(const torch::optim::OptimizerParamGroup& group) {
    parameters::refuse_held(Policy::kWho, this->param_groups_, group);
    Base::add_param_group(group);
  }

  /// Loads as `Base` does. A captured step has to be captured anew.
  /// @throws c10::Error  for a checkpoint that is damaged or of other parameters; nothing is
  ///                     changed then
  void load(torch::serialize::InputArchive& archive) override {
    archive::refuse_other_parameters(Policy::kWho, archive, *this);
    archive::load_or_restore(Policy::kWho, *this, archive, [&] { Base::load(archive); });
    held_once_ = {};  // so that the new state is checked
    this->forget_device_counts();
  }

 private:
  using typename Parent::Entry;
  using typename Parent::Options;
  using typename Parent::State;

  /// Moves the parameters: one call of the fused function for each list. Reorders `entries`.
  void update(std::vector<Entry>& entries, const Options& options, std::size_t group) const {
    const auto alike = [](const Entry& a, const Entry& b) {
      return a.parameter.device() == b.parameter.device() &&
             a.parameter.scalar_type() == b.parameter.scalar_type() && a.first == b.first;
    };
    parameters::for_each_alike(entries, alike, [&](auto begin, auto end) {
      const c10::ArrayRef<Entry> list(&*begin, static_cast<std::size_t>(end - begin));
      if (const capture::DeviceRate* rate = this->find_rate(group, begin->parameter.device())) {
        Policy::update(list, options, rate->narrow);
      } else {
        Policy::update(list, options, options.lr());
      }
      // The fused functions do not bump it, and autograd would not notice a stale graph.
      std::for_each(begin, end, [](const Entry& entry) { sphere::bump_version(entry.parameter); });
    });
  }

  /// The step of a group in LAWN's constrained phase.
  void step_constrained(std::size_t group, const Options& options, const folded::Folded& given,
                        std::vector<Entry>& entries, std::vector<at::Tensor> refused) {
    folded::FoldedGroup<Policy> folded(given, this->param_groups_[group].params(), entries,
                                       options);
    folded.begin();
    if (!refused.empty()) step_unfused(group, std::move(refused));
    folded.for_each_entry([&](Entry& entry) { this->count_on_host(entry, options); });
    for (Entry& entry : entries) this->count_on_host(entry, options);
    update(entries, options, group);
    folded.finish(options, [&](at::Device device) { return this->find_rate(group, device); });
  }

  /// `Base`'s own step, with `parameters` as all that it holds.
  void step_unfused(std::size_t group, std::vector<at::Tensor> parameters) {
    if constexpr (Policy::kStateByConstructor) {  // and Base asserts that the state exists
      for (const auto& parameter : parameters) {
        if (this->find_state(parameter) == nullptr)
          this->make_state(parameter, this->options_of(group));
      }
    }
    const HoldAlone only(this->param_groups_, group, std::move(parameters));
    Base::step();
  }

  parameters::HeldOnce held_once_ = parameters::HeldOnce(Policy::kWho, this->param_groups_);
};

}  // namespace lawn::detail::optim
