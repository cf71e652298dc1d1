// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tests/support/cuda_emulation/machine.h"

/// As much of CUDA's header of this name as the kernels use, on the host. Tests that find it first
/// on their include path run the kernels' own source; the toolkit is not needed.

#define __global__
#define __device__
#define __host__
/// All threads read one copy: to make one for each would take longer than what most of them do.
#define __grid_constant__ &
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cuda_emulation_shared")))

#define __syncthreads() ::cuda_emulation::Machine::get().barrier({__FILE__, __LINE__, 0})
/// What lanes give one another here is nothing; they wait for one another.
#define __syncwarp() \
  static_cast<void>(::cuda_emulation::shuffle_xor(0xffffffffU, 0, {__FILE__, __LINE__, 0}))
#define __shfl_xor_sync(mask, value, distance) \
  ::cuda_emulation::shuffle_xor(mask, value, {__FILE__, __LINE__, distance})

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInsufficientDriver = 35,
  cudaErrorCallRequiresNewerDriver = 36,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorJitCompilerNotFound = 221,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorJitCompilationDisabled = 223,
  cudaErrorStreamCaptureImplicit = 906
};
using cudaStream_t = struct CUstream_st*;
struct cudaFuncAttributes {};
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1 };

namespace cuda_emulation {

template <class T>
T shuffle_xor(unsigned mask, T value, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "a lane gives 4 or 8 bytes");
  if (mask != 0xffffffffU) throw std::runtime_error("cuda emulation: only full masks");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = Machine::get().shuffle_xor(bits, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

/// What the functions below say of the device; tests set it.
struct Runtime {
  int device = 0;
  cudaError_t launch_error = cudaSuccess;    ///< of every launch
  cudaError_t function_error = cudaSuccess;  ///< of every request to load a kernel
  int loads = 0;                             ///< such requests
  bool capturing = false;                    ///< on every stream
  cudaError_t capture_error = cudaSuccess;   ///< of every question about that
  cudaError_t last_error = cudaSuccess;      ///< what cudaGetLastError would say

  static Runtime& get() {
    static Runtime runtime;
    return runtime;
  }
};

template <class... P, std::size_t... kI>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<kI...>) {
  kernel(*static_cast<std::remove_reference_t<P>*>(arguments[kI])...);
}

}  // namespace cuda_emulation

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments,
                             std::size_t, cudaStream_t) {
  if (const auto error = cuda_emulation::Runtime::get().launch_error) return error;
  cuda_emulation::Machine::get().launch(grid.x, block.x, [&] {
    cuda_emulation::call(kernel, arguments, std::index_sequence_for<P...>{});
  });
  return cudaSuccess;
}

template <class... P>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, void (*)(P...)) {
  ++cuda_emulation::Runtime::get().loads;
  auto& runtime = cuda_emulation::Runtime::get();
  if (runtime.function_error != cudaSuccess) runtime.last_error = runtime.function_error;
  return runtime.function_error;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = cuda_emulation::Runtime::get().device;
  return cudaSuccess;
}

inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cuda_emulation::Runtime::get().capturing ? cudaStreamCaptureStatusActive
                                                     : cudaStreamCaptureStatusNone;
  return cuda_emulation::Runtime::get().capture_error;
}

inline cudaError_t cudaGetLastError() {
  return std::exchange(cuda_emulation::Runtime::get().last_error, cudaSuccess);
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "emulated error";
}
