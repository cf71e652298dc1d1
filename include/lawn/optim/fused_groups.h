// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/held_once.h>
#include <lawn/optim/capture.h>
#include <lawn/optim/device_numbers.h>
#include <lawn/optim/folded/folding.h>
#include <lawn/optim/fused_entries.h>
#include <lawn/optim/group_options.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>

/// What the fused optimizers share: the walk over the groups, which makes lists of parameters; what
/// a list is stepped with is the rule of the one optimizer.
namespace lawn::detail {

/// `Base`, stepped by one call of a fused function for each list: the parameters of a group that
/// share device and dtype. Options, state and checkpoints are those of `Base`.
///
/// What the function cannot take (can_fuse; sparse gradients; state in another order of memory) is
/// stepped by `Base` itself, one parameter after the other, or refused as `Base` refuses it. A
/// parameter that is held twice is refused.
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
///   const at::Tensor& moment(const State&)          one of them, undefined where there is none
///   std::unique_ptr<State> make_state(const at::Tensor& parameter, const Options&)
///   bool kCounts                                    State has a step count
///   void count_step(State&)
///   void update(c10::ArrayRef<Entry> list, const Options&, const Rate&)
///                                                   calls the fused function with a learning rate
///                                                   that is a double or a tensor
template <class Base, class Rule>
class Fused : public Base, public std::conditional_t<Rule::kFolds, Folding, NoFolding> {
 public:
  using Base::Base;

  /// One step. The gradients stay as they are. Does not wait for the device.
  /// @return the loss of the closure, or an undefined tensor
  /// @throws c10::Error  for a group with another optimizer's options, what `Base` throws, and,
  ///                     before anything is changed, what `make_capturable` names
  at::Tensor step(torch::optim::Optimizer::LossClosure closure = nullptr) override {
    const at::NoGradGuard no_grad;
    if (capturable()) prepare_device_step(closure != nullptr);
    at::Tensor loss;
    if (closure) {
      const at::AutoGradMode enable_grad(true);
      loss = closure();
    }
    [[maybe_unused]] const Folded folded = this->take_layers();
    check_step();
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      const Options& options = options_of(group);
      std::vector<at::Tensor> refused;
      auto entries = collect(group, options, refused);
      if (capturable()) count_on_device(entries, options);
      if constexpr (Rule::kFolds) {
        if (!folded.layers.empty()) {
          step_constrained(group, options, folded, entries, std::move(refused));
          continue;
        }
      }
      // First, so that what Base refuses with an error leaves the rest of the group as it was.
      if (!refused.empty()) step_unfused(group, std::move(refused));
      for (Entry& entry : entries) advance(entry, options);
      update(entries, options, group);
    }
    return loss;
  }

