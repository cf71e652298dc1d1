// SPDX-License-Identifier: Apache-2.0
#include "lawn/sphere/cuda/stream_handle.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gtest/gtest.h>

namespace {

TEST(StreamHandle, IsFoundInLibTorchsLibraryWhereTheStreamDoesNotKnowIt) {
#if TORCH_VERSION_MINOR >= 11
  GTEST_SKIP() << "the streams of this LibTorch know their handles";
#else
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) {
    GTEST_SKIP() << "LibTorch is built without CUDA";
  }
  EXPECT_NE(lawn::sphere::cuda::detail::stream_of_cuda_stream(), nullptr);
#endif
}

}  // namespace
