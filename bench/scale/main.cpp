// SPDX-License-Identifier: Apache-2.0
//
// What a step costs beyond one process, as a function of ranks, layers and parameters:
//
//   mpirun -n 2 scale [--repeats N]        one line of JSON for each measurement, by rank 0
//
// bench/scale/scale.py runs it for several numbers of ranks and makes the tables of docs/scale.md.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include <lawn/distributed/mpi.h>
#include <lawn/distributed/parameter_shards.h>
#include <lawn/lawn.h>

namespace {

using Clock = std::chrono::steady_clock;

/// What all ranks measure together.
class Measurement {
 public:
  Measurement(lawn::MpiGroup& ranks, int repeats) : ranks_(ranks), repeats_(repeats) {}

  /// Prints the median and the quartiles of `action`'s time on the slowest rank.
  /// @param facts  further members of the line
  void operator()(const std::string& what, const std::string& facts,
                  const std::function<void()>& action) {
    for (int i = 0; i < 3; ++i) action();
    const auto times = torch::empty({repeats_}, torch::kDouble);
    for (int i = 0; i < repeats_; ++i) {
      ranks_.sum_(torch::zeros({1}, torch::kDouble));  // all begin together
      const auto begin = Clock::now();
      action();
      times[i] = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
    }
    const auto slowest = std::get<0>(torch::stack(ranks_.gather(times)).max(0));
    const auto quartiles =
        torch::quantile(slowest, torch::tensor({0.25, 0.5, 0.75}, torch::kDouble));
    if (ranks_.rank() != 0) return;
    std::printf(
        "{\"what\": \"%s\", \"ranks\": %d, %s, \"us\": %.2f, \"us_low\": %.2f, \"us_high\": "
        "%.2f}\n",
        what.c_str(), ranks_.size(), facts.c_str(), quartiles[1].item<double>(),
        quartiles[0].item<double>(), quartiles[2].item<double>());
    std::fflush(stdout);
  }

 private:
  lawn::MpiGroup& ranks_;
  int repeats_;
};

std::string fact(const char* name, int64_t value) {
  return "\"" + std::string(name) + "\": " + std::to_string(value);
}

/// Linear layers of `width` by `width`.
struct Layers : torch::nn::Module {
  Layers(int64_t count, int64_t width) {
    torch::manual_seed(1);
    for (int64_t i = 0; i < count; ++i) {
      register_parameter("layer " + std::to_string(i), torch::randn({width, width}));
    }
  }
};

/// Steps of LAWN around SGD on this rank's parts of `count` layers: with norms of the whole, and
/// with those of the parts as if they were the whole.
void measure_steps(lawn::MpiGroup& ranks, Measurement& measure, int64_t count, int64_t width) {
  const std::string facts =
      fact("layers", count) + ", " + fact("parameters", count * width * width);
  for (const bool sharded : {false, true}) {
    Layers model(count, width);
    lawn::ParameterShards shards(model, ranks);
    lawn::LAWNOptions options;
    if (sharded) options.spheres(shards.spheres());
    lawn::LAWN optimizer(torch::optim::SGD(shards.parameters(), 1e-3),
                         shards.select(lawn::select_all_weights(model)), options);
    for (auto& parameter : model.parameters()) {
      parameter.mutable_grad() = torch::randn_like(parameter);
    }
    shards.take_gradients();
    measure(sharded ? "sharded step" : "local step", facts, [&] { optimizer.step(); });
    if (sharded) measure("gather parameters", facts, [&] { shards.gather(); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const lawn::MpiSession session;
  try {
    const bool given = argc == 3 && std::string(argv[1]) == "--repeats";
    const int repeats = given ? std::atoi(argv[2]) : 41;
    TORCH_CHECK((argc == 1 || given) && repeats > 0, "usage: scale [--repeats N], N > 0");
    torch::set_num_threads(1);
    lawn::MpiGroup ranks;
    Measurement measure(ranks, repeats);
    for (const int64_t numbers : {1, 10, 100, 1'000, 10'000, 100'000, 1'000'000, 10'000'000}) {
      const auto values = torch::zeros({numbers}, torch::kFloat);
      measure("sum", fact("bytes", 4 * numbers), [&] { ranks.sum_(values); });
    }
    for (const int64_t layers : {1, 10, 100, 1'000}) measure_steps(ranks, measure, layers, 16);
    for (const int64_t layers : {10, 40}) measure_steps(ranks, measure, layers, 512);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "scale: %s\n", error.what());
    return 1;
  }
}
