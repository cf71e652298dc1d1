// SPDX-License-Identifier: Apache-2.0
#include "train.h"

#include <torch/torch.h>

#include <lawn/lawn.h>

#include <algorithm>
#include <cmath>

double largest_drift_of_a_norm() {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(8, 16), torch::nn::ReLU(),
                              torch::nn::Linear(16, 4));
  const auto inputs = torch::randn({32, 8});
  const auto labels = torch::randint(4, {32});
  const auto selection = lawn::select_all_weights(*model);
  lawn::LAWN optimizer(torch::optim::Adam(model->parameters(), 1e-2), selection,
                       lawn::LAWNOptions().free_steps(5));
  const auto train = [&](int steps) {
    for (int step = 0; step < steps; ++step) {
      optimizer.zero_grad();
      torch::nn::functional::cross_entropy(model->forward(inputs), labels).backward();
      optimizer.step();
    }
  };
  train(5);
  std::vector<double> norms;
  for (const auto& weight : selection.parameters()) {
    norms.push_back(weight.norm().item<double>());
  }
  train(20);
  double drift = 0;
  for (size_t i = 0; i < norms.size(); ++i) {
    drift =
        std::max(drift, std::abs(selection.parameters()[i].norm().item<double>() / norms[i] - 1));
  }
  return drift;
}
