// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/init.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include <string>
#include <vector>

#include "examples/apps/support/classifier.h"

namespace examples {

/// What tells one VGG from another.
struct VGGOptions {
  std::vector<int64_t> widths = {32, 64, 128};  ///< channels of each stage; each halves the image
  int64_t convolutions_per_stage = 2;
  int64_t hidden = 256;     ///< units of the fully connected layer before the head
  int64_t channels = 3;     ///< of the images: 1 or 3
  int64_t image_size = 32;  ///< height and width in pixels
  int64_t classes = 10;
  bool he_start = true;  ///< else the weights and biases start as LibTorch's layers do
};

/// The least of its kind: two convolutions, each with pooling behind it, and a hidden layer. It
/// starts as LibTorch's layers do, with weights of variance 1 / (3 fan-in), a sixth of VGG's: their
/// norms have room to grow.
inline VGGOptions small_vgg() {
  VGGOptions options;
  options.widths = {16, 32};
  options.convolutions_per_stage = 1;
  options.hidden = 128;
  options.he_start = false;
  return options;
}

/// Convolutions, max pooling and two linear layers, with ReLU and no normalisation anywhere: up to
/// its biases the network is positively homogeneous in every weight, so LAWN constrains them all.
/// Unless the options say otherwise, the weights start as He et al. propose (variance 2 / fan-in),
/// with which it trains without normalisation; the biases start at zero.
/// @source Simonyan and Zisserman 2014, arXiv 1409.1556; He et al. 2015, arXiv 1502.01852
class VGGImpl : public Classifier {
 public:
  explicit VGGImpl(const VGGOptions& options) : hidden_(nullptr), head_(nullptr) {
    int64_t in = options.channels;
    int64_t size = options.image_size;
    for (size_t stage = 0; stage < options.widths.size(); ++stage) {
      std::vector<torch::nn::Conv2d> convolutions;
      for (int64_t index = 0; index < options.convolutions_per_stage; ++index) {
        const std::string name =
            "conv" + std::to_string(stage + 1) + "_" + std::to_string(index + 1);
        convolutions.push_back(register_module(
            name,
            torch::nn::Conv2d(torch::nn::Conv2dOptions(in, options.widths[stage], 3).padding(1))));
        in = options.widths[stage];
      }
      stages_.push_back(std::move(convolutions));
      size /= 2;
    }
    TORCH_CHECK(size > 0, "VGG: images of ", options.image_size, " pixels are too small for ",
                options.widths.size(), " halvings");
    hidden_ = register_module("hidden", torch::nn::Linear(in * size * size, options.hidden));
    head_ = register_module("head", torch::nn::Linear(options.hidden, options.classes));
    if (!options.he_start) return;
    for (const auto& parameter : named_parameters()) {
      if (parameter.value().dim() >= 2) {
        torch::nn::init::kaiming_normal_(parameter.value(), 0.0, torch::kFanIn, torch::kReLU);
      } else {
        torch::nn::init::zeros_(parameter.value());
      }
    }
  }

  at::Tensor forward(const at::Tensor& images) override {
    at::Tensor x = images;
    for (auto& stage : stages_) {
      for (auto& convolution : stage) x = at::relu(convolution(x));
      x = at::max_pool2d(x, 2);
    }
    return head_(at::relu(hidden_(x.flatten(1))));
  }

 private:
  std::vector<std::vector<torch::nn::Conv2d>> stages_;
  torch::nn::Linear hidden_;
  torch::nn::Linear head_;
};
TORCH_MODULE(VGG);

}  // namespace examples
