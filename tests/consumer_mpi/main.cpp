// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <iostream>
#include <set>
#include <string>

#include <ATen/ops/randn.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>

#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/mpi.h>

namespace {

/// A step on every rank; the sum of the weights after it.
double train(lawn::ProcessGroup& ranks) {
  torch::manual_seed(static_cast<uint64_t>(ranks.rank()));
  torch::nn::Linear model(4, 3);
  lawn::DataParallel parallel(*model, ranks);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  parallel.backward(model->forward(at::randn({2, 4})).square().mean(), 2);
  optimizer.step();
  return model->weight.sum().item<double>();
}

}  // namespace

int main() {
  const lawn::MpiSession session;
  try {
    lawn::MpiGroup ranks;
    const auto sums = ranks.gather(std::to_string(train(ranks)));
    const bool same = std::set<std::string>(sums.begin(), sums.end()).size() == 1;
    if (!same) std::cerr << "the ranks have different weights\n";
    return same ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
