// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/mimicnorm/residual_scale.h>
#include <torch/nn/functional/activation.h>
#include <torch/nn/functional/padding.h>
#include <torch/nn/init.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/classifier.h"

namespace examples {

/// How a residual block's shortcut passes a change of width or resolution (He et al. 2015, 3.3).
enum class Shortcut {
  kPad,         ///< option A: take every second pixel, append channels of zeros; no parameters
  kConvolution  ///< option B: a 1x1 convolution and a batch norm
};

/// A shortcut without parameters: option A.
/// @param x       [N, C, H, W]
/// @param stride  1, or 2 to take every second pixel
/// @param added   channels of zeros to append
inline at::Tensor padded_shortcut(const at::Tensor& x, int64_t stride, int64_t added) {
  if (stride == 1 && added == 0) return x;
  namespace F = torch::nn::functional;
  const at::Tensor thinned = x.slice(2, 0, {}, stride).slice(3, 0, {}, stride);
  return F::pad(thinned, F::PadFuncOptions({0, 0, 0, 0, 0, added}));
}

/// Two 3x3 convolutions with batch norm, and a shortcut around them:
///   y = relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x))
/// or without normalisation, with a learned scale s that starts at 1 / the number of the block:
///   y = relu(s conv2(relu(conv1(x))) + shortcut(x))
class ResidualBlockImpl : public torch::nn::Module {
 public:
  /// @param scaled  0 for batch norm; without it the number of the block, from 1
  ResidualBlockImpl(int64_t in, int64_t out, int64_t stride, Shortcut shortcut, int64_t scaled = 0)
      : stride_(stride),
        added_channels_(out - in),
        conv1_(register_module("conv1", convolution(in, out, 3, stride))) {
    if (scaled == 0) norm1_ = register_module("norm1", torch::nn::BatchNorm2d(out));
    conv2_ = register_module("conv2", convolution(out, out, 3, 1));
    if (scaled == 0) norm2_ = register_module("norm2", torch::nn::BatchNorm2d(out));
    if (scaled > 0) {
      TORCH_CHECK(shortcut == Shortcut::kPad,
                  "ResidualBlock: a convolution in the shortcut needs the batch norm");
      scale_ = register_module(
          "scale", lawn::ResidualScale(lawn::ResidualScaleOptions(scaled).convolutions(0)));
    }
    if (shortcut == Shortcut::kConvolution && (stride != 1 || in != out)) {
      projection_ = register_module("projection", convolution(in, out, 1, stride));
      projection_norm_ = register_module("projection_norm", torch::nn::BatchNorm2d(out));
    }
  }

  at::Tensor forward(const at::Tensor& x) {
    if (!scale_.is_empty()) return scale_(conv2_(at::relu(conv1_(x))), shortcut(x));
    const at::Tensor hidden = at::relu(norm1_(conv1_(x)));
    return at::relu(norm2_(conv2_(hidden)) + shortcut(x));
  }

  /// A convolution without bias (a batch norm follows) that keeps the resolution at stride 1.
  static torch::nn::Conv2d convolution(int64_t in, int64_t out, int64_t size, int64_t stride) {
    return torch::nn::Conv2d(
        torch::nn::Conv2dOptions(in, out, size).stride(stride).padding(size / 2).bias(false));
  }

 private:
  at::Tensor shortcut(const at::Tensor& x) {
    if (!projection_.is_empty()) return projection_norm_(projection_(x));
    return padded_shortcut(x, stride_, added_channels_);
  }

  int64_t stride_;
  int64_t added_channels_;
  torch::nn::Conv2d conv1_;
  torch::nn::BatchNorm2d norm1_{nullptr};
  torch::nn::Conv2d conv2_{nullptr};
  torch::nn::BatchNorm2d norm2_{nullptr};
  lawn::ResidualScale scale_{nullptr};
  torch::nn::Conv2d projection_{nullptr};
  torch::nn::BatchNorm2d projection_norm_{nullptr};
};
TORCH_MODULE(ResidualBlock);

/// What tells one residual network for small images from another.
struct ResNetOptions {
  std::vector<int64_t>
      widths;  ///< channels of each stage; each stage after the first halves the image
  int64_t blocks_per_stage = 3;  ///< residual blocks in each stage
  Shortcut shortcut = Shortcut::kPad;
  int64_t channels = 3;  ///< of the images: 1 or 3
  int64_t classes = 10;
  bool batch_norm = true;  ///< without it a learned scale ends each block, for Shortcut::kPad alone
};

/// Residual network with the stem for small images (one 3x3 convolution, no pooling): any
/// resolution that survives the halvings, among them 28 and 32 pixels.
/// @source He et al. 2015, arXiv 1512.03385, section 4.2
class ResNetImpl : public Classifier {
 public:
  explicit ResNetImpl(const ResNetOptions& options)
      : stem_(register_module(
            "stem", ResidualBlockImpl::convolution(options.channels, options.widths.at(0), 3, 1))),
        head_(nullptr) {
    if (options.batch_norm) {
      stem_norm_ = register_module("stem_norm", torch::nn::BatchNorm2d(options.widths.at(0)));
    }
    int64_t blocks_so_far = 0;
    int64_t in = options.widths.front();
    for (size_t stage = 0; stage < options.widths.size(); ++stage) {
      torch::nn::Sequential blocks;
      for (int64_t block = 0; block < options.blocks_per_stage; ++block) {
        const int64_t stride = (stage > 0 && block == 0) ? 2 : 1;
        ++blocks_so_far;
        blocks->push_back(ResidualBlock(in, options.widths[stage], stride, options.shortcut,
                                        options.batch_norm ? 0 : blocks_so_far));
        in = options.widths[stage];
      }
      stages_.push_back(register_module("stage" + std::to_string(stage + 1), std::move(blocks)));
    }
    head_ = register_module("head", torch::nn::Linear(in, options.classes));
    for (const auto& module : modules(/*include_self=*/false)) {
      if (auto* conv = module->as<torch::nn::Conv2d>()) {
        torch::nn::init::kaiming_normal_(conv->weight, 0.0, torch::kFanOut, torch::kReLU);
      }
    }
  }

  at::Tensor forward(const at::Tensor& images) override {
    const at::Tensor stem = stem_(images);
    at::Tensor hidden = at::relu(stem_norm_.is_empty() ? stem : stem_norm_(stem));
    for (auto& stage : stages_) hidden = stage->forward(hidden);
    return head_(hidden.mean({2, 3}));
  }

 private:
  torch::nn::Conv2d stem_;
  torch::nn::BatchNorm2d stem_norm_{nullptr};
  std::vector<torch::nn::Sequential> stages_;
  torch::nn::Linear head_;
};
TORCH_MODULE(ResNet);

/// ResNet-20: three stages of three blocks, 16 to 64 channels, shortcuts without parameters;
/// 0.27 million parameters.
inline ResNet resnet20(int64_t channels = 3, int64_t classes = 10, bool batch_norm = true) {
  return ResNet(ResNetOptions{{16, 32, 64}, 3, Shortcut::kPad, channels, classes, batch_norm});
}

/// ResNet-18: four stages of two blocks, 64 to 512 channels; 11 million parameters.
inline ResNet resnet18(int64_t channels = 3, int64_t classes = 10) {
  return ResNet(ResNetOptions{{64, 128, 256, 512}, 2, Shortcut::kConvolution, channels, classes});
}

}  // namespace examples
