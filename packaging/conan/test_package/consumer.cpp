// SPDX-License-Identifier: Apache-2.0
#include <lawn/lawn.h>

#include <ATen/ops/randn.h>
#include <torch/optim/sgd.h>

#include <cmath>
#include <iostream>

int main() {
  const auto weight = at::randn({4, 3}).requires_grad_();
  weight.mutable_grad() = at::randn({4, 3});
  const double norm = weight.norm().item<double>();
  lawn::LAWN optimizer(torch::optim::SGD({weight}, 0.1), lawn::select({weight}));
  optimizer.step();
  const double drift = std::abs(weight.norm().item<double>() / norm - 1);
  std::cout << "lawn " << LAWN_VERSION << ": drift of a norm " << drift << "\n";
  return drift < 1e-6 ? 0 : 1;
}
