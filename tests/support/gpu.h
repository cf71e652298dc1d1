// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/cuda_kernels.h>

namespace lawn::testing {

/// A test that needs a GPU and the CUDA kernels, and is skipped without.
class Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU that LibTorch can use";
    if (!has_cuda_kernels(device())) {
      GTEST_SKIP() << "the program has no CUDA kernels for this GPU: it was built without nvcc, or "
                      "for others";
    }
    torch::manual_seed(11);
  }

  /// A test may end while another stream works on what it has made: its memory is the next test's then.
  void TearDown() override {
    if (torch::cuda::is_available()) torch::cuda::synchronize();
  }

  static torch::Device device() { return {torch::kCUDA, 0}; }
};

}  // namespace lawn::testing
