// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include <torch/torch.h>

/// Small networks, one of each kind that the walk has to tell apart. Inputs are fixed, so that the
/// logits are the same each time in evaluation mode; weights and inputs come from torch's
/// generator.
namespace lawn::testing {

/// A module and its logits on a fixed batch.
struct Network {
  std::shared_ptr<torch::nn::Module> module;
  std::function<torch::Tensor()> logits;
};

/// A module to which parts are added by name.
struct Parts : torch::nn::Module {
  template <class Holder>
  Holder add(const std::string& name, Holder part) {
    return register_module(name, std::move(part));
  }
  torch::Tensor weight(const std::string& name, torch::IntArrayRef sizes) {
    return register_parameter(name, 0.5 * torch::randn(sizes));
  }
};

inline std::shared_ptr<Parts> parts() { return std::make_shared<Parts>(); }

inline torch::nn::Linear dense(int64_t in, int64_t out, bool bias = false) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(bias));
}

inline torch::nn::Conv2d conv(int64_t in, int64_t out, bool bias = false, int64_t groups = 1) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, 3).padding(1).bias(bias).groups(groups));
}

inline torch::Tensor images() { return torch::randn({2, 3, 8, 8}); }

/// hidden1, hidden2, head, with ReLU.
inline Network mlp(bool bias) {
  auto net = parts();
  auto hidden1 = net->add("hidden1", dense(6, 8, bias));
  auto hidden2 = net->add("hidden2", dense(8, 8, bias));
  auto head = net->add("head", dense(8, 4, bias));
  return {net, [=, x = torch::randn({5, 6})]() mutable {
            return head(torch::relu(hidden2(torch::relu(hidden1(x)))));
          }};
}

/// Two convolutions with pooling, then a classifier; no normalisation.
inline Network vgg(bool bias) {
  auto net = parts();
  auto conv1 = net->add("conv1", conv(3, 4, bias));
  auto conv2 = net->add("conv2", conv(4, 6, bias));
  auto head = net->add("head", dense(6 * 2 * 2, 4, bias));
  return {net, [=, x = images()]() mutable {
            auto h = torch::max_pool2d(torch::relu(conv1(x)), 2);
            h = torch::max_pool2d(torch::relu(conv2(h)), 2);
            return head(h.flatten(1));
          }};
}

/// A residual block with batch norm, pooling, and a linear head with bias.
inline Network resnet() {
  auto net = parts();
  auto stem = net->add("stem", conv(3, 4));
  auto norm0 = net->add("norm0", torch::nn::BatchNorm2d(4));
  auto conv1 = net->add("conv1", conv(4, 4));
  auto norm1 = net->add("norm1", torch::nn::BatchNorm2d(4));
  auto conv2 = net->add("conv2", conv(4, 4));
  auto norm2 = net->add("norm2", torch::nn::BatchNorm2d(4));
  auto head = net->add("head", dense(4, 4, true));
  net->eval();
  return {net, [=, x = images()]() mutable {
            auto h = torch::relu(norm0(stem(x)));
            h = torch::relu(h + norm2(conv2(torch::relu(norm1(conv1(h))))));
            return head(torch::adaptive_avg_pool2d(h, {1, 1}).flatten(1));
          }};
}

/// A residual block without normalisation: the skip has a lower degree than the branch.
inline Network residual() {
  auto net = parts();
  auto stem = net->add("stem", conv(3, 4));
  auto conv1 = net->add("conv1", conv(4, 4));
  auto conv2 = net->add("conv2", conv(4, 4));
  auto head = net->add("head", dense(4, 4));
  return {net, [=, x = images()]() mutable {
            auto h = torch::relu(stem(x));
            h = torch::relu(h + conv2(torch::relu(conv1(h))));
            return head(h.mean({2, 3}));
          }};
}

/// Token embedding, one encoder layer, a last layer norm, and the head.
inline Network transformer() {
  auto net = parts();
  auto tokens = net->add("tokens", torch::nn::Embedding(11, 8));
  auto encoder =
      net->add("encoder", torch::nn::TransformerEncoderLayer(
                              torch::nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(16)));
  auto norm = net->add("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({8})));
  auto head = net->add("head", dense(8, 11));
  net->eval();
  return {net,
          [=, x = torch::randint(11, {5, 2})]() mutable { return head(norm(encoder(tokens(x)))); }};
}

/// Neural matrix factorisation: a product of embeddings beside an MLP over others.
inline Network neumf() {
  using torch::nn::Embedding;
  auto net = parts();
  auto gmf_user = net->add("gmf_user", Embedding(7, 4));
  auto gmf_item = net->add("gmf_item", Embedding(9, 4));
  auto mlp_user = net->add("mlp_user", Embedding(7, 4));
  auto mlp_item = net->add("mlp_item", Embedding(9, 4));
  auto mlp1 = net->add("mlp1", dense(8, 8, true));
  auto mlp2 = net->add("mlp2", dense(8, 4, true));
  auto output = net->add("output", dense(8, 1, true));
  auto user = torch::randint(7, {5});
  auto item = torch::randint(9, {5});
  return {net, [=]() mutable {
            auto h = torch::cat({mlp_user(user), mlp_item(item)}, 1);
            h = torch::relu(mlp2(torch::relu(mlp1(h))));
            return output(torch::cat({gmf_user(user) * gmf_item(item), h}, 1)).squeeze(1);
          }};
}

/// An embedding that also is the output layer; `norm` puts a layer norm and a layer between.
inline Network tied(bool norm) {
  auto net = parts();
  auto tokens = net->add("tokens", torch::nn::Embedding(11, 8));
  auto hidden = net->add("hidden", dense(8, 8));
  auto middle = net->add("middle", torch::nn::LayerNorm(torch::nn::LayerNormOptions({8})));
  auto neck = net->add("neck", dense(8, 8));
  return {net, [=, x = torch::randint(11, {5})]() mutable {
            auto h = torch::relu(hidden(tokens(x)));
            if (norm) h = middle(h);
            return torch::matmul(torch::relu(neck(h)), tokens->weight.t());
          }};
}

/// A squeeze-and-excitation gate over the channels of the convolution before it.
inline Network squeeze_excitation() {
  auto net = parts();
  auto body = net->add("body", conv(3, 4));
  auto squeeze = net->add("squeeze", dense(4, 2));
  auto excite = net->add("excite", dense(2, 4));
  auto head = net->add("head", dense(4, 4));
  return {net, [=, x = images()]() mutable {
            auto h = torch::relu(body(x));
            auto gate = torch::sigmoid(excite(torch::relu(squeeze(h.mean({2, 3})))));
            return head((h * gate.unsqueeze(-1).unsqueeze(-1)).mean({2, 3}));
          }};
}

/// hidden, then what `middle` does, then head. Most rows of the tests are of this form.
inline Network around(std::function<torch::Tensor(torch::Tensor)> middle,
                      std::shared_ptr<Parts> net = parts()) {
  auto hidden = net->add("hidden", dense(6, 8));
  auto head = net->add("head", dense(8, 4));
  return {net, [=, x = torch::randn({5, 6})]() mutable { return head(middle(hidden(x))); }};
}

/// The same on images: `body` is a module between convolution and pooling, with six channels out.
template <class Holder>
Network around_images(Holder body) {
  auto net = parts();
  auto stem = net->add("stem", conv(3, 4));
  auto part = net->add("body", std::move(body));
  auto head = net->add("head", dense(6, 4));
  return {net, [=, x = images()]() mutable {
            return head(torch::relu(part->forward(torch::relu(stem(x)))).mean({2, 3}));
          }};
}

}  // namespace lawn::testing
