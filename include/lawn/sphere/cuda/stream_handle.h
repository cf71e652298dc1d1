// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Stream.h>
#include <torch/version.h>
#if TORCH_VERSION_MINOR < 11
#include <dlfcn.h>

#include <c10/util/Exception.h>
#endif

namespace lawn::sphere::cuda {

#if TORCH_VERSION_MINOR >= 11
/// The cudaStream_t of a stream of a GPU.
/// @note  does not wait for the device
inline void* stream_handle(const c10::Stream& stream) { return stream.native_handle(); }
#else

namespace detail {

/// The name under which libc10_cuda exports `cudaStream_t c10::cuda::CUDAStream::stream() const`.
/// Its header needs those of the CUDA toolkit, and a program for CPUs does not link the library:
/// hence the function is looked up when a program runs.
inline constexpr const char* kStreamOfCudaStream = "_ZNK3c104cuda10CUDAStream6streamEv";

/// The function of that name, which takes a c10::Stream, the one member of a CUDAStream; null in a
/// program without libc10_cuda.
inline auto stream_of_cuda_stream() {
  return reinterpret_cast<void* (*)(const c10::Stream*)>(dlsym(RTLD_DEFAULT, kStreamOfCudaStream));
}

}  // namespace detail

inline void* stream_handle(const c10::Stream& stream) {
  static const auto function = detail::stream_of_cuda_stream();
  TORCH_CHECK(function != nullptr, "lawn: expected libc10_cuda in a program with a stream of ",
              stream.device(), ", which exports ", detail::kStreamOfCudaStream,
              "; found none: link LibTorch's own libraries for CUDA");
  return function(&stream);
}
#endif

}  // namespace lawn::sphere::cuda
