// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/run_options.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace {

TEST(RunOptions, FlushesSubnormalNumbersToZero) {
  struct Restored {
    ~Restored() { at::globalContext().setFlushDenormal(false); }
  } restored;
  if (!at::globalContext().setFlushDenormal(true)) GTEST_SKIP() << "this CPU cannot";
  at::globalContext().setFlushDenormal(false);
  const at::Tensor subnormal = torch::full({4}, 1e-40);
  ASSERT_TRUE((subnormal * 0.5).gt(0).all().item<bool>());
  examples::RunOptions().apply_to_torch();
  EXPECT_TRUE((subnormal * 0.5).eq(0).all().item<bool>());
}

}  // namespace
