// SPDX-License-Identifier: Apache-2.0
#include "lawn/sphere/cuda/stream_handle.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gtest/gtest.h>

namespace {

using lawn::sphere::cuda::detail::handle_of;

/// A stream that knows its handle, as those of LibTorch 2.11 and later.
struct NewStream {
  void* native_handle() const { return handle; }
  void* handle;
};

TEST(StreamHandle, IsWhatTheStreamSaysWhereItKnows) {
  int there = 0;
  EXPECT_EQ(handle_of(NewStream{&there}, 0), &there);
}

TEST(StreamHandle, IsFoundInLibTorchsLibraryWhereTheStreamDoesNotKnow) {
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) {
    GTEST_SKIP() << "LibTorch is built without CUDA";
  }
  EXPECT_NE(lawn::sphere::cuda::detail::stream_of_cuda_stream(), nullptr);
}

}  // namespace
