// SPDX-License-Identifier: Apache-2.0
#include <lawn/lawn.h>

#include <ATen/Parallel.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adam.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <lawn/sphere/cuda/entries.h>

namespace {

/// Trains a small network past the switch and returns the largest relative change of a constrained
/// norm since then.
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

/// How many threads at::parallel_for uses in this file: one, without a word, unless the target
/// lawn::lawn brings OpenMP.
size_t threads_of_parallel_for() {
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  return threads.size();
}

}  // namespace

/// Takes what there must be of the CUDA kernels, "kernels" or "none", and how many threads.
int main(int, char** arguments) {
  const double drift = largest_drift_of_a_norm();
  const size_t threads = threads_of_parallel_for();
  const std::string kernels = lawn::sphere::cuda::entries != nullptr ? "kernels" : "none";
  std::cout << "lawn " << LAWN_VERSION << ": largest drift of a norm " << drift << ", " << threads
            << " threads, CUDA kernels: " << kernels << "\n";
  const bool expected = kernels == arguments[1] && std::to_string(threads) == arguments[2];
  return drift < 1e-6 && expected ? 0 : 1;
}
