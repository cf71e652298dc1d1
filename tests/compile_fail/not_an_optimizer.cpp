// expect: lawn: a decorator wraps a class derived from torch::optim::Optimizer
// SPDX-License-Identifier: Apache-2.0
#include <lawn/lawn.h>
#include <torch/nn/modules/linear.h>

lawn::LAWN<torch::nn::LinearImpl>* optimizer = nullptr;
int main() { return static_cast<int>(optimizer->steps()); }
