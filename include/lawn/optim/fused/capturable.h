// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_set>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/output-archive.h>

#include <lawn/capture/device_numbers.h>
#include <lawn/capture/state_in_place.h>
#include <lawn/capture/stream.h>
#include <lawn/optim/fused/parameters.h>

namespace lawn::detail::optim {

/// What a fused optimizer needs for its step to be captured in a CUDA graph: the numbers that
/// change from step to step, which are learning rates and step counts. They live on the host until
/// `make_capturable`.
/// @tparam Policy  as of `FusedParameters`
template <class Base, class Policy>
class Capturable : public FusedParameters<Base, Policy>, public capture::StateInPlace {
  using Parameters = FusedParameters<Base, Policy>;

 public:
  using Parameters::Parameters;

  /// Moves learning rates and step counts to the devices of the parameters, for good: from now on a
  /// training step can be captured in an `at::cuda::CUDAGraph` and replayed with learning rates
  /// that change and a bias correction that goes on. Steps outside of a capture work as before.
  ///
  /// To capture, first do some steps on a stream of your own, not the default one (they create the
  /// state, and what LibTorch creates lazily); then capture forward, backward and `step()` there.
  /// Each replay repeats the captured step on the same memory, so
  ///   - inputs are static tensors, filled by `copy_` before a replay;
  ///   - gradients keep their addresses: capture after `zero_grad(/*set_to_none=*/true)`, so that
  ///     `backward()` makes them in the graph's own memory and each replay overwrites them, or
  ///     capture `zero_grad(false)` with the rest;
  ///   - the same parameters have gradients as in the step before the capture;
  ///   - options other than the learning rate are those of the capture; so are the parameters.
  ///     `load()` and moving the model replace tensors: capture anew after them.
  /// When schedulers have changed the learning rates, call `upload_learning_rates()` before the
  /// next replay.
  ///
  /// This call writes the learning rates on the current stream of each device. Let the stream of
  /// the capture wait for it, by `torch::cuda::synchronize()`, say, or call it on that stream;
  /// otherwise the steps there could read too early.
  ///
  /// From then on a step refuses parameters and gradients that the fused function does not take. In
  /// a capture it also refuses a closure, state that does not exist yet, and parameters on several
  /// devices; without this call it refuses every capture that it notices.
  /// @throws c10::Error  within a capture, and for parameters on a GPU in a program that was built
  ///                     without lawn's kernels, which are needed to notice captures
  /// @note   a step count is a float32, as LibTorch's fused functions require, hence exact up to
  ///         2^24. On a GPU these functions also read the learning rate as a float32; lawn's own
  ///         kernels do not
  void make_capturable() {
    if (capturable()) return;
    TORCH_CHECK(!captures(), Policy::kWho,
                ": call make_capturable() before the capture, and some steps after it");
    for (const auto& group : this->param_groups_) {
      for (const auto device : capture::devices_of(group.params())) {
        TORCH_CHECK(capture::notices_captures(device), Policy::kWho,
                    ": make_capturable() needs lawn's CUDA ", "kernels for parameters on ", device,
                    ", got a program built without nvcc");
      }
    }
    numbers_.emplace();
    upload_rates();
  }

  bool capturable() const { return numbers_.has_value(); }

  /// Copies the learning rates of all groups to the devices, for the next replay. Outside a capture
  /// `step()` does it by itself; before `make_capturable` the call has no effect. It writes on the
  /// current stream, which must be that of the replay: a replay on another one could read the old
  /// rates, or only some of the new ones. It does not wait for the device.
  /// @throws c10::Error  within a capture, which would record the copy
  void upload_learning_rates() {
    if (!capturable()) return;
    TORCH_CHECK(!captures(), Policy::kWho, ": call upload_learning_rates() before a replay, not ",
                "within a capture: a replay would bring this learning rate back");
    upload_rates();
  }

  /// Copies the step counts, which live on the devices after `make_capturable`, into `state()`.
  /// `save()` does it by itself. Waits for the current stream of each device, which must be that of
  /// the steps and replays, or ordered after it.
  void download_step_counts() const {
    if constexpr (Policy::kCounts) {
      if (!capturable()) return;
      for (const auto& [parameter, count] : numbers_->read_counts()) {
        const auto found = this->state_.find(const_cast<void*>(parameter));
        if (found != this->state_.end()) static_cast<State*>(found->second.get())->step(count);
      }
    }
  }

  /// Saves as `Base` does. Waits as `download_step_counts` does.
  void save(torch::serialize::OutputArchive& archive) const override {
    download_step_counts();
    Base::save(archive);
  }

 protected:
  using typename Parameters::Entry;
  using typename Parameters::Options;
  using typename Parameters::State;

  /// The learning rate of `group` on `device`; null if learning rates live on the host.
  const capture::DeviceRate* find_rate(std::size_t group, at::Device device) const {
    return capturable() ? numbers_->find_rate(group, device) : nullptr;
  }

  /// Makes the host's counts valid again, after `load()` has replaced them.
  void forget_device_counts() {
    if (capturable()) numbers_->forget_counts();
  }

  /// Begins a step whose numbers live on the devices; otherwise does nothing.
  void begin_capturable_step(bool has_closure) {
    if (!capturable()) return;
    if (!captures()) return upload_rates();
    TORCH_CHECK(!has_closure, Policy::kWho, ": expected no closure in a capture, whose replays do ",
                "not call it; capture forward and backward pass in front of step()");
  }

