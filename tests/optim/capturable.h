// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/optim/capture.h>

/// What tests of capturable steps have in common.
namespace lawn::testing {

/// While it lives, every stream seems to be captured.
class PretendedCapture {
 public:
  PretendedCapture() {
    lawn::detail::is_capturing = [](at::Device) { return true; };
  }
  ~PretendedCapture() { lawn::detail::is_capturing = &lawn::detail::current_stream_captures; }
  PretendedCapture(const PretendedCapture&) = delete;
  PretendedCapture& operator=(const PretendedCapture&) = delete;
};

inline void expect_equal(const std::vector<torch::Tensor>& actual,
                         const std::vector<torch::Tensor>& expected, const std::string& where) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_TRUE(torch::equal(actual[i], expected[i])) << where << ", parameter " << i;
  }
}

/// What a scheduler does.
inline void set_rates(torch::optim::Optimizer& optimizer, int64_t step) {
  double lr = 0.01 / static_cast<double>(1 + step);
  for (auto& group : optimizer.param_groups()) group.options().set_lr(lr *= 2);
}

}  // namespace lawn::testing
