// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace lawn::testing {

/// That two lists of tensors are the same, bit for bit.
inline void expect_equal(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b,
                         const std::string& where) {
  ASSERT_EQ(a.size(), b.size()) << where;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(torch::equal(a[i], b[i])) << where << ", parameter " << i;
  }
}

}  // namespace lawn::testing
