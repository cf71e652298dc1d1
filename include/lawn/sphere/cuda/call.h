// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <lawn/sphere/cuda/entries.h>
#include <lawn/sphere/cuda/stream_handle.h>
#include <lawn/sphere/flat.h>

namespace lawn::sphere::cuda {

namespace detail {

/// What is known about the kernels' code on a device.
enum class Code : std::uint8_t { kNotAsked, kThere, kMissing };

/// Indexed by the device's index, which is an int8.
inline std::array<std::atomic<Code>, std::numeric_limits<c10::DeviceIndex>::max() + 1> code_on{};

/// Asks CUDA whether the kernels hold code for `device`, which must have an index, and stores the
/// answer. Warns once for each device if they do not.
inline Code ask_for_code(at::Device device) {
  const char* error = nullptr;
  {
    const c10::DeviceGuard guard(device);
    error = entries->missing_code();
  }
  const Code answer = error == nullptr ? Code::kThere : Code::kMissing;
  // If several threads ask at once, only one warns.
  const Code before = code_on[static_cast<std::uint8_t>(device.index())].exchange(answer);
  if (answer == Code::kMissing && before == Code::kNotAsked) {
    TORCH_WARN("lawn: its CUDA kernels were compiled for the architectures ",
               entries->architectures, " and hold no code for ", device, " (CUDA says: ", error,
               "); tensors there go through ATen, which is slower. To have kernels, compile with ",
               "this GPU's compute capability in TORCH_CUDA_ARCH_LIST (nvidia-smi ",
               "--query-gpu=compute_cap --format=csv), and with an nvcc whose CUDA the driver has ",
               "(nvidia-smi shows it)");
  }
  return answer;
}

}  // namespace detail

/// Whether this program has kernels that run on `device`: false without a build by nvcc, and on a
/// GPU for which the kernels were not compiled. The first call for a device asks CUDA, and warns if
/// the answer is no; later calls read the stored answer. Does not wait for the device.
inline bool has_kernels(at::Device device) {
  if (!device.is_cuda() || entries == nullptr) return false;
  if (!device.has_index()) {
    device = c10::impl::VirtualGuardImpl(device.type()).getDevice();
  }
  auto code = detail::code_on[static_cast<std::uint8_t>(device.index())].load();
  if (code == detail::Code::kNotAsked) code = detail::ask_for_code(device);
  return code == detail::Code::kThere;
}

/// Calls `launch(workspace, stream)` with `device` as the current device, its current stream, and
/// `workspace_bytes` bytes of workspace. The workspace comes from LibTorch's caching allocator,
/// which handles streams and CUDA graphs, and asks the device for no memory after the first step.
/// @param launch  returns null, or the error as text
template <class Launch>
void call(at::Device device, std::int64_t workspace_bytes, const Launch& launch) {
  const c10::DeviceGuard guard(device);
  // The tests run the kernels on the host, which has no streams.
  void* stream = device.is_cpu()
                     ? nullptr
                     : stream_handle(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  const auto workspace = at::empty({workspace_bytes}, at::TensorOptions(device).dtype(at::kByte));
  const char* error = launch(workspace.data_ptr(), stream);
  TORCH_CHECK(error == nullptr, "lawn: launching a kernel on ", device, " failed: ", error);
}

/// Calls `entry` with `layers`, all on `device`.
inline void call(at::Device device, LayersEntry entry, const std::vector<Flat>& layers) {
  const auto count = static_cast<std::int64_t>(layers.size());
  call(device, entries->workspace_bytes(layers.data(), count), [&](void* workspace, void* stream) {
    return entry(layers.data(), count, workspace, stream);
  });
}

}  // namespace lawn::sphere::cuda
