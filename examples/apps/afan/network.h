// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/init.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/pooling.h>

#include "examples/apps/support/classifier.h"
#include "examples/apps/support/resnet.h"

/// A residual network as a chain of nine modules, which can be split before each of them:
///   0 convolution, 1 batch norm, 2 ReLU, 3 to 5 a residual block of each width, 6 mean over
///   positions, 7 flatten, 8 linear head
class NetworkImpl : public examples::Classifier {
 public:
  /// @param width  channels of the first block; each further block has twice as many, at half the
  ///               image size
  NetworkImpl(int64_t width, int64_t channels, int64_t classes) {
    namespace nn = torch::nn;
    using examples::ResidualBlock;
    using examples::Shortcut;
    modules_ = register_module(
        "modules",
        nn::Sequential(examples::ResidualBlockImpl::convolution(channels, width, 3, 1),
                       nn::BatchNorm2d(width), nn::ReLU(),
                       ResidualBlock(width, width, 1, Shortcut::kPad),
                       ResidualBlock(width, 2 * width, 2, Shortcut::kPad),
                       ResidualBlock(2 * width, 4 * width, 2, Shortcut::kPad),
                       nn::AdaptiveAvgPool2d(1), nn::Flatten(), nn::Linear(4 * width, classes)));
    for (const at::Tensor& parameter : parameters()) {
      if (parameter.dim() == 4) {
        nn::init::kaiming_normal_(parameter, 0.0, torch::kFanOut, torch::kReLU);
      }
    }
  }

  at::Tensor forward(const at::Tensor& images) override { return modules_->forward(images); }

  torch::nn::SequentialImpl& chain() { return *modules_; }

  /// The input of the module of index `split`.
  at::Tensor head(int64_t split, const at::Tensor& images) { return run(0, split, images); }
  /// The logits that follow from that input.
  at::Tensor tail(int64_t split, const at::Tensor& features) {
    return run(split, static_cast<int64_t>(modules_->size()), features);
  }

 private:
  at::Tensor run(int64_t first, int64_t last, at::Tensor x) {
    for (int64_t index = first; index < last; ++index) {
      x = (modules_->begin() + index)->forward(x);
    }
    return x;
  }

  torch::nn::Sequential modules_;
};
TORCH_MODULE(Network);
