// SPDX-License-Identifier: Apache-2.0

#include <cstdint>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/optim/fused_pairs.h"
#include "tests/support/tolerance.h"

namespace {

/// LibTorch's own functions: lawn's kernels are not needed.
template <class Pair>
class FusedOnAGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU that LibTorch can use";
    torch::manual_seed(3);
  }
};

TYPED_TEST_SUITE(FusedOnAGpu, lawn::testing::FusedPairs);

TYPED_TEST(FusedOnAGpu, EqualsTheUnfusedOverAThousandSteps) {
  for (const auto dtype : {torch::kDouble, torch::kFloat}) {
    lawn::testing::expect_same_trajectories<TypeParam>(
        torch::TensorOptions(torch::kCUDA).dtype(dtype));
  }
}

TYPED_TEST(FusedOnAGpu, FollowsFloat64InHalfAndBfloat16) {
  using lawn::testing::Tensors;
  for (const auto dtype : {torch::kBFloat16, torch::kHalf}) {
    const auto a = lawn::testing::parameters(torch::TensorOptions(torch::kCUDA).dtype(dtype));
    Tensors b;
    for (const auto& p : a) b.push_back(p.detach().to(torch::kDouble).requires_grad_());
    typename TypeParam::Fused fused(a, TypeParam::options().front());
    typename TypeParam::Plain plain(b, TypeParam::options().front());
    lawn::testing::step_both(fused, a, plain, b, 0, 30);
    lawn::testing::expect_close(a, b, lawn::testing::tolerance(dtype).trajectory,
                                c10::toString(dtype));
  }
}

TYPED_TEST(FusedOnAGpu, StepsAGroupThatLiesOnCpuAndGpu) {
  auto a = lawn::testing::parameters(torch::kFloat);
  const auto on_gpu = lawn::testing::parameters(torch::TensorOptions(torch::kCUDA));
  a.insert(a.begin() + 1, on_gpu.begin(), on_gpu.end());
  const auto b = lawn::testing::copies(a);
  typename TypeParam::Fused fused(a, TypeParam::options().back());
  typename TypeParam::Plain plain(b, TypeParam::options().back());
  lawn::testing::step_both(fused, a, plain, b, 0, 10);
  lawn::testing::expect_close(a, b, lawn::testing::tolerance(torch::kFloat).trajectory,
                              "after 10 steps");
}

}  // namespace
