// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <type_traits>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/sequential.h>

#include <lawn/companions/afan/feature_pgd.h>
#include <lawn/companions/afan/freeze_batch_norm.h>
#include <lawn/companions/afan/mix_features.h>

namespace lawn {

/// Options of `afan_loss`. Checked in each call.
struct AFANOptions {
  /// How the features are perturbed.
  TORCH_ARG(PerturbationOptions, perturbation) = {};
  /// Points on the line from clean to perturbed features, each in [0, 1]; their losses are
  /// averaged.
  TORCH_ARG(std::vector<double>, strengths) = {1.0};
  /// Which statistics `mix_features` transfers from the perturbed to the clean features; with none,
  /// the perturbed features themselves are used.
  TORCH_ARG(std::optional<FeatureStatistics>, normalisation) = FeatureStatistics::kOverChannels;
  /// Whether the passes with perturbed features, after the inner steps, update running statistics.
  TORCH_ARG(bool, adversarial_statistics) = false;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    perturbation().validate();
    TORCH_CHECK(!strengths().empty(), "lawn::afan_loss: expected at least one of strengths, got ",
                "none");
    for (const double strength : strengths()) {
      TORCH_CHECK(strength >= 0 && strength <= 1,
                  "lawn::afan_loss: strengths must be in [0, 1], got ", strength);
    }
  }
};

namespace detail::afan {

/// `criterion(tail(features), y)`, with a message that says what does not fit.
template <class Tail, class Criterion>
at::Tensor loss_of_features(Tail& tail, const at::Tensor& features, const at::Tensor& y,
                            const Criterion& criterion) {
  at::Tensor output;
  try {
    output = tail(features);
  } catch (const c10::Error& error) {
    TORCH_CHECK(false, "lawn::afan_loss: expected a tail that takes the head's output, got one ",
                "that refuses features of shape ", features.sizes(), " and dtype ",
                features.scalar_type(), ": ", error.what_without_backtrace());
  }
  at::Tensor loss = criterion(output, y);
  TORCH_CHECK(loss.defined() && loss.numel() == 1,
              "lawn::afan_loss: expected a criterion that gives one element, got ",
              loss.defined() ? "shape " : "an undefined tensor",
              loss.defined() ? loss.sizes() : at::IntArrayRef(), "; take the mean");
  return loss;
}

}  // namespace detail::afan

/// A-FAN's loss for training on clean and on adversarial features.
///
///   f = head(x),  f' = feature_pgd of f without its graph,
///   L = (loss(tail(f), y) + mean over strengths a of loss(tail(n(f + a (f' - f))), y)) / 2
///
/// n is `normalisation`, by default `mix_features(f, .)`. The tail learns from both terms, the head
/// from the clean one alone. A perturbation of zero (`steps` or `step_size` 0) gives the clean
/// loss, to the bit.
/// @param head       x -> features `[batch, channels, ...]`, floating point
/// @param tail       features -> output; a function, or a module's handle as `head`; called
///                   1 + steps + strengths times, with `kRandomSigns` 1 + strengths times
/// @param x          the input of the network
/// @param y          the target, as `criterion` takes it
/// @param criterion  (output, y) -> a tensor of one element
/// @param options    checked before anything is called
/// @param module     module whose running statistics only the clean pass may update: the whole
///                   network, or the tail. If null, every pass updates them
/// @return the loss, with its graph; the caller calls `backward()`
/// @throws c10::Error for options out of range, before anything is called; for features that are
///         not of floating point, a tail that does not take them, and a criterion of more than one
///         element, before gradients or parameters are changed
/// @note   does not wait for the device
/// @source Chen et al. 2021, arXiv 2103.12171; the mean over strengths is this library's
template <class Head, class Tail, class Criterion,
          class = std::enable_if_t<std::is_invocable_v<Head&, const at::Tensor&>>>
at::Tensor afan_loss(Head&& head, Tail&& tail, const at::Tensor& x, const at::Tensor& y,
                     const Criterion& criterion, const AFANOptions& options = {},
                     torch::nn::Module* module = nullptr) {
  options.validate();
  const at::Tensor features = head(x);
  TORCH_CHECK(features.defined() && features.is_floating_point(),
              "lawn::afan_loss: expected a head that gives features of floating point, got ",
              features.defined() ? c10::toString(features.scalar_type()) : "an undefined tensor");
  const auto clean_loss = detail::afan::loss_of_features(tail, features, y, criterion);
  if (options.perturbation().is_nothing()) return clean_loss;

  const auto loss = [&](const at::Tensor& some) {
    return detail::afan::loss_of_features(tail, some, y, criterion);
  };
  std::optional<FreezeBatchNormStatistics> frozen;
  if (module != nullptr) frozen.emplace(*module);
  const auto clean = features.detach();
  const auto perturbed = feature_pgd(clean, loss, options.perturbation());
  if (options.adversarial_statistics()) frozen.reset();
  at::Tensor adversarial_loss;
  for (const double strength : options.strengths()) {
    auto point = strength == 1 ? perturbed : clean + strength * (perturbed - clean);
    if (options.normalisation()) point = mix_features(clean, point, *options.normalisation());
    const auto of_point = loss(point);
    adversarial_loss = adversarial_loss.defined() ? adversarial_loss + of_point : of_point;
  }
  const auto points = static_cast<double>(options.strengths().size());
  return (clean_loss + adversarial_loss / points) / 2;
}

/// The same for a `Sequential`, split before the module with index `split`. Only the clean pass
/// updates running statistics.
/// @param network    its modules take one tensor and return one
/// @param split      from 0, where the input itself is perturbed, to the last module's index
/// @param x          the input of the network
/// @param y          the target, as `criterion` takes it
/// @param criterion  as above
/// @param options    checked before anything is called
/// @throws c10::Error  also for a split outside the network, before anything is called
template <class Criterion>
at::Tensor afan_loss(torch::nn::SequentialImpl& network, int64_t split, const at::Tensor& x,
                     const at::Tensor& y, const Criterion& criterion,
                     const AFANOptions& options = {}) {
  const auto size = static_cast<int64_t>(network.size());
  TORCH_CHECK(split >= 0 && split < size, "lawn::afan_loss: expected a split from 0 to ", size - 1,
              ", the index of the network's last module, got ", split);
  const auto run = [&network](int64_t first, int64_t last, at::Tensor value) {
    for (auto module = std::next(network.begin(), first);
         module != std::next(network.begin(), last); ++module) {
      value = module->forward(value);
    }
    return value;
  };
  return afan_loss([&](const at::Tensor& input) { return run(0, split, input); },
                   [&](const at::Tensor& features) { return run(split, size, features); }, x, y,
                   criterion, options, &network);
}

}  // namespace lawn