  /// Refuses what a step with the gradients of now would refuse; `step()` does it by itself.
  /// @throws c10::Error  that names the parameter, for one that is held twice or whose state has
  ///                     another shape; for a group with another optimizer's options; after
  ///                     `make_capturable` what that names. Nothing is changed
  void check_step() {
    held_once_.check(Rule::kName, this->param_groups_,
                     [this](const at::Tensor& parameter, const Position& position) {
                       const State* state = find_state(parameter);
                       if (state == nullptr) return;
                       refuse_other_shape(Rule::kName, Rule::moment(*state), parameter, position);
                     });
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) options_of(group);
    if (capturable()) check_device_step();
  }

  /// As `Base`'s.
  /// @throws c10::Error  also for a parameter that is held already, with its two places; the groups
  ///                     stay as they were
  void add_param_group(const torch::optim::OptimizerParamGroup& group) {
    refuse_held(Rule::kName, this->param_groups_, group);
    Base::add_param_group(group);
  }

  /// Moves learning rates and step counts to the devices of the parameters, for good: from now on a
  /// training step can be captured in an `at::cuda::CUDAGraph` and replayed with learning rates
  /// that change and a bias correction that goes on. Steps outside of a capture work as before.
  ///
  /// The capture: warm up by some steps on a stream of your own, not the default one (they make the
  /// state, and LibTorch's lazy parts), then capture forward, backward and `step()` there. Each
  /// replay does to the memory that was there what the captured step did, so
  ///   - inputs are static tensors, filled by `copy_` before a replay;
  ///   - gradients keep their addresses: capture after `zero_grad(/*set_to_none=*/true)`, so that
  ///     `backward()` makes them in the graph's own memory and each replay overwrites them, or
  ///     capture `zero_grad(false)` with the rest;
  ///   - the same parameters have gradients as in the step before the capture;
  ///   - options other than the learning rate are those of the capture; so are the parameters.
  ///     `load()` and moving the model replace tensors: capture anew after them.
  /// Before a replay call `upload_learning_rates()`, after schedulers have changed them.
  ///
  /// This call writes the learning rates on the current stream of each device. Let the stream of the
  /// capture wait for it, by `torch::cuda::synchronize()`, say, or call it on that stream: the steps
  /// there could read too early otherwise.
  ///
  /// A step then refuses parameters and gradients that the fused function does not take, and in a
  /// capture also a closure, state that is not made yet, and parameters on several devices.
  /// @throws c10::Error  within a capture; on a GPU without lawn's kernels, which notice captures
  /// @note   a step count is a float32, as LibTorch's fused functions want it: exact up to 2^24;
  ///         on a GPU they read the learning rate as a float32, too, lawn's own kernels do not
  void make_capturable() {
    if (capturable()) return;
    TORCH_CHECK(!captures(), Rule::kName,
                ": call make_capturable() before the capture, and some steps after it");
    for (const auto& group : this->param_groups_) {
      for (const auto device : devices_of(group.params())) {
        TORCH_CHECK(notices_captures(device), Rule::kName, ": make_capturable() needs lawn's CUDA ",
                    "kernels for parameters on ", device, ", got a program built without nvcc");
      }
    }
    numbers_.emplace();
    upload_rates();
  }

  bool capturable() const { return numbers_.has_value(); }

  /// Copies the learning rates of all groups to the devices, for the next replay. No effect before
  /// `make_capturable`. `step()` does it itself outside of a capture. Writes on the current stream,
  /// which is to be that of the replay: a replay on another one could read the old rates, or half of
  /// the new ones. Does not wait for the device.
  /// @throws c10::Error  within a capture, of which it would become part
  void upload_learning_rates() {
    if (!capturable()) return;
    TORCH_CHECK(!captures(), Rule::kName, ": call upload_learning_rates() before a replay, not ",
                "within a capture: a replay would bring this learning rate back");
    upload_rates();
  }

  /// Brings the step counts in `state()` up to date, which are the devices' after
  /// `make_capturable`. `save()` does it itself. Waits for the device.
  void download_step_counts() const {
    if constexpr (Rule::kCounts) {
      if (!capturable()) return;
      for (const auto& [parameter, count] : numbers_->read_counts()) {
        const auto found = this->state_.find(const_cast<void*>(parameter));
        if (found != this->state_.end()) static_cast<State*>(found->second.get())->step(count);
      }
    }
  }

  /// As `Base`. Waits for the device.
  void save(torch::serialize::OutputArchive& archive) const override {
    download_step_counts();
    Base::save(archive);
  }

  /// As `Base`. A captured step has to be captured anew.
  void load(torch::serialize::InputArchive& archive) override {
    download_step_counts();  // of parameters that the checkpoint lacks
    Base::load(archive);
    held_once_ = {};  // to look at the new state
    if (capturable()) numbers_->forget_counts();
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
    if (capturable() || !Rule::keeps_state(options)) return;  // see count_on_device
    complete_state(entry, options);
    Rule::count_step(*entry.state);
  }

  /// Moves the parameters: one call of the fused function for each list. Reorders `entries`.
  void update(std::vector<Entry>& entries, const Options& options, std::size_t group) const {
    const auto alike = [](const Entry& a, const Entry& b) {
      return a.parameter.device() == b.parameter.device() &&
             a.parameter.scalar_type() == b.parameter.scalar_type() && a.first == b.first;
    };
    for_each_run(entries, alike, [&](auto begin, auto end) {
      const c10::ArrayRef<Entry> list(&*begin, static_cast<std::size_t>(end - begin));
      if (const DeviceRate* rate = find_rate(group, begin->parameter.device())) {
        Rule::update(list, options, rate->narrow);
      } else {
        Rule::update(list, options, options.lr());
      }
      // The fused functions do not, so that autograd would not notice a stale graph.
      std::for_each(begin, end, [](const Entry& entry) { sphere::bump_version(entry.parameter); });
    });
  }

 private:
  /// The step of a group in LAWN's constrained phase.
  void step_constrained(std::size_t group, const Options& options, const Folded& given,
                        std::vector<Entry>& entries, std::vector<at::Tensor> refused) {
    FoldedGroup<Rule> folded(given, this->param_groups_[group].params(), entries, options);
    folded.begin();
    if (!refused.empty()) step_unfused(group, std::move(refused));
    folded.for_each_entry([&](Entry& entry) { advance(entry, options); });
    for (Entry& entry : entries) advance(entry, options);
    update(entries, options, group);
    folded.finish(options, [&](at::Device device) { return find_rate(group, device); });
  }

  /// The learning rate of `group` on `device`, null where it is the host's.
  const DeviceRate* find_rate(std::size_t group, at::Device device) const {
    return capturable() ? numbers_->find_rate(group, device) : nullptr;
  }

  bool captures() const { return any_captures(this->param_groups_); }

  void upload_rates() {
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      for (const auto device : devices_of(this->param_groups_[group].params())) {
        numbers_->upload_rate(group, device, options_of(group).lr());
      }
    }
  }

  /// What a step with numbers on the device begins with.
  void prepare_device_step(bool has_closure) {
    if (!captures()) return upload_rates();
    TORCH_CHECK(!has_closure, Rule::kName, ": expected no closure in a capture, whose replays do ",
                "not call it; capture forward and backward pass in front of step()");
  }

  /// Refuses what cannot be stepped with numbers on the device, or not be captured.
  void check_device_step() const {
    const bool capturing = captures();
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      const Options& options = options_of(group);
      std::vector<at::Tensor> refused;
      const auto entries = collect(group, options, refused);
      TORCH_CHECK(refused.empty(), Rule::kName,
                  ": after make_capturable() expected parameters and ",
                  "gradients that the fused function takes, got one of shape ",
                  refused.front().sizes(), " in group ", group,
                  " that it does not: make both dense, without gaps and of one dtype, or give it ",
                  "to another optimizer; nothing was changed");
      if (!capturing) continue;
      bool ready = !Rule::kCounts || numbers_->complete(entries);
      for (const Entry& entry : entries) {
        const auto device = entry.parameter.device();
        TORCH_CHECK(is_capturing(device), Rule::kName, ": expected every parameter on the device ",
                    "of the capture, got one on ", device, " in group ", group);
        ready = ready && numbers_->find_rate(group, device) != nullptr &&
                (entry.state != nullptr || !Rule::keeps_state(options));
      }
      TORCH_CHECK(ready, Rule::kName, ": expected a step before the capture in which the same ",
                  "parameters had gradients, got none for group ", group,
                  ": warm up by some steps outside of the capture, after make_capturable() and ",
                  "load()");
    }
  }

  /// Makes the state that is missing, and counts the step of `entries` on their devices.
  void count_on_device(std::vector<Entry>& entries, const Options& options) {
    if (!Rule::keeps_state(options)) return;
    for (Entry& entry : entries) complete_state(entry, options);
    if constexpr (Rule::kCounts) {
      numbers_->count_step(entries, [](const Entry& entry) { return entry.state->step(); });
    }
  }

  void complete_state(Entry& entry, const Options& options) {
    if (entry.state != nullptr) return;
    entry.state = make_state(entry.parameter, options);
    entry.first = true;
    if (capturable()) numbers_->leave(entry.parameter);
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
    const HoldAlone only(this->param_groups_, group, std::move(parameters));
    Base::step();
  }

  HeldOnce held_once_ = HeldOnce(Rule::kName, this->param_groups_);
  std::optional<DeviceNumbers> numbers_;
};

}  // namespace lawn::detail
