// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>

#include <vector>

/// Takes a network back part of the way to a new one:
///   w <- shrink w + perturb w_new
/// for all parameters.
/// @param fresh  a network of the same shape, with new random weights
/// @source Ash and Adams 2020, arXiv 1910.08475
inline void shrink_and_perturb_(torch::nn::Module& network, const torch::nn::Module& fresh,
                                double shrink, double perturb) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> weights = network.parameters();
  const std::vector<at::Tensor> drawn = fresh.parameters();
  TORCH_CHECK(weights.size() == drawn.size(),
              "shrink_and_perturb_: expected networks of one kind, ", "got ", weights.size(),
              " and ", drawn.size(), " parameters");
  for (size_t index = 0; index < weights.size(); ++index) {
    weights[index].mul_(shrink).add_(drawn[index], perturb);
  }
}

/// Gives a network the parameters and buffers of a new one.
inline void start_anew_(torch::nn::Module& network, const torch::nn::Module& fresh) {
  const at::NoGradGuard no_grad;
  const auto copy_all = [](std::vector<at::Tensor> to, const std::vector<at::Tensor>& from) {
    for (size_t index = 0; index < to.size(); ++index) to[index].copy_(from[index]);
  };
  copy_all(network.parameters(), fresh.parameters());
  copy_all(network.buffers(), fresh.buffers());
}
