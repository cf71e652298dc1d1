// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/launch.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/cuda/kernels.cuh>

/// The host's side of the kernels: what `Launchers` offers.
namespace lawn::sphere::cuda {
namespace {

/// What CUDA says of `error`, or null. Leaves no error behind for the next who asks.
inline const char* message(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  static_cast<void>(cudaGetLastError());
  return cudaGetErrorString(error);
}

template <template <class, class> class Operation, int kCapacity>
const char* load_kernels_for() {
  cudaFuncAttributes attributes;
  if (const char* error =
          message(cudaFuncGetAttributes(&attributes, first_pass<Operation, kCapacity>))) {
    return error;
  }
  return message(cudaFuncGetAttributes(&attributes, second_pass<Operation, kCapacity>));
}

/// Loads every kernel on the current device at the first use there: CUDA would load each one at its
/// own first launch, and might refuse to while a graph is captured. Static as well, since nvcc
/// gives unnamed namespaces a name, under which two libraries' flags could become one.
static const char* load_kernels() {
  static std::array<std::atomic<bool>, 64> loaded{};
  int device = 0;
  if (const char* error = message(cudaGetDevice(&device))) return error;
  const auto place = static_cast<std::size_t>(device);
  if (place < loaded.size() && loaded[place].load(std::memory_order_relaxed)) return nullptr;
  for (const auto load :
       {load_kernels_for<Projection, kFewLayers>, load_kernels_for<Projection, kManyLayers>,
        load_kernels_for<Rescaling, kFewLayers>, load_kernels_for<Rescaling, kManyLayers>,
        load_kernels_for<Norm, kFewLayers>, load_kernels_for<Norm, kManyLayers>}) {
    if (const char* error = load()) return error;
  }
  if (place < loaded.size()) loaded[place].store(true, std::memory_order_relaxed);
  return nullptr;
}

template <int kCapacity>
const char* launch(void (*kernel)(LayerList<kCapacity>, void*), std::uint32_t blocks,
                   LayerList<kCapacity>& list, void* workspace, cudaStream_t stream) {
  if (blocks == 0) return nullptr;
  void* arguments[] = {&list, &workspace};
  return message(cudaLaunchKernel(kernel, dim3(blocks), dim3(kThreads), arguments, 0, stream));
}

/// As many launches as the layers need; two for up to `kCapacity` layers of up to `kMaxSettings`
/// settings, one where no sphere is cut into chunks.
template <template <class, class> class Operation, int kCapacity>
const char* launch_lists(const Flat* layers, const Flat* end, void* workspace, cudaStream_t stream,
                         Purpose purpose, const Limits& limits) {
  LayerList<kCapacity> list;
  ListFiller<kCapacity> filler(list, purpose, limits);
  while (layers != end) {
    const Flat* rest = filler.fill(layers, end);
    if (rest == layers) return "lawn: a layer has more spheres of its size than the kernels take";
    layers = rest;
    const std::uint32_t blocks = list.first_block[list.layers];
    const std::uint32_t chunks = blocks - list.first_block[list.first_chunked];
    const auto chunked = static_cast<std::uint32_t>(list.layers - list.first_chunked);
    if (const char* error =
            launch(first_pass<Operation, kCapacity>, blocks, list, workspace, stream)) {
      return error;
    }
    if (const char* error = launch(second_pass<Operation, kCapacity>,
                                   Operation<float, float>::kPerElement ? chunks : chunked, list,
                                   workspace, stream)) {
      return error;
    }
  }
  return nullptr;
}

template <template <class, class> class Operation>
const char* run(Purpose purpose, const Flat* layers, std::int64_t count, void* workspace,
                void* stream, const Limits& limits = {}) {
  if (const char* error = load_kernels()) return error;
  std::int64_t entries = 0;
  for (std::int64_t i = 0; i < count; ++i) entries += share_of(layers[i], purpose, limits).entries;
  const auto launch_them = entries <= kFewLayers ? launch_lists<Operation, kFewLayers>
                                                 : launch_lists<Operation, kManyLayers>;
  return launch_them(layers, layers + count, workspace, static_cast<cudaStream_t>(stream), purpose,
                     limits);
}

inline bool takes(Dtype weight, Dtype gradient) {
  const bool half = weight == Dtype::kBFloat16 || weight == Dtype::kFloat16;
  return weight == gradient || (half && gradient == Dtype::kFloat32);
}

/// A slot for each chunk. Lists of one call follow one another on the stream and could share slots;
/// more than one is too rare to work that out.
inline std::int64_t workspace_bytes(const Flat* layers, std::int64_t count,
                                    const Limits& limits = {}) {
  std::int64_t chunks = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const Share share = share_of(layers[i], Purpose::kNorms, limits);
    if (share.setting.role == Role::kChunk) chunks += share.entries * share.blocks;
  }
  return chunks * kMaxSumBytes;
}

constexpr Launchers kLaunchers{
    takes, [](const Flat* layers, std::int64_t count) { return workspace_bytes(layers, count); },
    [](const Flat* layers, std::int64_t count, void* workspace, void* stream) {
      return run<Norm>(Purpose::kNorms, layers, count, workspace, stream);
    },
    [](const Flat* layers, std::int64_t count, void* workspace, void* stream) {
      return run<Projection>(Purpose::kProjection, layers, count, workspace, stream);
    },
    [](const Flat* layers, std::int64_t count, void* workspace, void* stream) {
      return run<Rescaling>(Purpose::kRescaling, layers, count, workspace, stream);
    }};

}  // namespace
}  // namespace lawn::sphere::cuda
