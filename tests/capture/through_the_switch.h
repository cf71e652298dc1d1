// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/capture/capturable.h"
#include "tests/folded/folding.h"
#include "tests/support/tolerance.h"

namespace lawn::testing {

/// Steps `LAWN<Fused>` with its phase on the device beside the same with it on the host, and
/// compares them after each step. With `from` free steps already done on the host by both.
template <class Fused, class Options>
void expect_same_through_the_switch(const Options& options, const LAWNOptions& lawn,
                                    torch::ScalarType dtype = torch::kFloat, int64_t from = 0,
                                    torch::Device place = torch::kCPU) {
  const auto a = make_weights(dtype, place);
  const auto b = make_weights(dtype, place);
  LAWN<Fused> device(Fused(a, options), selection(a), lawn);
  LAWN<Fused> host(Fused(b, options), selection(b), lawn);
  for (int64_t step = 0; step < 8; ++step) {
    if (step == from) device.make_capturable();
    set_rates(device, step);
    set_rates(host, step);
    set_gradients(a, step);
    set_gradients(b, step);
    device.step();
    host.step();
    for (std::size_t i = 0; i < a.size(); ++i) {
      ASSERT_LE(difference(a[i], b[i]), tolerance(dtype).step * static_cast<double>(step + 1))
          << "step " << step << ", weight " << i;
    }
    EXPECT_EQ(device.phase(), host.phase()) << step;
    EXPECT_EQ(device.steps(), host.steps());
    if (step % 4 != 3 && step != lawn.free_steps()) continue;
    const auto of_device = device.report();
    const auto of_host = host.report();
    for (std::size_t i = 0; i < of_host.layers.size(); ++i) {
      ASSERT_EQ(of_device.layers[i].radius.has_value(), of_host.layers[i].radius.has_value());
      if (!of_host.layers[i].radius) continue;
      EXPECT_NEAR(*of_device.layers[i].radius, *of_host.layers[i].radius,
                  *of_host.layers[i].radius * tolerance(dtype).step * 10);
      EXPECT_EQ(of_device.layers[i].note, of_host.layers[i].note);
    }
  }
  EXPECT_EQ(device.phase(), Phase::kConstrained);
}

}  // namespace lawn::testing
