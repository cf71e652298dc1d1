// SPDX-License-Identifier: Apache-2.0
#include <lawn/lawn.h>

#include <ATen/Parallel.h>

#include <iostream>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include <lawn/sphere/cuda/entries.h>

#include "train.h"

namespace {

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
