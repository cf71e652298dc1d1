// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/launch.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/flat.h>
#include <lawn/optim/folded/cuda/launchers.cuh>
#include <lawn/sphere/cuda/kernels.cuh>
#include <lawn/sphere/cuda/launch_kernel.cuh>

/// The host's side of the kernels: what `Launchers` offers.
namespace lawn::sphere::cuda {
namespace {

template <template <class, class> class Operation, int kCapacity>
const char* load_kernels_for() {
  if (const char* error = load_kernel(first_pass<Operation, kCapacity>)) return error;
  return load_kernel(second_pass<Operation, kCapacity>);
}

/// Loads every kernel. Static as well, since nvcc gives unnamed namespaces a name, under which two
/// libraries' flags could become one.
static const char* load_kernels() {
  static LoadedDevices loaded{};
  return load_once(
      loaded, {load_kernels_for<Projection, kFewLayers>, load_kernels_for<Projection, kManyLayers>,
               load_kernels_for<Rescaling, kFewLayers>, load_kernels_for<Rescaling, kManyLayers>,
               load_kernels_for<Norm, kFewLayers>, load_kernels_for<Norm, kManyLayers>});
}

/// As many launches as the layers need; two for up to `kCapacity` layers of up to `kMaxSettings`
/// settings, one where no sphere is cut into chunks.
template <template <class, class> class Operation, int kCapacity>
const char* launch_lists(const Flat* layers, const Flat* end, void* workspace, cudaStream_t stream,
                         Purpose purpose, const Limits& limits) {
  LayerList<kCapacity> list;
  ListFiller<LayerList<kCapacity>> filler(list, purpose, limits);
  while (layers != end) {
    const Flat* rest = filler.fill(layers, end);
    if (rest == layers) return kTooManySpheres;
    layers = rest;
    const std::uint32_t blocks = list.first_block[list.layers];
    const std::uint32_t chunks = blocks - list.first_block[list.first_chunked];
    const auto chunked = static_cast<std::uint32_t>(list.layers - list.first_chunked);
    if (const char* error =
            launch(first_pass<Operation, kCapacity>, blocks, stream, list, workspace)) {
      return error;
    }
    if (const char* error = launch(second_pass<Operation, kCapacity>,
                                   Operation<float, float>::kPerElement ? chunks : chunked, stream,
                                   list, workspace)) {
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
    takes,
    [](const Flat* layers, std::int64_t count) { return workspace_bytes(layers, count); },
    [](const Flat* layers, std::int64_t count, void* workspace, void* stream) {
      return run<Norm>(Purpose::kNorms, layers, count, workspace, stream);
    },
    [](const Flat* layers, std::int64_t count, void* workspace, void* stream) {
      return run<Projection>(Purpose::kProjection, layers, count, workspace, stream);
    },
    [](const Flat* layers, std::int64_t count, void* workspace, void* stream) {
      return run<Rescaling>(Purpose::kRescaling, layers, count, workspace, stream);
    },
    [](const folded::Layer* layers, std::int64_t count) {
      return folded::cuda::workspace_bytes(layers, count);
    },
    [](const folded::Layer* layers, std::int64_t count, const folded::Adam& step, void* workspace,
       void* stream) {
      return folded::cuda::run<folded::cuda::AdamStep>(layers, count, step, workspace, stream);
    },
    [](const folded::Layer* layers, std::int64_t count, const folded::SGD& step, void* workspace,
       void* stream) {
      return folded::cuda::run<folded::cuda::SGDStep>(layers, count, step, workspace, stream);
    },
    [](const folded::Layer* layers, std::int64_t count, const folded::DeviceAdam& step,
       void* workspace, void* stream) {
      return folded::cuda::run_on_device<folded::cuda::AdamStep>(
          layers, count, folded::Adam{step.beta1, step.beta2, step.eps, 1, 1, 1},
          step.decoupled_decay, step.at, workspace, stream);
    },
    [](const folded::Layer* layers, std::int64_t count, const folded::DeviceSGD& step,
       void* workspace, void* stream) {
      return folded::cuda::run_on_device<folded::cuda::SGDStep>(
          layers, count, folded::SGD{1, step.momentum, step.dampening, step.nesterov, step.first},
          0, step.at, workspace, stream);
    },
    [](void* stream) {
      cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
      const auto error = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status);
      // A stream that may not even be asked is part of a capture.
      return message(error) != nullptr || status != cudaStreamCaptureStatusNone;
    }};

}  // namespace
}  // namespace lawn::sphere::cuda
