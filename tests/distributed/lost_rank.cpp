// SPDX-License-Identifier: Apache-2.0
//
//   lost_rank kill|exit|hang [seconds]
//
// Trains on all ranks, of which rank 1 is lost in step 5: killed, ended without a word, or hanging.
// Prints how each of the others ends, with a time limit of so many seconds, and how long it took.
// lost_rank_test.py looks at it.
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

#include <torch/torch.h>

#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/mpi.h>

namespace {

using Clock = std::chrono::steady_clock;

void lose(const std::string& how) {
  if (how == "kill") raise(SIGKILL);
  if (how == "exit") _exit(7);
  std::this_thread::sleep_for(std::chrono::hours(1));
}

void train(const std::string& how, std::chrono::milliseconds limit, Clock::time_point& begin) {
  lawn::MpiGroup ranks(lawn::MpiOptions().timeout(limit).answer_time(limit / 2));
  torch::manual_seed(1);
  torch::nn::Linear model(1000, 100);
  lawn::DataParallel parallel(*model, ranks);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  for (int step = 0; step < 10; ++step) {
    begin = Clock::now();
    if (ranks.rank() == 1 && step == 5) lose(how);
    optimizer.zero_grad();
    parallel.backward(model->forward(torch::ones({4, 1000})).square().mean(), 4);
    optimizer.step();
  }
}

}  // namespace

int main(int argc, char** argv) {
  const lawn::MpiSession session;
  const std::string how = argc > 1 ? argv[1] : "kill";
  const std::chrono::milliseconds limit(argc > 2 ? 1000 * std::atoi(argv[2]) : 2000);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  Clock::time_point begin;
  try {
    train(how, limit, begin);
  } catch (const c10::Error& error) {
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
    std::ostringstream line;  // in one piece: the ranks share an output
    line << "rank " << rank << " ended after " << took.count()
         << " ms: " << error.what_without_backtrace() << '\n';
    std::cout << line.str() << std::flush;
    return 1;
  }
  return 0;
}
