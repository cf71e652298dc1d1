// SPDX-License-Identifier: Apache-2.0
//
//   lost_rank kill|exit|hang|wait|slow [seconds [seconds for answers [folder]]]
//
// Trains on all ranks, of which rank 1 is lost in step 5: killed, ended without a word, or hanging.
// With `wait` all ranks wait there until the folder holds a file `go`, so that a test can do
// something to them or to what joins them. With `slow` none is lost: rank 1 takes 20 ms longer in
// each of 400 steps. Prints how each rank ends, with a time limit of so many
// seconds, and how long it took; with a folder also into its file `end-RANK`, since a link that is
// cut carries no output. lost_rank_test.py and two_hosts_test.py look at it.
#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

#include <torch/torch.h>

#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/mpi.h>

namespace {

using Clock = std::chrono::steady_clock;

/// Puts a file with a text into a folder, whole.
void leave(const std::filesystem::path& folder, const std::string& name, const std::string& text) {
  std::ofstream(folder / (name + ".part")) << text;
  std::filesystem::rename(folder / (name + ".part"), folder / name);
}

struct Plan {
  std::string how;
  std::chrono::milliseconds limit;
  std::chrono::milliseconds answers;
  std::filesystem::path folder;
};

void lose(const std::string& how) {
  if (how == "kill") raise(SIGKILL);
  if (how == "exit") _exit(7);
  std::this_thread::sleep_for(std::chrono::hours(1));
}

void reach_step_5(const Plan& plan, int rank) {
  if (plan.how == "wait") {
    leave(plan.folder, "ready-" + std::to_string(rank), std::to_string(getpid()));
    while (!std::filesystem::exists(plan.folder / "go")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  } else if (rank == 1) {
    lose(plan.how);
  }
}

/// Returns the weights at the end, in words.
std::string train(const Plan& plan, Clock::time_point& begin) {
  lawn::MpiGroup ranks(lawn::MpiOptions().timeout(plan.limit).answer_time(plan.answers));
  torch::manual_seed(1);
  torch::nn::Linear model(1000, 100);
  lawn::DataParallel parallel(*model, ranks);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  const bool slow = plan.how == "slow";
  for (int step = 0; step < (slow ? 400 : 10); ++step) {
    if (slow && ranks.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (!slow && step == 5) reach_step_5(plan, ranks.rank());
    begin = Clock::now();
    optimizer.zero_grad();
    parallel.backward(model->forward(torch::ones({4, 1000})).square().mean(), 4);
    optimizer.step();
  }
  std::ostringstream weights;
  weights << std::hexfloat << model->weight.sum().item<double>();
  return weights.str();
}

}  // namespace

int main(int argc, char** argv) {
  const lawn::MpiSession session;
  const auto argument = [&](int place) { return std::string(argc > place ? argv[place] : ""); };
  const auto seconds = [&](int place, std::chrono::milliseconds otherwise) {
    return argc > place ? std::chrono::milliseconds(1000 * std::atoi(argv[place])) : otherwise;
  };
  Plan plan{
      argc > 1 ? argv[1] : "kill", seconds(2, std::chrono::milliseconds(2000)), {}, argument(4)};
  plan.answers = seconds(3, plan.limit / 2);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  Clock::time_point begin;
  std::ostringstream line;  // in one piece: the ranks share an output
  bool failed = false;
  try {
    const std::string weights = train(plan, begin);
    line << "rank " << rank << " trained to " << weights << '\n';
  } catch (const c10::Error& error) {
    failed = true;
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
    line << "rank " << rank << " ended after " << took.count()
         << " ms: " << error.what_without_backtrace() << '\n';
  }
  std::cout << line.str() << std::flush;
  if (!plan.folder.empty()) leave(plan.folder, "end-" + std::to_string(rank), line.str());
  return failed ? 1 : 0;
}
