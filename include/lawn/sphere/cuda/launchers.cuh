// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/launch.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/flat.h>
#include <lawn/companions/cuda/launchers.cuh>
#include <lawn/optim/folded/cuda/launchers.cuh>
#include <lawn/sphere/cuda/launch_kernel.cuh>
#include <lawn/sphere/cuda/launch_lists.cuh>
#include <lawn/sphere/cuda/operations.cuh>

/// The host's side of the kernels: what `Launchers` offers.
namespace lawn::sphere::cuda {
namespace {

/// Loads every kernel. Static as well, since nvcc gives unnamed namespaces a name, under which two
/// libraries' flags could become one.
static const char* load_kernels() {
  static LoadedDevices loaded{};
  return load_once(loaded,
                   {load_passes<Projection, kFewLayers>, load_passes<Projection, kManyLayers>,
                    load_passes<Rescaling, kFewLayers>, load_passes<Rescaling, kManyLayers>,
                    load_passes<Norm, kFewLayers>, load_passes<Norm, kManyLayers>});
}

/// Whether `error` says that a program has no code for a device: none for its architecture, and none
/// that its driver could translate. Any other error is not about that, and comes up at the launch.
inline bool is_missing_code(cudaError_t error) {
  return error == cudaErrorInvalidDeviceFunction || error == cudaErrorNoKernelImageForDevice ||
         error == cudaErrorUnsupportedPtxVersion || error == cudaErrorJitCompilerNotFound ||
         error == cudaErrorJitCompilationDisabled;
}

/// Asks for one kernel: all are compiled for the same architectures.
inline const char* missing_code() {
  cudaFuncAttributes attributes;
  const auto error = cudaFuncGetAttributes(&attributes, first_pass<Norm, kFewLayers>);
  const char* text = message(error);
  return is_missing_code(error) ? text : nullptr;
}

#define LAWN_TEXT_OF(...) #__VA_ARGS__
#define LAWN_TEXT(...) LAWN_TEXT_OF(__VA_ARGS__)
#ifdef __CUDA_ARCH_LIST__  // nvcc's
constexpr const char* kArchitectures = LAWN_TEXT(__CUDA_ARCH_LIST__);
#else
constexpr const char* kArchitectures = "that are not known";
#endif
#undef LAWN_TEXT
#undef LAWN_TEXT_OF

template <template <class, class> class Operation>
const char* run(Purpose purpose, const Flat* layers, std::int64_t count, void* workspace,
                void* stream, const Limits& limits = {}) {
  if (const char* error = load_kernels()) return error;
  return launch_passes<Operation>(purpose, layers, count, workspace, stream, limits);
}

inline bool takes(Dtype weight, Dtype gradient) {
  const bool half = weight == Dtype::kBFloat16 || weight == Dtype::kFloat16;
  return weight == gradient || (half && gradient == Dtype::kFloat32);
}

inline std::int64_t workspace_bytes(const Flat* layers, std::int64_t count,
                                    const Limits& limits = {}) {
  return slot_bytes(layers, count, Purpose::kNorms, limits);
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
    [](const Flat* rows, std::int64_t count, void* workspace, void* stream) {
      return lawn::detail::cuda::center_rows(rows, count, workspace, stream);
    },
    [](const lawn::detail::PrunedRun* runs, std::int64_t count, void* stream) {
      return lawn::detail::cuda::zero_pruned(runs, count, stream);
    },
    [](const lawn::detail::PenaltyRun* runs, std::int64_t count, double rho, void* stream) {
      return lawn::detail::cuda::add_penalty(runs, count, rho, stream);
    },
    [](const lawn::detail::UnifiedRun* runs, std::int64_t count, void* stream) {
      return lawn::detail::cuda::unify_frozen(runs, count, stream);
    },
    [](void* stream) {
      cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
      const auto error = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status);
      // A stream that may not even be asked is part of a capture.
      return message(error) != nullptr || status != cudaStreamCaptureStatusNone;
    },
    missing_code,
    kArchitectures};

}  // namespace
}  // namespace lawn::sphere::cuda
