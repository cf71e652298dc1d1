// SPDX-License-Identifier: Apache-2.0
#include "train.h"

#include <ATen/ops/randn.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/utils.h>

#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/mpi.h>

double train(lawn::ProcessGroup& ranks) {
  torch::manual_seed(static_cast<uint64_t>(ranks.rank()));
  torch::nn::Linear model(4, 3);
  lawn::DataParallel parallel(*model, ranks);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  parallel.backward(model->forward(at::randn({2, 4})).square().mean(), 2);
  optimizer.step();
  return model->weight.sum().item<double>();
}
