// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include <lawn/autocast.h>

#include "examples/apps/support/augment.h"
#include "examples/apps/support/classifier.h"
#include "examples/apps/support/dataset.h"
#include "examples/apps/support/ranks.h"

namespace examples {

/// Below this norm of d loss / d logits = softmax(logits) - one_hot(label) the gradient of an
/// example counts as vanished: the example no longer moves any weight. (The norm is at most
/// sqrt(2).)
constexpr double kVanishedGradient = 1e-4;

/// Bins of equal width into which the expected calibration error sorts confidences.
constexpr int64_t kCalibrationBins = 15;

/// What a network makes of a data set, as means over its examples.
struct Evaluation {
  double loss = 0;         ///< cross-entropy, in nats
  double accuracy = 0;     ///< share of examples whose largest logit is the label's
  double logit_norm = 0;   ///< Euclidean norm of an example's logits
  double vanished = 0;     ///< share of examples with a gradient below kVanishedGradient
  double calibration = 0;  ///< expected calibration error over kCalibrationBins
};

/// How a batch is fed to a network.
struct Feeding {
  ChannelStatistics statistics;
  at::Device device = at::kCPU;
  at::ScalarType precision = at::kFloat;  ///< kFloat, or what autocast computes in
  bool channels_last = true;

  /// Lays a network out as its input is, on the device. Call it before an optimizer makes its
  /// state.
  void place(torch::nn::Module& network) const {
    network.to(device);
    if (channels_last) to_channels_last(network);
  }

  /// What a network is given for a batch of bytes.
  at::Tensor input(const at::Tensor& images) const {
    const auto format =
        channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    return normalise(images.contiguous(format), statistics);
  }

  /// The network's float32 logits for a batch of bytes.
  at::Tensor logits(Classifier& network, const at::Tensor& images) const {
    const at::Tensor normalised = input(images);
    const lawn::Autocast autocast(device.type(), precision, precision != at::kFloat);
    return network.forward(normalised).to(at::kFloat);
  }
};

/// Sums over examples of what Evaluation holds: float64 [4], on the logits' device.
inline at::Tensor metric_sums(const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor log_probabilities = logits.to(at::kDouble).log_softmax(1);
  const at::Tensor loss = -log_probabilities.gather(1, labels.unsqueeze(1)).squeeze(1);
  // 1 - p of the label as -expm1(log p): with p near 1 the subtraction would leave only rounding
  // errors.
  const at::Tensor gradient =
      log_probabilities.exp().scatter(1, labels.unsqueeze(1), loss.neg().expm1().unsqueeze(1));
  return at::stack({loss.sum(), logits.argmax(1).eq(labels).sum().to(at::kDouble),
                    logits.to(at::kDouble).norm(2, {1}).sum(),
                    gradient.norm(2, {1}).lt(kVanishedGradient).sum().to(at::kDouble)});
}

/// How far accuracy and confidence lie apart, for confidences in bins ((b-1)/B, b/B]: float64 [B]
/// on the logits' device. The expected calibration error is the sum of their sizes over all
/// examples:
///   ECE = sum_b |gap_b| / N,   gap_b = sum over i in bin b of ([argmax_i = label_i] - max_c p_ic)
/// @source Guo et al. 2017, arXiv 1706.04599, eq. 3, with B = 15
inline at::Tensor calibration_gaps(const at::Tensor& logits, const at::Tensor& labels) {
  const auto [confidence, predicted] = logits.to(at::kDouble).softmax(1).max(1);
  const at::Tensor bin =
      (confidence * kCalibrationBins).ceil().sub(1).clamp(0, kCalibrationBins - 1).to(at::kLong);
  const at::Tensor bins = at::arange(kCalibrationBins, labels.options());
  // A product with ones and zeros, not index_add_: the same bits every time on a GPU, too.
  const at::Tensor member = bin.unsqueeze(0).eq(bins.unsqueeze(1)).to(at::kDouble);
  return member.mv(predicted.eq(labels).to(at::kDouble) - confidence);
}

/// Adds up what Evaluation holds, batch by batch, on the logits' device.
class EvaluationSums {
 public:
  explicit EvaluationSums(at::Device device)
      : sums_(at::zeros({4}, at::TensorOptions(at::kDouble).device(device))),
        gaps_(at::zeros({kCalibrationBins}, sums_.options())) {}

  void add(const at::Tensor& logits, const at::Tensor& labels) {
    sums_ += metric_sums(logits, labels);
    gaps_ += calibration_gaps(logits, labels);
  }

  /// The means over all examples of all ranks.
  /// @note waits for the device
  Evaluation mean(int64_t examples, Ranks& ranks) const {
    for (const at::Tensor& part : {sums_, gaps_}) ranks.sum_(part);
    const at::Tensor means =
        (at::cat({sums_, gaps_.abs().sum().unsqueeze(0)}) / static_cast<double>(examples)).cpu();
    const auto* mean = means.const_data_ptr<double>();
    return {mean[0], mean[1], mean[2], mean[3], mean[4]};
  }

 private:
  at::Tensor sums_;
  at::Tensor gaps_;
};

/// Runs a network over a data set in evaluation mode, without graph, in batches. Each rank runs
/// over its part, and all get the figures of the whole.
/// @note waits for the device; leaves the network in the mode in which it was
inline Evaluation evaluate(Classifier& network, const Dataset& data, const Feeding& feeding,
                           Ranks& ranks = alone(), int64_t batch_size = 500) {
  const at::NoGradGuard no_grad;
  const bool was_training = network.is_training();
  network.eval();
  EvaluationSums sums(data.images.device());
  const Part mine = ranks.part(0, data.size());
  for (int64_t begin = mine.begin; begin < mine.end; begin += batch_size) {
    const int64_t end = std::min(begin + batch_size, mine.end);
    const at::Tensor logits = feeding.logits(network, data.images.slice(0, begin, end));
    sums.add(logits, data.labels.slice(0, begin, end));
  }
  network.train(was_training);
  return sums.mean(data.size(), ranks);
}

/// Euclidean norm of each tensor, in one read from the device.
inline std::vector<double> norms(const std::vector<at::Tensor>& tensors) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> each;
  for (const at::Tensor& tensor : tensors) each.push_back(tensor.to(at::kDouble).norm());
  const at::Tensor host = at::stack(each).cpu();
  const auto* values = host.const_data_ptr<double>();
  return std::vector<double>(values, values + host.numel());
}

/// Euclidean norm of several tensors as one vector, from the norm of each.
inline double joint_norm(const std::vector<double>& norms) {
  double squares = 0;
  for (const double norm : norms) squares += norm * norm;
  return std::sqrt(squares);
}

}  // namespace examples
