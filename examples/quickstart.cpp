// SPDX-License-Identifier: Apache-2.0
//
// A small network, points of three overlapping clouds, and LAWN around Adam. Prints which weights
// are constrained, trains 600 steps of which 200 are free, and prints the state of the weights at
// the end.

#include <lawn/lawn.h>
#include <torch/torch.h>

#include <iostream>

int main() {
  torch::manual_seed(0);
  const auto labels = torch::randint(3, {512}, torch::kLong);
  const auto points = torch::randn({512, 2}) + 2 * torch::one_hot(labels, 3).narrow(1, 0, 2);

  torch::nn::Sequential model(torch::nn::Linear(2, 32), torch::nn::ReLU(),
                              torch::nn::Linear(32, 3));
  const auto sub = lawn::final_homogeneous_subnetwork(model->forward(points), *model);
  std::cout << sub << '\n';

  lawn::LAWN optimizer(torch::optim::Adam(model->parameters(), 1e-2), sub,
                       lawn::LAWNOptions().free_steps(200).angular_steps(true));
  for (int step = 1; step <= 600; ++step) {
    optimizer.zero_grad();
    const auto loss = torch::cross_entropy_loss(model->forward(points), labels);
    loss.backward();
    optimizer.step();
    if (step % 100 == 0) {
      std::cout << "step " << step << "  " << optimizer.phase() << "  loss " << loss.item<float>()
                << "  norm of the first layer "
                << model->named_parameters()["0.weight"].norm().item<float>() << '\n';
    }
  }
  std::cout << '\n' << optimizer.report();
}
