// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/entries.h>
#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/plan.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/cuda/launch_kernel.cuh>
#include <lawn/sphere/cuda/launch_lists.cuh>
#include <lawn/sphere/cuda/operations.cuh>

/// The host's side of the kernels: the functions of `Entries`.
namespace lawn::sphere::cuda {
namespace {

/// Loads every kernel. It is static even in an unnamed namespace, since nvcc gives that a name,
/// under which the flags of two libraries could become one.
static const char* load_kernels() {
  static LoadedDevices loaded{};
  return load_once(loaded, {load_passes<TangentProjection, kFewLayers>,
                            load_passes<TangentProjection, kManyLayers>,
                            load_passes<Rescaling, kFewLayers>, load_passes<Rescaling, kManyLayers>,
                            load_passes<Norm, kFewLayers>, load_passes<Norm, kManyLayers>});
}

/// Whether `error` says that a program has no code for a device: neither for its architecture nor
/// such that its driver could translate it, or for a later driver than this one. Any other error
/// has another cause, and the launch reports it.
inline bool is_missing_code(cudaError_t error) {
  return error == cudaErrorInvalidDeviceFunction || error == cudaErrorNoKernelImageForDevice ||
         error == cudaErrorUnsupportedPtxVersion || error == cudaErrorJitCompilerNotFound ||
         error == cudaErrorJitCompilationDisabled || error == cudaErrorInsufficientDriver ||
         error == cudaErrorCallRequiresNewerDriver;
}

/// Asks about one kernel, since all are compiled for the same architectures.
inline const char* missing_code() {
  cudaFuncAttributes attributes;
  const auto error = cudaFuncGetAttributes(&attributes, first_pass<Norm, kFewLayers>);
  const char* text = message(error);
  return is_missing_code(error) ? text : nullptr;
}

#define LAWN_TEXT_OF(...) #__VA_ARGS__
#define LAWN_TEXT(...) LAWN_TEXT_OF(__VA_ARGS__)
#ifdef __CUDA_ARCH_LIST__  // nvcc defines it
constexpr const char* kArchitectures = LAWN_TEXT(__CUDA_ARCH_LIST__);
#else
constexpr const char* kArchitectures = "that are not known";
#endif
#undef LAWN_TEXT
#undef LAWN_TEXT_OF

template <template <class, class> class Operation>
const char* launch_operation(const Flat* layers, std::int64_t count, void* workspace, void* stream,
                             const Limits& limits = {}) {
  if (const char* error = load_kernels()) return error;
  return launch_passes<Operation>(layers, count, workspace, stream, limits);
}

template <template <class, class> class Operation>
constexpr LayersEntry kEntryOf =
    [](const Flat* layers, std::int64_t count, void* workspace, void* stream) {
      return launch_operation<Operation>(layers, count, workspace, stream);
    };

inline bool takes(Dtype weight, Dtype gradient) {
  const bool half = weight == Dtype::kBFloat16 || weight == Dtype::kFloat16;
  return weight == gradient || (half && gradient == Dtype::kFloat32);
}

inline std::int64_t workspace_bytes(const Flat* layers, std::int64_t count,
                                    const Limits& limits = {}) {
  return slot_bytes(layers, count, Norm<float, float>::kNeeds, limits);
}

inline bool is_capturing(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const auto error = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status);
  if (message(error) == nullptr) return status != cudaStreamCaptureStatusNone;
  // The default stream beside a capture. Any other error has another cause.
  return error == cudaErrorStreamCaptureImplicit;
}

constexpr Entries kEntries = [] {
  Entries all;
  all.takes = takes;
  all.workspace_bytes = [](const Flat* layers, std::int64_t count) {
    return workspace_bytes(layers, count);
  };
  all.norms = kEntryOf<Norm>;
  all.project_to_tangent = kEntryOf<TangentProjection>;
  all.rescale = kEntryOf<Rescaling>;
  all.is_capturing = is_capturing;
  all.missing_code = missing_code;
  all.architectures = kArchitectures;
  return all;
}();

}  // namespace
}  // namespace lawn::sphere::cuda
