// SPDX-License-Identifier: Apache-2.0
//
// On which GPUs lawn's kernels run, with made-up GPUs and a made-up kernels' half.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include <lawn/cuda_kernels.h>
#include <lawn/folded/dispatch.h>

#include "tests/support/fake_gpus.h"
#include "tests/support/warnings.h"

namespace {

using lawn::has_cuda_kernels;
using lawn::sphere::cuda::has_kernels;
using lawn::testing::CapturedWarnings;
using lawn::testing::FakeGpus;

/// How often each device was asked for. There is code for the even ones.
int asked[8];

const char* missing_code() {
  const int device = FakeGpus::current();
  ++asked[device];
  return device % 2 == 0 ? nullptr : "no kernel image is available";
}

lawn::sphere::cuda::Entries made_up() {
  lawn::sphere::cuda::Entries entries{};
  entries.missing_code = missing_code;
  entries.architectures = "750,900";
  return entries;
}

std::size_t count_of(const std::string& word, const std::string& text) {
  std::size_t count = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

class KernelsOnFakeGpus : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int& count : asked) count = 0;
  }

  const lawn::sphere::cuda::Entries entries_ = made_up();
  const FakeGpus gpus_{&entries_};
};

TEST_F(KernelsOnFakeGpus, AreAskedForOnceOnEachDevice) {
  const CapturedWarnings warnings;
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(has_kernels({torch::kCUDA, 2}));
    EXPECT_TRUE(has_kernels({torch::kCUDA, 4}));
    EXPECT_FALSE(has_kernels({torch::kCUDA, 3}));
  }
  for (const int device : {2, 3, 4}) EXPECT_EQ(asked[device], 1) << device;
  EXPECT_EQ(FakeGpus::current(), 0) << "the current device stays";
}

TEST_F(KernelsOnFakeGpus, AreMissedInOneWarningForEachDeviceThatSaysWhatToDo) {
  const CapturedWarnings warnings;
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(has_kernels({torch::kCUDA, 1}));
    EXPECT_TRUE(has_kernels({torch::kCUDA, 2}));
  }
  EXPECT_EQ(count_of("lawn:", warnings.text()), 1U);
  for (const auto* part : {"compiled for the architectures 750,900 and hold no code for cuda:1",
                           "CUDA says: no kernel image is available", "go through ATen",
                           "compile with this GPU's compute capability in TORCH_CUDA_ARCH_LIST"}) {
    EXPECT_EQ(count_of(part, warnings.text()), 1U) << part << " in " << warnings.text();
  }
  EXPECT_FALSE(has_kernels({torch::kCUDA, 5}));
  EXPECT_EQ(count_of("lawn:", warnings.text()), 2U);
}

TEST_F(KernelsOnFakeGpus, OfTheCurrentDeviceAreMeantWithoutAnIndex) {
  const CapturedWarnings warnings;
  EXPECT_TRUE(has_kernels(torch::kCUDA));
  FakeGpus::set_current(3);
  EXPECT_FALSE(has_kernels(torch::kCUDA));
  EXPECT_FALSE(has_cuda_kernels());
  EXPECT_EQ(asked[0], 1);
  EXPECT_EQ(asked[3], 1);
}

TEST_F(KernelsOnFakeGpus, DecideWhereStepsAreFolded) {
  const CapturedWarnings warnings;
  EXPECT_TRUE(lawn::detail::folded::has_steps({torch::kCUDA, 2}));
  EXPECT_FALSE(lawn::detail::folded::has_steps({torch::kCUDA, 1}));
  EXPECT_TRUE(lawn::detail::folded::has_steps(torch::kCPU));
}

TEST_F(KernelsOnFakeGpus, AreNotOnDevicesThatAreNotThere) {
  EXPECT_TRUE(has_cuda_kernels({torch::kCUDA, 6}));
  EXPECT_FALSE(has_cuda_kernels({torch::kCUDA, 8}));
  EXPECT_FALSE(has_cuda_kernels(torch::kCPU));
  EXPECT_FALSE(has_cuda_kernels(torch::kMeta));
  EXPECT_FALSE(has_kernels(torch::kCPU));
}

TEST(KernelsOnAnyMachine, AreNotThereInABuildWithoutNvcc) {
  const FakeGpus gpus(nullptr);
  EXPECT_FALSE(has_cuda_kernels());
  EXPECT_FALSE(has_kernels({torch::kCUDA, 0}));
}

TEST(KernelsOnAnyMachine, AreNotAskedForOnAMachineWithoutGPUs) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "there is a GPU";
  EXPECT_FALSE(has_cuda_kernels());
}

}  // namespace
