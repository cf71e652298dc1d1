// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/optim/folded/cuda/layer_list.h>
#include <lawn/optim/folded/step.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/optim/folded/cuda/kernels.cuh>
#include <lawn/optim/folded/cuda/prepare.cuh>
#include <lawn/sphere/cuda/kernels.cuh>
#include <lawn/sphere/cuda/launch_kernel.cuh>
#include <lawn/sphere/cuda/reduce.cuh>

/// The host's side of the folded steps' kernels.
namespace lawn::folded::cuda {
namespace {

using sphere::cuda::kFewLayers;
using sphere::cuda::kManySteppedLayers;
using sphere::cuda::Limits;
using sphere::cuda::Purpose;
using sphere::cuda::Share;
using sphere::cuda::share_of;

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

/// Loads every kernel of one step. Static as `sphere::cuda::load_kernels` is.
template <template <class, class> class Step, class Source>
static const char* load_kernels() {
  static sphere::cuda::LoadedDevices loaded{};
  return sphere::cuda::load_once(
      loaded, {load_kernels_for<Step, kFewLayers, Source>,
               load_kernels_for<Step, kManySteppedLayers, Source>, load_rescaling_for<kFewLayers>,
               load_rescaling_for<kManySteppedLayers>});
}

/// As many launches as the layers need; three for up to `kCapacity` layers of up to `kMaxSettings`
/// settings, one where no sphere is cut into chunks.
template <template <class, class> class Step, int kCapacity, class Source>
const char* launch_lists(const Layer* layers, const Layer* end, Source source, void* workspace,
                         cudaStream_t stream, const Limits& limits) {
  LayerList<kCapacity> list;
  sphere::cuda::LayerList<kCapacity>& without_state = list;
  sphere::cuda::ListFiller<LayerList<kCapacity>> filler(list, Purpose::kStep, limits);
  while (layers != end) {
    const Layer* rest = filler.fill(layers, end);
    if (rest == layers) return sphere::cuda::kTooManySpheres;
    layers = rest;
    const std::uint32_t blocks = list.first_block[list.layers];
    const std::uint32_t chunks = blocks - list.first_block[list.first_chunked];
    void* squares =
        static_cast<char*>(workspace) + std::int64_t{chunks} * sphere::cuda::kMaxSumBytes;
    if (const char* error = sphere::cuda::launch(first_pass<Step, kCapacity, Source>, blocks,
                                                 stream, list, source, workspace)) {
      return error;
    }
    if (const char* error = sphere::cuda::launch(second_pass<Step, kCapacity, Source>, chunks,
                                                 stream, list, source, workspace)) {
      return error;
    }
    if (const char* error = sphere::cuda::launch(sphere::cuda::second_pass<Rescaling, kCapacity>,
                                                 chunks, stream, without_state, squares)) {
      return error;
    }
  }
  return nullptr;
}

template <template <class, class> class Step, class Source>
const char* launch_with(Source source, const Layer* layers, std::int64_t count, void* workspace,
                        void* stream, const Limits& limits) {
  std::int64_t entries = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    entries += share_of(layers[i], Purpose::kStep, limits).entries;
  }
  const auto launch_them = entries <= kFewLayers ? launch_lists<Step, kFewLayers, Source>
                                                 : launch_lists<Step, kManySteppedLayers, Source>;
  return launch_them(layers, layers + count, source, workspace, static_cast<cudaStream_t>(stream),
                     limits);
}

template <template <class, class> class Step, class Base>
const char* run(const Layer* layers, std::int64_t count, const Base& base, void* workspace,
                void* stream, const Limits& limits = {}) {
  using Source = ByValue<typename Step<float, float>::Numbers>;
  if (const char* error = load_kernels<Step, Source>()) return error;
  return launch_with<Step>(Source{typename Step<float, float>::Numbers(base)}, layers, count,
                           workspace, stream, limits);
}

/// The same with numbers on the device: one launch more.
/// @param base       without what `at` brings, all numbers of which may be 1
/// @param workspace  `kPreparedBytes` more than `workspace_bytes`
template <template <class, class> class Step, class Base>
const char* run_on_device(const Layer* layers, std::int64_t count, const Base& base,
                          double decoupled_decay, OnDevice at, void* workspace, void* stream,
                          const Limits& limits = {}) {
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

/// Two slots for each chunk.
inline std::int64_t workspace_bytes(const Layer* layers, std::int64_t count,
                                    const Limits& limits = {}) {
  std::int64_t chunks = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const Share share = share_of(layers[i], Purpose::kStep, limits);
    if (share.setting.role == Role::kChunk) chunks += share.entries * share.blocks;
  }
  return 2 * chunks * sphere::cuda::kMaxSumBytes;
}

}  // namespace
}  // namespace lawn::folded::cuda
