// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace examples {

/// What tells one transformer from another.
struct TransformerOptions {
  int64_t vocabulary = 256;
  int64_t context = 64;  ///< tokens that are seen at once, at most
  int64_t layers = 4;
  int64_t width = 128;  ///< of what runs through the layers
  int64_t heads = 4;    ///< of each attention; a divisor of the width
};

/// One layer of a transformer: causal self-attention and a perceptron, each behind a LayerNorm and
/// added to what comes in:
///   x <- x + A_out attend(A_qkv norm(x)),   x <- x + A_down GELU(A_up norm(x))
/// The three matrices of queries, keys and values are one weight; biases are left out of the
/// equation.
class TransformerBlockImpl : public torch::nn::Module {
 public:
  explicit TransformerBlockImpl(const TransformerOptions& options)
      : heads_(options.heads),
        attention_norm_(norm("attention_norm", options.width)),
        qkv_(linear("qkv", options.width, 3 * options.width)),
        out_(linear("out", options.width, options.width)),
        mlp_norm_(norm("mlp_norm", options.width)),
        up_(linear("up", options.width, 4 * options.width)),
        down_(linear("down", 4 * options.width, options.width)) {}

  /// @param x  float [N, T, width]
  /// @return   the same shape; place t depends on places 0 to t alone
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor attended = x + out_(attend(qkv_(attention_norm_(x))));
    return attended + down_(at::gelu(up_(mlp_norm_(attended))));
  }

 private:
  torch::nn::LayerNorm norm(const std::string& name, int64_t width) {
    return register_module(name, torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
  }
  torch::nn::Linear linear(const std::string& name, int64_t in, int64_t out) {
    return register_module(name, torch::nn::Linear(in, out));
  }

  at::Tensor attend(const at::Tensor& qkv) const {
    const int64_t width = qkv.size(2) / 3;
    // [3, N, heads, T, width / heads]
    const at::Tensor parts =
        qkv.view({qkv.size(0), qkv.size(1), 3, heads_, width / heads_}).permute({2, 0, 3, 1, 4});
    return at::scaled_dot_product_attention(parts[0], parts[1], parts[2], /*attn_mask=*/{},
                                            /*dropout_p=*/0, /*is_causal=*/true)
        .transpose(1, 2)
        .reshape({qkv.size(0), qkv.size(1), width});
  }

  int64_t heads_;
  torch::nn::LayerNorm attention_norm_;
  torch::nn::Linear qkv_;
  torch::nn::Linear out_;
  torch::nn::LayerNorm mlp_norm_;
  torch::nn::Linear up_;
  torch::nn::Linear down_;
};
TORCH_MODULE(TransformerBlock);

/// The names of every weight matrix of every layer, for lawn::select_by_name(). What is left out:
/// embeddings, biases, normalisations and the head. In front of each of these matrices there is a
/// LayerNorm, an attention or a GELU: the logits are not homogeneous in them, and LAWN's walk, which
/// finds the head alone, stops at the last normalisation.
constexpr const char* kBlockWeights = R"(block\d+\.(qkv|out|up|down)\.weight)";

/// A decoder-only transformer with learnt positions and a LayerNorm before the head. Weights start
/// at N(0, 0.02^2); those whose output is added to the residual stream start with 1 / sqrt(2
/// layers) of that deviation. Biases start at zero. There is no dropout.
/// @source Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3
class TransformerImpl : public torch::nn::Module {
 public:
  /// @throws c10::Error if the heads do not divide the width
  explicit TransformerImpl(const TransformerOptions& options)
      : options_(options), token_(nullptr), position_(nullptr), norm_(nullptr), head_(nullptr) {
    TORCH_CHECK(options.width % options.heads == 0,
                "Transformer: expected heads that divide the width ", options.width, ", got ",
                options.heads);
    const int64_t width = options.width;
    token_ = register_module("token", torch::nn::Embedding(options.vocabulary, width));
    position_ = register_module("position", torch::nn::Embedding(options.context, width));
    for (int64_t layer = 1; layer <= options.layers; ++layer) {
      blocks_.push_back(
          register_module("block" + std::to_string(layer), TransformerBlock(options)));
    }
    norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
    head_ = register_module("head", torch::nn::Linear(width, options.vocabulary));
    start();
  }

  /// @param tokens  int64 [N, T], T at most the context
  /// @return        logits [N, T, vocabulary] of the token after each; those of place t depend on
  ///                the tokens 0 to t alone
  at::Tensor forward(const at::Tensor& tokens) {
    TORCH_CHECK(tokens.size(1) <= options_.context, "Transformer: expected at most ",
                options_.context, " tokens at once, got ", tokens.size(1));
    at::Tensor x = token_(tokens) + position_->weight.slice(0, 0, tokens.size(1));
    for (TransformerBlock& block : blocks_) x = block(x);
    return head_(norm_(x));
  }

 private:
  void start() {
    const at::NoGradGuard no_grad;
    constexpr double kDeviation = 0.02;
    const double layers = static_cast<double>(options_.layers);
    for (auto& parameter : named_parameters()) {
      const std::string& name = parameter.key();
      const auto ends_with = [&name](const std::string& end) {
        return name.size() >= end.size() &&
               name.compare(name.size() - end.size(), end.size(), end) == 0;
      };
      const bool added = ends_with("out.weight") || ends_with("down.weight");
      if (parameter.value().dim() >= 2) {
        parameter.value().normal_(0, kDeviation / (added ? std::sqrt(2 * layers) : 1));
      } else if (ends_with("bias")) {
        parameter.value().zero_();
      }
    }
  }

  TransformerOptions options_;
  torch::nn::Embedding token_;
  torch::nn::Embedding position_;
  std::vector<TransformerBlock> blocks_;
  torch::nn::LayerNorm norm_;
  torch::nn::Linear head_;
};
TORCH_MODULE(Transformer);

}  // namespace examples
