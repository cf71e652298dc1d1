// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <iterator>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/optim/folded/dispatch.h>
#include <lawn/optim/folded/step.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/sphere.h>

/// How LAWN's projection and rescaling get into the base step of an optimizer that has room for
/// them.
namespace lawn::detail {

/// Whether `LAWN<Opt>` leaves them to `Opt`. Of the optimizers themselves alone: one derived from
/// them may move the weights after their step.
template <class Opt>
constexpr bool kFolds = false;

/// The layers of a constrained step, on their way from LAWN to the optimizer.
class Folding {
 public:
  /// Makes the next step project, and rescale, `layers`.
  /// @param layers  with gradients and radii; must live until then
  void fold(c10::ArrayRef<sphere::Layer> layers) { layers_ = layers; }

 protected:
  Folding() = default;

  c10::ArrayRef<sphere::Layer> take_layers() { return std::exchange(layers_, {}); }

 private:
  c10::ArrayRef<sphere::Layer> layers_;
};

/// In place of `Folding` where there is no folded form.
class NoFolding {
 protected:
  NoFolding() = default;

  static c10::ArrayRef<sphere::Layer> take_layers() { return {}; }
};

/// One optimizer step of one parameter group in which some parameters are constrained.
/// @tparam Rule  as of `Fused`, and
///   folded::Adam or folded::SGD folded_step(const Entry&, const Options&)
///   bool folds(const Options&)                              whether the step has a folded form
///   void set_moments(const Entry&, folded::Layer&)
///   bool same_step(const Entry&, const Entry&)              whether one folded_step serves both
template <class Rule>
class FoldedGroup {
 public:
  using Entry = typename Rule::Entry;
  using Options = typename Rule::Options;

  /// Takes those of `entries` that are constrained, and whose step folds, out of them.
  /// @param layers  of the whole step
  FoldedGroup(c10::ArrayRef<sphere::Layer> layers, const std::vector<at::Tensor>& parameters,
              std::vector<Entry>& entries, const Options& options) {
    if (layers.empty()) return;
    std::unordered_map<const c10::TensorImpl*, const sphere::Layer*> of_parameter;
    for (const auto& layer : layers) of_parameter[layer.weight.unsafeGetTensorImpl()] = &layer;
    const auto find = [&](const at::Tensor& parameter) {
      const auto found = of_parameter.find(parameter.unsafeGetTensorImpl());
      return found == of_parameter.end() ? nullptr : found->second;
    };
    std::vector<Entry> others;
    for (Entry& entry : entries) {
      const sphere::Layer* layer = find(entry.parameter);
      if (layer != nullptr && Rule::folds(options) && takes(*layer, entry)) {
        folded_.push_back({std::move(entry), *layer});
        of_parameter.erase(layer->weight.unsafeGetTensorImpl());
      } else {
        others.push_back(std::move(entry));
      }
    }
    entries = std::move(others);
    for (const at::Tensor& parameter : parameters) {
      const sphere::Layer* layer = find(parameter);
      if (layer != nullptr) apart_.push_back(*layer);
    }
  }

  /// Before the optimizer's step: projects what is not folded.
  void begin() const { sphere::project_to_tangent_(apart_); }

  /// Makes the folded steps, and rescales what is not folded.
  void finish(const Options& options) {
    auto begin = folded_.begin();
    while (begin != folded_.end()) {
      const Item first = *begin;
      const auto end = std::stable_partition(begin, folded_.end(), [&](const Item& item) {
        return item.layer.weight.device() == first.layer.weight.device() &&
               Rule::same_step(item.entry, first.entry);
      });
      std::vector<folded::Layer> layers;
      for (auto item = begin; item != end; ++item) layers.push_back(flatten(*item));
      folded::step(first.layer.weight.device(), layers, Rule::folded_step(first.entry, options));
      std::for_each(begin, end,
                    [](const Item& item) { sphere::bump_version(item.entry.parameter); });
      begin = end;
    }
    sphere::rescale_(apart_);
  }

  /// The entries that were taken out, to be counted with the others.
  template <class Use>
  void for_each_entry(const Use& use) {
    for (Item& item : folded_) use(item.entry);
  }

 private:
  struct Item {
    Entry entry;
    sphere::Layer layer;
  };

  static bool takes(const sphere::Layer& layer, const Entry& entry) {
    auto seen = layer;
    seen.gradient = entry.gradient;
    return folded::has_steps(layer.weight.device()) && layer.radius.defined() &&
           sphere::is_flat(seen);
  }

  static folded::Layer flatten(const Item& item) {
    auto seen = item.layer;
    seen.gradient = item.entry.gradient;
    folded::Layer layer;
    static_cast<sphere::Flat&>(layer) = sphere::flatten(seen);
    Rule::set_moments(item.entry, layer);
    return layer;
  }

  std::vector<Item> folded_;
  std::vector<sphere::Layer> apart_;
};

}  // namespace lawn::detail
