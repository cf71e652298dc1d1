// SPDX-License-Identifier: Apache-2.0
#include "step.h"

#include <lawn/lawn.h>

#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>
#include <torch/optim/adam.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <mutex>
#include <regex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <lawn/sphere/cuda/entries.h>

namespace {

double drift_of_a_norm() {
  std::vector<at::Tensor> weights;
  std::vector<double> norms;
  for (const int64_t size : {3, 1000}) {
    weights.push_back(at::randn({size, 7}).requires_grad_());
    weights.back().mutable_grad() = at::randn({size, 7});
    norms.push_back(weights.back().norm().item<double>());
  }
  lawn::LAWN optimizer(torch::optim::Adam(weights, 0.1), lawn::select(weights));
  optimizer.step();
  double drift = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    drift = std::max(drift, std::abs(weights[i].norm().item<double>() / norms[i] - 1));
  }
  return drift;
}

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

std::string openmp_runtimes() {
  std::set<std::string> names;
  std::ifstream mapped("/proc/self/maps");
  const std::regex runtime(".*/(lib[gi]?omp[-.0-9a-z]*)");
  std::smatch match;
  for (std::string line; std::getline(mapped, line);) {
    if (std::regex_match(line, match, runtime)) names.insert(match[1]);
  }
  std::string all;
  for (const auto& name : names) all += (all.empty() ? "" : " ") + name;
  return all;
}

}  // namespace

Seen LAWN_CONSUMER_STEP() {
  return {drift_of_a_norm(), lawn::sphere::cuda::entries != nullptr, threads_of_parallel_for(),
          openmp_runtimes()};
}
