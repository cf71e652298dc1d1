// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <lawn/companions/afan/afan_loss.h>
#include <lawn/companions/afan/feature_pgd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "examples/apps/afan/network.h"
#include "examples/apps/support/classification.h"
#include "examples/apps/support/metrics.h"

/// Trains a network by afan_loss(). The figures of a batch are those of its clean pass.
class AdversarialClassification : public examples::Classification {
 public:
  /// @param split  index of the module that the features go into
  AdversarialClassification(std::shared_ptr<NetworkImpl> network, examples::Split data,
                            examples::Feeding feeding, examples::ClassificationOptions options,
                            int64_t split, lawn::AFANOptions afan)
      : Classification(network, std::move(data), std::move(feeding), options),
        network_(std::move(network)),
        split_(split),
        afan_(std::move(afan)) {}

 protected:
  Batch on_batch(const at::Tensor& images, const at::Tensor& labels) override {
    at::Tensor clean;  // logits of the first pass, which is the clean one
    const auto criterion = [&clean](const at::Tensor& logits, const at::Tensor& classes) {
      if (!clean.defined()) clean = logits.detach();
      return at::cross_entropy_loss(logits, classes);
    };
    const at::Tensor loss = lawn::afan_loss(network_->chain(), split_, feeding().input(images),
                                            labels, criterion, afan_);
    return {loss, examples::metric_sums(clean, labels).slice(0, 0, 2)};
  }

 private:
  std::shared_ptr<NetworkImpl> network_;
  int64_t split_;
  lawn::AFANOptions afan_;
};

/// What a network makes of perturbed features.
struct Perturbed {
  double loss = 0;      ///< cross-entropy, in nats
  double accuracy = 0;  ///< share of images whose largest logit is the label's
};

/// Loss and accuracy over a data set in evaluation mode, with perturbed features.
/// @note waits for the device; leaves the network in the mode in which it was
inline Perturbed evaluate_perturbed(NetworkImpl& network, const examples::Dataset& data,
                                    const examples::Feeding& feeding, int64_t split,
                                    const lawn::PerturbationOptions& perturbation,
                                    int64_t batch_size = 500) {
  const bool was_training = network.is_training();
  network.eval();
  at::Tensor sums = at::zeros({4}, data.images.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < data.size(); begin += batch_size) {
    const int64_t end = std::min(begin + batch_size, data.size());
    const at::Tensor labels = data.labels.slice(0, begin, end);
    const at::NoGradGuard no_grad;
    const at::Tensor features =
        network.head(split, feeding.input(data.images.slice(0, begin, end)));
    const auto loss = [&](const at::Tensor& some) {
      return at::cross_entropy_loss(network.tail(split, some), labels);
    };
    const at::Tensor perturbed = lawn::feature_pgd(features, loss, perturbation);
    sums += examples::metric_sums(network.tail(split, perturbed), labels);
  }
  network.train(was_training);
  const at::Tensor means = (sums / static_cast<double>(data.size())).cpu();
  return {means[0].item<double>(), means[1].item<double>()};
}
