// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <ostream>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/pimpl.h>

#include <lawn/finite_math.h>

namespace lawn {

/// Options of `LastBatchNorm`. Checked when it is constructed.
struct LastBatchNormOptions {
  /// @param classes  number of classes, >= 1
  LastBatchNormOptions(int64_t classes) : classes_(classes) {}  // NOLINT: as LibTorch's own
  /// Number of classes, that is, of logits of a sample.
  TORCH_ARG(int64_t, classes);
  /// Factor of the normalised logits, finite and > 0.
  TORCH_ARG(double, scale) = 1;
  /// Momentum of the running statistics, in [0, 1].
  TORCH_ARG(double, momentum) = 0.1;
  /// Added to variances, > 0.
  TORCH_ARG(double, eps) = 1e-5;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(classes() >= 1, "lawn::LastBatchNorm: classes must be >= 1, got ", classes());
    TORCH_CHECK(std::isfinite(scale()) && scale() > 0,
                "lawn::LastBatchNorm: scale must be finite and > 0, got ", scale());
    TORCH_CHECK(momentum() >= 0 && momentum() <= 1,
                "lawn::LastBatchNorm: momentum must be in [0, 1], got ", momentum());
    TORCH_CHECK(std::isfinite(eps()) && eps() > 0,
                "lawn::LastBatchNorm: eps must be finite and > 0, got ", eps());
  }
};

/// MimicNorm's one normalisation: batch norm without parameters, on the logits, before the loss.
///
///   y_c = scale (x_c - mean(x_c)) / sqrt(var(x_c) + eps)          c a class
///
/// Means and variances are taken over the batch (and over positions, if there are any); in
/// evaluation mode the running ones are used. Logits of unit variance put a floor under the
/// cross-entropy: with n classes, each as frequent as the others, log(1 + (n - 1) exp(-scale n /
/// sqrt(n - 1))), 0.28 for 10 classes and 0.13 for 2 at a scale of 1. A larger scale lowers it.
///
/// @source  Fei et al. 2020, arXiv 2010.09278
class LastBatchNormImpl : public torch::nn::Cloneable<LastBatchNormImpl> {
 public:
  /// @throws c10::Error that names the option that is out of range
  explicit LastBatchNormImpl(const LastBatchNormOptions& options) : options_(options) {
    options_.validate();
    reset();
  }

  /// Resets the statistics to those of a new layer, in place.
  void reset() override {
    if (named_children().contains("norm")) {
      norm_->reset_running_stats();
      return;
    }
    norm_ = register_module("norm",
                            torch::nn::BatchNorm1d(torch::nn::BatchNormOptions(options_.classes())
                                                       .affine(false)
                                                       .momentum(options_.momentum())
                                                       .eps(options_.eps())));
  }

  /// @param logits  `[batch, classes]`, or `[batch, classes, ...]` with positions; floating point
  /// @return the same shape and dtype
  /// @throws c10::Error for another number of classes, and in training mode for a single value of
  ///         each class, which has no variance. Nothing is changed then
  /// @note   does not wait for the device
  at::Tensor forward(const at::Tensor& logits) {
    TORCH_CHECK(logits.dim() >= 2 && logits.size(1) == options_.classes(),
                "lawn::LastBatchNorm: expected logits of shape [batch, ", options_.classes(),
                "] or [batch, ", options_.classes(), ", ...], got ", logits.sizes());
    TORCH_CHECK(!is_training() || logits.numel() != options_.classes(),
                "lawn::LastBatchNorm: expected more than one value to a class while training, got ",
                "logits of shape ", logits.sizes(),
                "; drop the last batch of an epoch if it is of one image, or call eval()");
    const bool positions = logits.dim() > 2;
    auto normalised = norm_->forward(positions ? logits.flatten(2) : logits);
    if (positions) normalised = normalised.view(logits.sizes());
    return options_.scale() == 1 ? normalised : normalised * options_.scale();
  }

  /// Prints the name and the options.
  void pretty_print(std::ostream& stream) const override {
    stream << "lawn::LastBatchNorm(" << options_.classes() << ", scale=" << options_.scale() << ")";
  }

  /// The options that the constructor got.
  const LastBatchNormOptions& options() const { return options_; }

 private:
  LastBatchNormOptions options_;
  torch::nn::BatchNorm1d norm_{nullptr};
};

/// Handle of `LastBatchNormImpl`, which has the documentation.
TORCH_MODULE(LastBatchNorm);

}  // namespace lawn
