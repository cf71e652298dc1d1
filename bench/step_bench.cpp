// SPDX-License-Identifier: Apache-2.0
//
// Time of one optimizer step with and without LAWN. For each optimizer and list of shapes:
//   base/<Optimizer>/<shapes>   the optimizer alone
//   free/<Optimizer>/<shapes>   LAWN in its free phase
//   lawn/<Optimizer>/<shapes>   LAWN in its constrained phase, every tensor constrained
//   aten/<Optimizer>/<shapes>   the same written naively, one ATen call at a time
//   lawn/sphere, aten/sphere    the projection and the rescaling without the optimizer
//   copy/<shapes>               memcpy (on a GPU: a copy) of as many floats, 8 bytes each: what
//   memory allows
// Run `bench/compare.py --run <this program>` for the ratios.

#include <benchmark/benchmark.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <lawn/lawn.h>
#include <lawn/sphere/sphere.h>

#include "naive_lawn.h"
#include "network.h"
#include "shapes.h"

namespace {

using bench::NaiveLAWN;
using bench::Network;
using bench::ShapeList;

// Bytes that a part has to move for one float32, if each of its passes is one kernel and what it
// reads twice stays in the cache (projection: w, g read, g written; rescaling: w read and written).
constexpr int kCopyBytes = 8;
constexpr int kSphereBytes = 12 + 8;

// Gradients are set once and not refreshed between steps, although each projection changes them: a
// second projection does the arithmetic of the first, and its operands stay ordinary numbers. For
// the weights turn by an angle of some 1e-5 a step at this learning rate, and projecting onto the
// new tangent space shortens the gradient by the cosine of it: 1e-10 of itself.
constexpr double kLearningRate = 1e-6;

struct SGD {
  static constexpr const char* kName = "SGD";
  static constexpr int kBytes = 20;  // w, g, momentum read; w, momentum written
  static torch::optim::SGD make(const std::vector<at::Tensor>& weights) {
    return torch::optim::SGD(weights, torch::optim::SGDOptions(kLearningRate).momentum(0.9));
  }
};

struct Adam {
  static constexpr const char* kName = "Adam";
  static constexpr int kBytes = 28;  // w, g and two moments read; w and two moments written
  static torch::optim::Adam make(const std::vector<at::Tensor>& weights) {
    return torch::optim::Adam(weights, torch::optim::AdamOptions(kLearningRate));
  }
};

/// Times `step`: on the CPU by the clock of Google Benchmark, on a GPU by events around each call.
/// @param bytes  the least that one element needs, for the counter `floor_bytes`
void measure(benchmark::State& state, const ShapeList& list, at::Device device, int bytes,
             const std::function<void()>& step) {
  state.counters["elements"] = static_cast<double>(list.elements());
  state.counters["floor_bytes"] = static_cast<double>(bytes * list.elements());
  for (int i = 0; i < 2; ++i) step();  // makes the optimizer's state
  if (device.is_cpu()) {
    for (auto _ : state) step();
    return;
  }
  const c10::impl::VirtualGuardImpl guard(device.type());
  const c10::Stream stream = guard.getStream(device);
  c10::Event before(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  c10::Event after(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  for (auto _ : state) {
    before.record(stream);
    step();
    after.record(stream);
    after.synchronize();
    state.SetIterationTime(before.elapsedTime(after) * 1e-3);
  }
}

void add(const std::string& name, const ShapeList& list, at::Device device,
         std::function<void(benchmark::State&)> run) {
  auto* added = benchmark::RegisterBenchmark((name + "/" + list.name).c_str(), std::move(run));
  added->Unit(benchmark::kMicrosecond);
  if (!device.is_cpu()) added->UseManualTime();
}

template <class Kind>
void add_optimizer(const ShapeList& list, at::Device device) {
  using Opt = decltype(Kind::make({}));
  const std::string name = Kind::kName;
  add("base/" + name, list, device, [=](benchmark::State& state) {
    auto optimizer = Kind::make(Network::shared(list, device).weights);
    measure(state, list, device, Kind::kBytes, [&] { optimizer.step(); });
  });
  add("free/" + name, list, device, [=](benchmark::State& state) {
    const auto& weights = Network::shared(list, device).weights;
    lawn::LAWN<Opt> optimizer(Kind::make(weights), lawn::select(weights),
                              lawn::LAWNOptions().free_steps(lawn::LAWNOptions::kNever));
    measure(state, list, device, Kind::kBytes, [&] { optimizer.step(); });
  });
  add("lawn/" + name, list, device, [=](benchmark::State& state) {
    const auto& weights = Network::shared(list, device).weights;
    lawn::LAWN<Opt> optimizer(Kind::make(weights), lawn::select(weights),
                              lawn::LAWNOptions().free_steps(0));
    measure(state, list, device, Kind::kBytes + kSphereBytes, [&] { optimizer.step(); });
  });
  add("aten/" + name, list, device, [=](benchmark::State& state) {
    const auto& weights = Network::shared(list, device).weights;
    auto optimizer = Kind::make(weights);
    NaiveLAWN naive(weights);
    measure(state, list, device, Kind::kBytes + kSphereBytes, [&] {
      naive.project();
      optimizer.step();
      naive.rescale();
    });
  });
}

void add_parts(const ShapeList& list, at::Device device) {
  add("lawn/sphere", list, device, [=](benchmark::State& state) {
    std::vector<lawn::sphere::Layer> layers;
    for (const auto& weight : Network::shared(list, device).weights) {
      layers.push_back({weight, weight.grad(), weight.detach().norm()});
    }
    measure(state, list, device, kSphereBytes, [&] {
      lawn::sphere::project_to_tangent_(layers);
      lawn::sphere::rescale_(layers);
    });
  });
  add("aten/sphere", list, device, [=](benchmark::State& state) {
    NaiveLAWN naive(Network::shared(list, device).weights);
    measure(state, list, device, kSphereBytes, [&] {
      naive.project();
      naive.rescale();
    });
  });
  add("copy", list, device, [=](benchmark::State& state) {
    const auto source = torch::ones(list.elements(), device);
    auto target = torch::empty_like(source);
    measure(state, list, device, kCopyBytes, [&] {
      if (device.is_cpu()) {
        std::memcpy(target.data_ptr(), source.data_ptr(), source.nbytes());
        benchmark::ClobberMemory();
      } else {
        target.copy_(source);
      }
    });
  });
}

/// Takes `--<name>=<value>` out of the arguments.
std::string take_flag(int& argc, char** argv, const std::string& name,
                      const std::string& otherwise) {
  const std::string prefix = "--" + name + "=";
  std::string value = otherwise;
  int kept = 0;
  for (int i = 0; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.compare(0, prefix.size(), prefix) == 0) {
      value = argument.substr(prefix.size());
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string device_name = take_flag(argc, argv, "device", "cpu");
  // Without it LibTorch decides: OMP_NUM_THREADS, or the number of cores.
  const std::string threads = take_flag(argc, argv, "threads", "");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return EXIT_FAILURE;
  if (device_name != "cpu" && device_name != "cuda") {
    std::cerr << "step_bench: expected --device=cpu or --device=cuda, got " << device_name << "\n";
    return EXIT_FAILURE;
  }
  if (device_name == "cuda" && !torch::cuda::is_available()) {
    std::cerr << "step_bench: --device=cuda, but LibTorch finds no GPU\n";
    return EXIT_FAILURE;
  }
  if (!threads.empty()) {
    const int count = std::atoi(threads.c_str());
    if (count < 1) {
      std::cerr << "step_bench: expected --threads=N with N >= 1, got " << threads << "\n";
      return EXIT_FAILURE;
    }
    at::set_num_threads(count);
  }

  const at::Device device(device_name);
  benchmark::AddCustomContext("device", device_name);
  benchmark::AddCustomContext("torch_threads", std::to_string(at::get_num_threads()));
  benchmark::AddCustomContext("lawn_version", LAWN_VERSION);
  benchmark::AddCustomContext("torch_version", TORCH_VERSION);
  for (const ShapeList& list : bench::shape_lists()) {
    add_optimizer<SGD>(list, device);
    add_optimizer<Adam>(list, device);
    add_parts(list, device);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return EXIT_SUCCESS;
}
