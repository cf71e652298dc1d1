// expect: cannot bind rvalue reference|rvalue reference .* cannot bind|no matching constructor
// SPDX-License-Identifier: Apache-2.0
#include <lawn/lawn.h>
#include <torch/optim/sgd.h>

// An optimizer is moved in, never copied: a copy would clone the groups' options and cut schedulers
// off.
void wrap(torch::optim::SGD& sgd, const lawn::Subnetwork& selection) {
  lawn::LAWN<torch::optim::SGD> optimizer(sgd, selection);
}
