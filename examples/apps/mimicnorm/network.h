// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/mimicnorm/last_batch_norm.h>
#include <lawn/companions/mimicnorm/residual_scale.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "examples/apps/support/classifier.h"
#include "examples/apps/support/resnet.h"

/// What is between the layers of a network, and behind the last.
struct NetworkOptions {
  bool residual = false;    ///< blocks of two convolutions with a shortcut, instead of a chain
  bool batch_norm = false;  ///< behind each convolution
  bool last_norm = false;   ///< of the logits
  bool centred = false;     ///< decides where residual scales start
  double logit_scale = 1;   ///< of the last norm
  int64_t channels = 3;     ///< of the images: 1 or 3
  int64_t classes = 10;
};

/// Thirteen convolutions of 3x3, in three stages of 16, 32 and 64 channels, of which the second and
/// the third halve the image, and a linear head. All networks of the table are this one, so that
/// one seed gives the same weights, except where MimicNorm's initialisation changes them.
class NetworkImpl : public examples::Classifier {
 public:
  explicit NetworkImpl(const NetworkOptions& options) : residual_(options.residual) {
    int64_t in = options.channels;
    const auto add = [&](int64_t out, int64_t stride) {
      const std::string number = std::to_string(convolutions_.size() + 1);
      convolutions_.push_back(register_module(
          "conv" + number,
          torch::nn::Conv2d(
              torch::nn::Conv2dOptions(in, out, 3).stride(stride).padding(1).bias(false))));
      if (options.batch_norm) {
        norms_.push_back(register_module("norm" + number, torch::nn::BatchNorm2d(out)));
      }
      in = out;
    };
    add(kWidths.front(), 1);
    for (const int64_t width : kWidths) {
      for (int64_t block = 0; block < kBlocks; ++block) {
        add(width, width != in ? 2 : 1);
        add(width, 1);
        if (!options.residual || options.batch_norm) continue;
        const auto count = static_cast<int64_t>(scales_.size()) + 1;
        // Without centring the branch loses nothing that a start above 1 would restore.
        scales_.push_back(register_module(
            "scale" + std::to_string(count),
            lawn::ResidualScale(
                lawn::ResidualScaleOptions(count).convolutions(options.centred ? 2 : 0))));
      }
    }
    head_ = register_module("head", torch::nn::Linear(in, options.classes));
    if (options.last_norm) {
      last_norm_ = register_module(
          "last_norm", lawn::LastBatchNorm(
                           lawn::LastBatchNormOptions(options.classes).scale(options.logit_scale)));
    }
  }

  at::Tensor forward(const at::Tensor& images) override {
    at::Tensor x = at::relu(convolve(0, images));
    for (size_t index = 1; index < convolutions_.size(); index += 2) {
      const at::Tensor hidden = convolve(index + 1, at::relu(convolve(index, x)));
      x = residual_ ? join(index / 2, hidden, x) : at::relu(hidden);
    }
    const at::Tensor logits = head_(x.mean({2, 3}));
    return last_norm_.is_empty() ? logits : last_norm_(logits);
  }

 private:
  static inline const std::vector<int64_t> kWidths = {16, 32, 64};
  static constexpr int64_t kBlocks = 2;  ///< of two convolutions, in each stage

  at::Tensor convolve(size_t index, const at::Tensor& x) {
    const at::Tensor y = convolutions_[index](x);
    return norms_.empty() ? y : norms_[index](y);
  }

  /// The end of a residual block.
  at::Tensor join(size_t block, const at::Tensor& branch, const at::Tensor& x) {
    const int64_t stride = (x.size(2) + branch.size(2) - 1) / branch.size(2);
    const at::Tensor shortcut = examples::padded_shortcut(x, stride, branch.size(1) - x.size(1));
    return scales_.empty() ? at::relu(branch + shortcut) : scales_[block](branch, shortcut);
  }

  bool residual_;
  std::vector<torch::nn::Conv2d> convolutions_;
  std::vector<torch::nn::BatchNorm2d> norms_;
  std::vector<lawn::ResidualScale> scales_;
  torch::nn::Linear head_{nullptr};
  lawn::LastBatchNorm last_norm_{nullptr};
};
TORCH_MODULE(Network);

/// He's initialisation without MimicNorm's centring, with the same draws as
/// lawn::mimic_norm_init_().
inline void he_init_(torch::nn::Module& network) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : network.parameters()) {
    if (parameter.dim() < 2) continue;
    const auto fan_in = static_cast<double>(parameter.numel() / parameter.size(0));
    parameter.normal_(0, std::sqrt(2 / fan_in));
  }
  for (auto& item : network.named_parameters()) {
    const std::string& name = item.key();
    if (name == "head.bias") item.value().zero_();
  }
}
