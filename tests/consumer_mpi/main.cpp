// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <iostream>
#include <set>
#include <string>

#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/mpi.h>

#include "train.h"

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
