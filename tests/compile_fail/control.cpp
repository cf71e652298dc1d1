// compiles
// SPDX-License-Identifier: Apache-2.0
#include <lawn/lawn.h>
#include <torch/optim/sgd.h>

int main() {
  const lawn::LAWNOptions options = lawn::LAWNOptions().free_steps(1);
  lawn::LAWN<torch::optim::SGD>* optimizer = nullptr;
  return options.free_steps() == 1 && optimizer == nullptr ? 0 : 1;
}
