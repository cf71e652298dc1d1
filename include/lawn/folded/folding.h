// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/capture/device_numbers.h>
#include <lawn/capture/phase_clock.h>
#include <lawn/folded/dispatch.h>
#include <lawn/folded/step.h>
#include <lawn/parameters/for_each_alike.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/functions.h>
#include <lawn/sphere/layer.h>

/// Passes LAWN's projection and rescaling to an optimizer that folds them into its own step.
namespace lawn::detail::folded {

/// Whether `LAWN<Opt>` can move its phase to the device. It can only with the fused optimizers, and
/// no class derived from them: their steps differ only in numbers, which can be kept on the device.
template <class Opt>
constexpr bool kIsCapturable = false;

/// Whether `LAWN<Opt>` leaves projection and rescaling to `Opt`. It does so only with the
/// optimizers themselves, since a derived class may move the weights after its step.
template <class Opt>
constexpr bool kFoldsInto = false;

/// What LAWN passes to the optimizer for a step.
struct Folded {
  c10::ArrayRef<sphere::Layer> layers;
  /// Says whether the step takes the radii; null if there are no layers.
  const capture::PhaseClock* clock = nullptr;
};

/// The layers of a constrained step, on their way from LAWN to the optimizer.
class Folding {
 public:
  /// Makes the next step project and rescale `layers`.
  /// @param layers  with gradients and radii; must live until the end of that step
  /// @param clock   must live until then
  void fold(c10::ArrayRef<sphere::Layer> layers, const capture::PhaseClock& clock) {
    folded_ = {layers, &clock};
  }

 protected:
  Folding() = default;

  Folded take_layers() { return std::exchange(folded_, {}); }

 private:
  Folded folded_;
};

/// Replaces `Folding` if there is no folded form.
class NoFolding {
 protected:
  NoFolding() = default;

  static Folded take_layers() { return {}; }
};

/// One optimizer step of one parameter group in which some parameters are constrained.
/// @tparam Policy  as of `Fused`, and
///   folded::Adam or folded::SGD folded_step(const Entry&, const Options&)
///   folded::DeviceAdam or folded::DeviceSGD device_step(const Entry&, const Options&)
///                                                           all of it but what `at` says
///   bool folds(const Options&)                              whether the step has a folded form
///   void set_moments(const Entry&, folded::FlatLayer&)
///   bool same_step(const Entry&, const Entry&)              whether one folded_step serves both
template <class Policy>
class FoldedGroup {
 public:
  using Entry = typename Policy::Entry;
  using Options = typename Policy::Options;

  /// Takes out of `entries` the constrained ones whose step folds.
  /// @param layers  all layers of the step
  FoldedGroup(const Folded& folded, const std::vector<at::Tensor>& parameters,
              std::vector<Entry>& entries, const Options& options)
      : clock_(folded.clock) {
    const auto layers = folded.layers;
    if (layers.empty()) return;
    std::unordered_map<const c10::TensorImpl*, std::size_t> of_parameter;  // not taken out yet
    for (std::size_t i = 0; i < layers.size(); ++i) {
      of_parameter[layers[i].weight.unsafeGetTensorImpl()] = i;
    }
    const auto find = [&](const at::Tensor& parameter) {
      const auto found = of_parameter.find(parameter.unsafeGetTensorImpl());
      return found == of_parameter.end() ? nullptr : &layers[found->second];
    };
    folded_.reserve(entries.size());
    std::vector<Entry> others;
    for (Entry& entry : entries) {
      const sphere::Layer* layer = find(entry.parameter);
      if (layer == nullptr) {
        others.push_back(std::move(entry));
        continue;
      }
      of_parameter.erase(layer->weight.unsafeGetTensorImpl());
      if (Policy::folds(options) && takes(*layer, entry)) {
        folded_.push_back({std::move(entry), layer});
      } else {
        apart_.push_back(*layer);
        apart_.back().gradient = entry.gradient;  // a copy if the memory orders differ
        others.push_back(std::move(entry));
      }
    }
    entries = std::move(others);
    for (const at::Tensor& parameter : parameters) {
      const sphere::Layer* layer = find(parameter);
      if (layer != nullptr) apart_.push_back(*layer);
    }
  }

  /// Projects the layers that are not folded; to be called before the optimizer's step.
  void begin() const {
    if (clock_ != nullptr && clock_->on_devices()) take_radii();
    sphere::project_to_tangent_(apart_);
  }

  /// Makes the folded steps, and rescales the layers that are not folded.
  /// @param rate_on  gives the learning rate on a device, or null if `options` has it
  template <class RateOn>
  void finish(const Options& options, const RateOn& rate_on) {
    const auto alike = [](const Item& a, const Item& b) {
      return a.entry.parameter.device() == b.entry.parameter.device() &&
             Policy::same_step(a.entry, b.entry);
    };
    parameters::for_each_alike(folded_, alike, [&](auto begin, auto end) {
      const Entry& first = begin->entry;
      const auto device = first.parameter.device();
      std::vector<folded::FlatLayer> layers;
      layers.reserve(static_cast<std::size_t>(end - begin));
      std::transform(begin, end, std::back_inserter(layers), flatten);
      if (const capture::DeviceRate* rate = rate_on(device)) {
        auto step = Policy::device_step(first, options);
        step.at = on_device(*rate, first, device);
        folded::step_on_device(device, layers, step);
      } else {
        folded::step(device, layers, Policy::folded_step(first, options));
      }
      std::for_each(begin, end,
                    [](const Item& item) { sphere::bump_version(item.entry.parameter); });
    });
    sphere::rescale_(apart_);
  }

  /// Calls `use` for the entries that were taken out, to count their steps.
  template <class Use>
  void for_each_entry(const Use& use) {
    for (Item& item : folded_) use(item.entry);
  }

 private:
  struct Item {
    Entry entry;
    const sphere::Layer* layer;  ///< one of `Folded`
  };

  /// Takes the radii of the layers whose steps do not read the clock themselves.
  void take_radii() const {
    auto layers = apart_;
    for (const Item& item : folded_) {
      if (item.entry.parameter.is_cpu()) layers.push_back(*item.layer);
    }
    clock_->take_radii(layers);
  }

  folded::OnDevice on_device(const capture::DeviceRate& rate, const Entry& entry,
                             at::Device device) const {
    folded::OnDevice at;
    at.lr = rate.wide.const_data_ptr<double>();
    if (entry.count.defined()) at.step_count = entry.count.template const_data_ptr<float>();
    if (clock_ != nullptr) {
      at.clock = clock_->data_on(device);
      at.radius_scale = clock_->radius_scale();
    }
    return at;
  }

  static bool takes(const sphere::Layer& layer, const Entry& entry) {
    return folded::has_steps(layer.weight.device()) && layer.radius.defined() &&
           sphere::is_flat(layer, entry.gradient);
  }

  static folded::FlatLayer flatten(const Item& item) {
    folded::FlatLayer layer;
    static_cast<sphere::Flat&>(layer) = sphere::flatten(*item.layer, item.entry.gradient);
    Policy::set_moments(item.entry, layer);
    return layer;
  }

  const capture::PhaseClock* clock_;
  std::vector<Item> folded_;
  std::vector<sphere::Layer> apart_;
};

}  // namespace lawn::detail::folded
