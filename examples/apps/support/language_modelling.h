// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/metrics.h"
#include "examples/apps/support/table.h"
#include "examples/apps/support/task.h"
#include "examples/apps/support/text.h"
#include "examples/apps/support/transformer.h"

namespace examples {

/// How a network is trained to continue a text.
struct LanguageModellingOptions {
  int64_t context = 64;      ///< characters of a window
  int64_t windows = 1920;    ///< of an epoch, drawn anew
  int64_t probe_size = 500;  ///< windows of each part of the text that are measured every epoch
};

/// Trains a network to predict each character of a text from those before it, by cross-entropy. The
/// samples are windows of the text, each of `context` characters and the next one.
class LanguageModelling : public Task {
 public:
  /// Inputs, and the outputs that are wanted.
  struct Windows {
    at::Tensor inputs;   ///< int64 [N, context]
    at::Tensor targets;  ///< int64 [N, context]: the character after each
  };

  /// @param network  trained in place; must stay on the text's device
  LanguageModelling(Transformer network, TextSplit text, LanguageModellingOptions options)
      : network_(std::move(network)), text_(std::move(text)), options_(options) {
    TORCH_CHECK(options_.context > 0 && options_.windows > 0 && options_.probe_size > 0,
                "LanguageModelling: expected a context, windows and a probe > 0, got ",
                options_.context, ", ", options_.windows, " and ", options_.probe_size);
  }

  torch::nn::Module& network() override { return *network_; }
  at::Device device() const override { return text_.train.tokens.device(); }
  std::string unit() const override { return "windows"; }
  int64_t size() const override { return options_.windows; }

  void begin_epoch(at::Generator& generator) override {
    starts_ = at::randint(text_.train.size() - options_.context, {options_.windows}, generator,
                          at::TensorOptions(at::kLong))
                  .to(device());
  }

  Batch batch(int64_t begin, int64_t end, at::Generator& /*generator*/) override {
    const Windows windows = epoch_windows(begin, end);
    const at::Tensor loss =
        at::cross_entropy_loss(network_(windows.inputs).flatten(0, 1), windows.targets.flatten());
    return {loss, (loss.detach().to(at::kDouble) * (end - begin)).unsqueeze(0)};
  }

  std::vector<std::string> batch_columns() const override { return {"batch_loss"}; }

  std::vector<std::string> columns() const override {
    return {"train_loss", "train_accuracy", "train_logit_norm", "train_vanished",
            "test_loss",  "test_accuracy",  "test_logit_norm"};
  }

  /// The score is the chance that the network gives the right character, as a geometric mean:
  /// exp(-loss).
  Measured measure() override {
    const Evaluation train = evaluated(text_.train, options_.probe_size);
    const Evaluation test = evaluated(text_.test, options_.probe_size);
    return {{train.loss, train.accuracy, train.logit_norm, train.vanished, test.loss, test.accuracy,
             test.logit_norm},
            std::exp(-test.loss),
            "train loss " + fixed(train.loss, 4) + "  test loss " + fixed(test.loss, 4) +
                " accuracy " + percent(test.accuracy) + "  logit norm " +
                fixed(train.logit_norm, 2)};
  }

  /// The same over all of the text that is tested on, and over as many windows of the other.
  Evaluation on_test_text() { return evaluated(text_.test, whole_windows(text_.test)); }
  Evaluation on_training_text() { return evaluated(text_.train, whole_windows(text_.test)); }

  /// The samples [begin, end) of this epoch.
  Windows epoch_windows(int64_t begin, int64_t end) const {
    return windows_at(text_.train, starts_.slice(0, begin, end));
  }

 private:
  static constexpr int64_t kAtOnce = 64;  ///< windows measured at once, to bound memory

  Windows windows_at(const Text& text, const at::Tensor& starts) const {
    const at::Tensor places =
        starts.unsqueeze(1) + at::arange(options_.context + 1, starts.options());
    const at::Tensor tokens = text.tokens.index_select(0, places.flatten()).view_as(places);
    return {tokens.slice(1, 0, options_.context), tokens.slice(1, 1)};
  }

  /// The number of adjacent windows. Every character in them is predicted once, except the first.
  int64_t whole_windows(const Text& text) const { return (text.size() - 1) / options_.context; }

  /// Measures `count` of the windows that lie side by side, evenly spread, or all.
  Evaluation evaluated(const Text& text, int64_t count) {
    const at::NoGradGuard no_grad;
    const bool was_training = network_->is_training();
    network_->eval();
    const int64_t all = whole_windows(text);
    const int64_t measured = std::min(count, all);
    const at::Tensor starts =
        at::arange(measured, text.tokens.options()).mul(all).floor_divide(measured) *
        options_.context;
    EvaluationSums sums(device());
    for (int64_t begin = 0; begin < measured; begin += kAtOnce) {
      const Windows windows =
          windows_at(text, starts.slice(0, begin, std::min(begin + kAtOnce, measured)));
      sums.add(network_(windows.inputs).flatten(0, 1), windows.targets.flatten());
    }
    network_->train(was_training);
    return sums.mean(measured * options_.context, ranks());
  }

  Transformer network_;
  TextSplit text_;
  LanguageModellingOptions options_;
  at::Tensor starts_;  ///< of this epoch's windows
};

}  // namespace examples
