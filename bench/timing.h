// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>

#include <benchmark/benchmark.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

#if defined(LAWN_CUDA_RUNTIME)
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace bench {

/// What of a step is timed. On the CPU there is `kStep` alone.
enum class Timing {
  kStep,   ///< CPU: the whole; GPU: the device's time, caches of the device cold
  kHot,    ///< the device's time of a step after kReplays others, caches as those leave them
  kHost,   ///< the host's time to enqueue a step, the device idle at its start
  kGraph,  ///< the device's time of a step captured in a CUDA graph and replayed, caches hot
};

/// The suffix of a benchmark's name.
inline const char* suffix(Timing timing) {
  switch (timing) {
    case Timing::kStep:
      return "";
    case Timing::kHot:
      return "/hot";
    case Timing::kHost:
      return "/host";
    case Timing::kGraph:
      return "/graph";
  }
  return "";
}

/// Steps between two events where one alone is too short for them.
constexpr int kReplays = 20;

/// Measurements in one repetition on a GPU. Google Benchmark would choose their number by the time
/// that they report, which is that of one step of many, without what keeps the device busy before.
constexpr int iterations(Timing timing) {
  return timing == Timing::kHot || timing == Timing::kGraph ? 3 : 20;
}

/// Times work on a GPU by events on its current stream.
class GPUTimer {
 public:
  explicit GPUTimer(at::Device device)
      : guard_(device.type()),
        stream_(guard_.getStream(device)),
        before_(device.type(), c10::EventFlag::BACKEND_DEFAULT),
        after_(device.type(), c10::EventFlag::BACKEND_DEFAULT) {}

  /// Seconds that the device takes for `times` calls of `work`, each.
  template <class Work>
  double seconds(const Work& work, int times) {
    before_.record(stream_);
    for (int i = 0; i < times; ++i) work();
    after_.record(stream_);
    after_.synchronize();
    return before_.elapsedTime(after_) * 1e-3 / times;
  }

  void synchronize() { stream_.synchronize(); }

 private:
  c10::impl::VirtualGuardImpl guard_;
  c10::Stream stream_;
  c10::Event before_;
  c10::Event after_;
};

/// Times `step` captured in a CUDA graph. It must not wait for the device, and must take the same
/// numbers from the host each time.
inline void measure_graph(benchmark::State& state, at::Device device,
                          const std::function<void()>& step) {
#if defined(LAWN_CUDA_RUNTIME)
  GPUTimer(device).synchronize();  // what was written on the stream until now
  const c10::cuda::CUDAStreamGuard guard(
      c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index()));
  for (int i = 0; i < 2; ++i) step();  // loads the kernels: a capture must not
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  step();
  graph.capture_end();
  GPUTimer timer(device);
  for (auto _ : state) {
    state.SetIterationTime(timer.seconds([&] { graph.replay(); }, kReplays));
  }
#else
  (void)device;
  (void)step;
  state.SkipWithError("built without the CUDA toolkit's headers");
#endif
}

/// Times `step` on the CPU, each call after one of `base`, whose time becomes the counter
/// `base_us`: a ratio of two benchmarks on memory of their own carries what the places of that
/// memory cost.
inline void measure_after(benchmark::State& state, const std::function<void()>& base,
                          const std::function<void()>& step) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < 2; ++i) step();
  std::chrono::duration<double, std::micro> base_time{0};
  for (auto _ : state) {
    const auto start = Clock::now();
    base();
    const auto middle = Clock::now();
    step();
    base_time += middle - start;
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - middle).count());
  }
  state.counters["base_us"] =
      benchmark::Counter(base_time.count(), benchmark::Counter::kAvgIterations);
}

/// Times `step` as `timing` says.
inline void measure(benchmark::State& state, at::Device device, Timing timing,
                    const std::function<void()>& step) {
  for (int i = 0; i < 2; ++i) step();  // makes the optimizer's state
  if (device.is_cpu()) {
    for (auto _ : state) step();
    return;
  }
  if (timing == Timing::kGraph) return measure_graph(state, device, step);
  GPUTimer timer(device);
  const auto larger_than_caches = torch::ones(int64_t{1} << 26, device);  // 256 MiB
  for (auto _ : state) {
    switch (timing) {
      case Timing::kHot:
        state.SetIterationTime(timer.seconds(step, kReplays));
        break;
      case Timing::kHost: {
        timer.synchronize();
        const auto start = std::chrono::steady_clock::now();
        step();
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        state.SetIterationTime(time.count());
        break;
      }
      default:
        // The step's launches queue up behind this: they wait for the device, and the device never
        // for them.
        benchmark::DoNotOptimize(larger_than_caches.sum());
        state.SetIterationTime(timer.seconds(step, 1));
    }
  }
  timer.synchronize();
}

}  // namespace bench
