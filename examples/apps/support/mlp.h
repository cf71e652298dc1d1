// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <string>
#include <vector>

#include "examples/apps/support/classifier.h"

namespace examples {

/// What tells one MLP from another.
struct MLPOptions {
  int64_t inputs = 784;                      ///< channels times height times width of an image
  std::vector<int64_t> hidden = {256, 256};  ///< units of each hidden layer
  int64_t classes = 10;
  bool layer_norm = false;  ///< between each hidden layer and its ReLU
};

/// Linear layers with ReLU between them and, unless asked for, no normalisation: up to its biases
/// positively homogeneous in every weight, and so small that thousands of steps take seconds. It starts as
/// LibTorch's linear layers do, with weights of variance 1 / (3 fan-in): their norms have room to
/// grow, which those of VGG's larger start lack.
class MLPImpl : public Classifier {
 public:
  explicit MLPImpl(const MLPOptions& options) : head_(nullptr) {
    int64_t in = options.inputs;
    for (size_t layer = 0; layer < options.hidden.size(); ++layer) {
      hidden_.push_back(register_module("hidden" + std::to_string(layer + 1),
                                        torch::nn::Linear(in, options.hidden[layer])));
      in = options.hidden[layer];
      if (!options.layer_norm) continue;
      norms_.push_back(register_module("norm" + std::to_string(layer + 1),
                                       torch::nn::LayerNorm(std::vector<int64_t>{in})));
    }
    head_ = register_module("head", torch::nn::Linear(in, options.classes));
  }

  at::Tensor forward(const at::Tensor& images) override {
    at::Tensor x = images.flatten(1);
    for (size_t layer = 0; layer < hidden_.size(); ++layer) {
      x = hidden_[layer](x);
      x = at::relu(norms_.empty() ? x : norms_[layer](x));
    }
    return head_(x);
  }

 private:
  std::vector<torch::nn::Linear> hidden_;
  std::vector<torch::nn::LayerNorm> norms_;
  torch::nn::Linear head_;
};
TORCH_MODULE(MLP);

}  // namespace examples