  /// Refuses in a capture what cannot be captured, and what cannot be stepped with numbers on the
  /// device.
  void check_capturable_step() const {
    const bool capturing = captures();
    TORCH_CHECK(capturable() || !capturing, Policy::kWho,
                ": expected make_capturable() before a capture, whose replays would otherwise ",
                "repeat one learning rate and one step count: call it, do some steps, then ",
                "capture; nothing was changed");
    if (!capturable()) return;
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      const Options& options = this->options_of(group);
      std::vector<at::Tensor> refused;
      const auto entries = this->collect(group, options, refused);
      // Base steps what has no elements, which changes nothing.
      refused.erase(std::remove_if(refused.begin(), refused.end(),
                                   [](const at::Tensor& tensor) { return tensor.numel() == 0; }),
                    refused.end());
      TORCH_CHECK(refused.empty(), Policy::kWho,
                  ": after make_capturable() expected parameters and ",
                  "gradients that the fused function takes, got one of shape ",
                  refused.front().sizes(), " in group ", group,
                  " that it does not: make both dense, without gaps and of one dtype, or give it ",
                  "to another optimizer; nothing was changed");
      if (!capturing) continue;
      bool ready = !Policy::kCounts || numbers_->complete(entries);
      for (const Entry& entry : entries) {
        const auto device = entry.parameter.device();
        TORCH_CHECK(capture::is_capturing(device), Policy::kWho,
                    ": expected every parameter on the device ", "of the capture, got one on ",
                    device, " in group ", group);
        ready = ready && numbers_->find_rate(group, device) != nullptr &&
                (entry.state != nullptr || !Policy::keeps_state(options));
      }
      TORCH_CHECK(ready, Policy::kWho, ": expected a step before the capture in which the same ",
                  "parameters had gradients, got none for group ", group,
                  ": warm up by some steps outside of the capture, after make_capturable() and ",
                  "load()");
    }
  }

  /// If the numbers live on the devices: creates missing state, and counts the step of all
  /// `entries` there at once, since parameters that are stepped together share a count.
  void count_on_devices(std::vector<Entry>& entries, const Options& options) {
    if (!capturable() || !Policy::keeps_state(options)) return;
    for (Entry& entry : entries) complete_state(entry, options);
    if constexpr (Policy::kCounts) {
      numbers_->count_step(entries, [](const Entry& entry) { return entry.state->step(); });
    }
  }

  /// If the numbers live on the host: does the same for one entry, right before its step.
  void count_on_host(Entry& entry, const Options& options) {
    if (capturable() || !Policy::keeps_state(options)) return;
    complete_state(entry, options);
    Policy::count_step(*entry.state);
  }

 private:
  bool resets_in_place() const override { return capturable(); }

  void reset_in_place(const capture::Chosen& chosen) override {
    TORCH_CHECK(!captures(), Policy::kWho, ": call reset_state() between replays, not within a ",
                "capture: every replay would begin anew");
    std::unordered_set<const capture::Cohort*> cohorts;
    for_each_state(chosen, [&](std::size_t group, const at::Tensor& parameter, State& /*state*/) {
      TORCH_CHECK(
          Policy::begins_in_place(this->options_of(group)), Policy::kWho,
          ": reset_state() after make_capturable() expected no dampening, got some in group ",
          group, ": the first step alone goes without, and a captured one is none; nothing ",
          "was changed");
      if (const auto* cohort = numbers_->find_cohort(parameter)) cohorts.insert(cohort);
    });
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      const auto& parameters = this->param_groups_[group].params();
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        const bool stays = chosen.count(parameters[i].unsafeGetTensorImpl()) == 0 &&
                           cohorts.count(numbers_->find_cohort(parameters[i])) != 0;
        TORCH_CHECK(!stays, Policy::kWho, ": reset_state() after make_capturable() expected all ",
                    "parameters of group ", group, " that share a step count, got some without ",
                    "parameter ", i, ": reset all of them, or put those that are to begin anew ",
                    "alone into a group of their own; nothing was changed");
      }
    }
    const at::NoGradGuard no_grad;
    for_each_state(chosen, [&](std::size_t group, const at::Tensor& /*parameter*/, State& state) {
      Policy::begin_in_place(state, this->options_of(group));
    });
    for (const auto* cohort : cohorts) cohort->count.zero_();
  }

  /// Calls `use(group, parameter, state)` for each chosen parameter that has a state.
  template <class Use>
  void for_each_state(const capture::Chosen& chosen, const Use& use) const {
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      for (const at::Tensor& parameter : this->param_groups_[group].params()) {
        if (chosen.count(parameter.unsafeGetTensorImpl()) == 0) continue;
        if (State* state = this->find_state(parameter)) use(group, parameter, *state);
      }
    }
  }

  bool captures() const { return capture::any_captures(this->param_groups_); }

  void upload_rates() {
    for (std::size_t group = 0; group < this->param_groups_.size(); ++group) {
      for (const auto device : capture::devices_of(this->param_groups_[group].params())) {
        numbers_->upload_rate(group, device, this->options_of(group).lr());
      }
    }
  }

  void complete_state(Entry& entry, const Options& options) {
    if (entry.state != nullptr) return;
    entry.state = this->make_state(entry.parameter, options);
    entry.first = true;
    if (capturable()) numbers_->leave(entry.parameter);
  }

  std::optional<capture::DeviceNumbers> numbers_;
};

}  // namespace lawn::detail::optim
