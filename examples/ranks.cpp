// SPDX-License-Identifier: Apache-2.0
//
// Data parallel training over MPI: every rank takes its own part of each batch, and LAWN needs
// nothing more. Needs the target lawn::mpi.
//
//   mpirun -n 2 ranks

#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/mpi.h>
#include <lawn/lawn.h>
#include <torch/torch.h>

#include <exception>
#include <iostream>
#include <string>

namespace {

void train(lawn::MpiGroup& ranks) {
  torch::manual_seed(0);  // the same data on every rank
  const auto labels = torch::randint(3, {512}, torch::kLong);
  const auto points = torch::randn({512, 2}) + 2 * torch::one_hot(labels, 3).narrow(1, 0, 2);
  torch::nn::Sequential model(torch::nn::Linear(2, 32), torch::nn::ReLU(),
                              torch::nn::Linear(32, 3));

  lawn::DataParallel parallel(*model, ranks);  // every rank takes the weights of rank 0
  lawn::LAWN optimizer(torch::optim::Adam(model->parameters(), 1e-2),
                       lawn::final_homogeneous_subnetwork(model->forward(points), *model),
                       lawn::LAWNOptions().free_steps(100));
  for (int epoch = 1; epoch <= 60; ++epoch) {
    for (const auto& batch : torch::randperm(512).split(64)) {
      // This rank's part; the last of uneven parts may be smaller, and even empty.
      const auto parts = batch.tensor_split(ranks.size());
      const auto part = parts[static_cast<size_t>(ranks.rank())];
      optimizer.zero_grad();
      if (part.numel() == 0) {
        parallel.backward_without_batch();
      } else {
        const auto logits = model->forward(points.index_select(0, part));
        const auto loss = torch::cross_entropy_loss(logits, labels.index_select(0, part));
        parallel.backward(loss, part.numel());  // the gradient of the whole batch, on every rank
      }
      optimizer.step();
    }
  }

  const auto checksum = std::to_string(model->parameters().front().sum().item<double>());
  for (const auto& of_rank : ranks.gather(checksum)) {
    TORCH_CHECK(of_rank == checksum, "the ranks have different weights");
  }
  if (ranks.rank() == 0) {
    const auto right = (model->forward(points).argmax(1) == labels).to(torch::kFloat).mean();
    std::cout << ranks.size() << " ranks, accuracy " << right.item<float>() << "\n\n"
              << optimizer.report();
  }
}

}  // namespace

int main() {
  const lawn::MpiSession session;
  try {
    lawn::MpiGroup ranks;
    train(ranks);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
