// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/folded/cuda/entries.h>
#include <lawn/folded/cuda/layer_list.h>
#include <lawn/folded/step.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/folded/cuda/kernels.cuh>
#include <lawn/folded/cuda/prepare.cuh>
#include <lawn/sphere/cuda/kernels.cuh>
#include <lawn/sphere/cuda/launch_kernel.cuh>
#include <lawn/sphere/cuda/launch_lists.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// The host's side of the folded steps' kernels.
namespace lawn::detail::folded::cuda {
namespace {

using sphere::cuda::kFewLayers;
using sphere::cuda::kManySteppedLayers;
using sphere::cuda::Limits;

constexpr sphere::cuda::Needs kNeedsOfSteps{/*gradient=*/true};

template <template <class, class> class Step, int kCapacity, class Source>
const char* load_kernels_for() {
  if (const char* error = sphere::cuda::load_kernel(first_pass<Step, kCapacity, Source>)) {
    return error;
  }
  return sphere::cuda::load_kernel(second_pass<Step, kCapacity, Source>);
}

template <class Numbers>
const char* load_prepare() {
  static sphere::cuda::LoadedDevices loaded{};
  return sphere::cuda::load_once(loaded,
                                 {[] { return sphere::cuda::load_kernel(prepare<Numbers>); }});
}

template <int kCapacity>
const char* load_rescaling_for() {
  return sphere::cuda::load_kernel(sphere::cuda::second_pass<Rescaling, kCapacity>);
}

/// Loads every kernel of one step. Static, as `sphere::cuda::load_kernels` is.
template <template <class, class> class Step, class Source>
static const char* load_kernels() {
  static sphere::cuda::LoadedDevices loaded{};
  return sphere::cuda::load_once(
      loaded, {load_kernels_for<Step, kFewLayers, Source>,
               load_kernels_for<Step, kManySteppedLayers, Source>, load_rescaling_for<kFewLayers>,
               load_rescaling_for<kManySteppedLayers>});
}

/// Makes three launches for each list, or one if no sphere is cut into chunks.
template <template <class, class> class Step, class Source>
const char* launch_with(Source source, const FlatLayer* layers, std::int64_t count, void* workspace,
                        void* stream, const Limits& limits) {
  return sphere::cuda::launch_lists<LayerList, kManySteppedLayers>(
      layers, count, kNeedsOfSteps, limits, [&](auto& list) -> const char* {
        constexpr int kCapacity = sphere::cuda::kCapacityOf<decltype(list)>;
        sphere::cuda::LayerList<kCapacity>& without_state = list;
        auto* const on = static_cast<cudaStream_t>(stream);
        const std::uint32_t blocks = list.first_block[list.layers];
        const std::uint32_t chunks = blocks - list.first_block[list.first_chunked];
        void* squares =
            static_cast<char*>(workspace) + std::int64_t{chunks} * sphere::cuda::kMaxSumBytes;
        if (const char* error = sphere::cuda::launch(first_pass<Step, kCapacity, Source>, blocks,
                                                     on, list, source, workspace)) {
          return error;
        }
        if (const char* error = sphere::cuda::launch(second_pass<Step, kCapacity, Source>, chunks,
                                                     on, list, source, workspace)) {
          return error;
        }
        return sphere::cuda::launch(sphere::cuda::second_pass<Rescaling, kCapacity>, chunks, on,
                                    without_state, squares);
      });
}

template <template <class, class> class Step, class Base>
const char* launch_step(const FlatLayer* layers, std::int64_t count, const Base& base,
                        void* workspace, void* stream, const Limits& limits = {}) {
  using Source = ByValue<typename Step<float, float>::Numbers>;
  if (const char* error = load_kernels<Step, Source>()) return error;
  return launch_with<Step>(Source{typename Step<float, float>::Numbers(base)}, layers, count,
                           workspace, stream, limits);
}

/// The same with numbers on the device, by one launch more.
/// @param base       the step's fixed numbers; those that `at` brings may be 1
/// @param workspace  of `kPreparedBytes` more than `workspace_bytes`
template <template <class, class> class Step, class Base>
const char* launch_step_on_device(const FlatLayer* layers, std::int64_t count, const Base& base,
                                  double decoupled_decay, OnDevice at, void* workspace,
                                  void* stream, const Limits& limits = {}) {
  using Numbers = typename Step<float, float>::Numbers;
  using Source = const Prepared<Numbers>*;
  if (const char* error = load_kernels<Step, Source>()) return error;
  if (const char* error = load_prepare<Numbers>()) return error;
  if (count == 0) return nullptr;
  ByValue<Numbers> fixed{Numbers(base)};
  auto* prepared = static_cast<Prepared<Numbers>*>(workspace);
  if (const char* error = sphere::cuda::launch(prepare<Numbers>, std::uint32_t{1},
                                               static_cast<cudaStream_t>(stream), fixed,
                                               decoupled_decay, at, prepared)) {
    return error;
  }
  return launch_with<Step, Source>(prepared, layers, count,
                                   static_cast<char*>(workspace) + kPreparedBytes, stream, limits);
}

/// Number of bytes of two slots for each chunk.
inline std::int64_t workspace_bytes(const FlatLayer* layers, std::int64_t count,
                                    const Limits& limits = {}) {
  return 2 * sphere::cuda::slot_bytes(layers, count, kNeedsOfSteps, limits);
}

constexpr Entries kEntries = [] {
  Entries all;
  all.workspace_bytes = [](const FlatLayer* layers, std::int64_t count) {
    return workspace_bytes(layers, count);
  };
  all.adam = [](const FlatLayer* layers, std::int64_t count, const Adam& step, void* workspace,
                void* stream) {
    return launch_step<AdamStep>(layers, count, step, workspace, stream);
  };
  all.sgd = [](const FlatLayer* layers, std::int64_t count, const SGD& step, void* workspace,
               void* stream) {
    return launch_step<SGDStep>(layers, count, step, workspace, stream);
  };
  all.device_adam = [](const FlatLayer* layers, std::int64_t count, const DeviceAdam& step,
                       void* workspace, void* stream) {
    return launch_step_on_device<AdamStep>(layers, count,
                                           Adam{step.beta1, step.beta2, step.eps, 1, 1, 1},
                                           step.decoupled_decay, step.at, workspace, stream);
  };
  all.device_sgd = [](const FlatLayer* layers, std::int64_t count, const DeviceSGD& step,
                      void* workspace, void* stream) {
    return launch_step_on_device<SGDStep>(
        layers, count, SGD{1, step.momentum, step.dampening, step.nesterov, step.first}, 0, step.at,
        workspace, stream);
  };
  return all;
}();

}  // namespace
}  // namespace lawn::detail::folded::cuda
