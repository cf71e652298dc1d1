// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include <cuda_runtime.h>

#include <lawn/sphere/cuda/layer_list.h>

/// Loads and launches kernels, whatever they compute.
namespace lawn::sphere::cuda {
namespace {

/// CUDA's text for `error`, or null for success. Clears CUDA's last error.
inline const char* message(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  static_cast<void>(cudaGetLastError());
  return cudaGetErrorString(error);
}

/// Loads a kernel on the current device. Otherwise CUDA would load it at its first launch, and
/// might refuse to while a graph is captured.
template <class... P>
const char* load_kernel(void (*kernel)(P...)) {
  cudaFuncAttributes attributes;
  return message(cudaFuncGetAttributes(&attributes, kernel));
}

/// The devices on which a set of kernels is loaded.
using LoadedDevices = std::array<std::atomic<bool>, 64>;

/// Calls each of `loads` at the first use on the current device.
inline const char* load_once(LoadedDevices& loaded,
                             std::initializer_list<const char* (*)()> loads) {
  int device = 0;
  if (const char* error = message(cudaGetDevice(&device))) return error;
  const auto place = static_cast<std::size_t>(device);
  if (place < loaded.size() && loaded[place].load(std::memory_order_relaxed)) return nullptr;
  for (const auto load : loads) {
    if (const char* error = load()) return error;
  }
  if (place < loaded.size()) loaded[place].store(true, std::memory_order_relaxed);
  return nullptr;
}

/// Launches `blocks` blocks; 0 launches nothing.
template <class... P>
const char* launch(void (*kernel)(P...), std::uint32_t blocks, cudaStream_t stream,
                   std::remove_cv_t<std::remove_reference_t<P>>&... parameters) {
  if (blocks == 0) return nullptr;
  void* arguments[] = {&parameters...};
  return message(cudaLaunchKernel(kernel, dim3(blocks), dim3(kThreads), arguments, 0, stream));
}

}  // namespace
}  // namespace lawn::sphere::cuda
