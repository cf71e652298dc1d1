// SPDX-License-Identifier: Apache-2.0
#include "lawn/autocast.h"

#include <stdexcept>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::Autocast;
using lawn::testing::close;
using lawn::testing::expect_refusal;

bool is_on() { return at::autocast::is_autocast_enabled(torch::kCPU); }
at::ScalarType dtype() { return at::autocast::get_autocast_dtype(torch::kCPU); }

TEST(Autocast, ComputesForwardPassesInItsDtypeFromParametersInFloat32) {
  torch::manual_seed(0);
  torch::nn::Linear layer(8, 4);
  const auto x = torch::randn({5, 8});
  const auto full = layer->forward(x);
  for (const auto half : {torch::kBFloat16, torch::kHalf}) {
    torch::Tensor y;
    {
      const Autocast autocast(torch::kCPU, half);
      y = layer->forward(x);
    }
    EXPECT_EQ(y.scalar_type(), half);
    EXPECT_TRUE(close(y, full.to(half)));
    y.sum().backward();
    EXPECT_EQ(layer->weight.scalar_type(), torch::kFloat);
    EXPECT_EQ(layer->weight.grad().scalar_type(), torch::kFloat);
    EXPECT_EQ(layer->forward(x).scalar_type(), torch::kFloat);
  }
}

TEST(Autocast, NestsAndRestoresWhatWasBefore) {
  const auto before = dtype();
  {
    const Autocast outer(torch::kCPU, torch::kHalf);
    {
      const Autocast inner(torch::kCPU, torch::kBFloat16);
      EXPECT_EQ(dtype(), torch::kBFloat16);
      {
        const Autocast off(torch::kCPU, torch::kFloat, /*enabled=*/false);
        EXPECT_FALSE(is_on());
        EXPECT_EQ(torch::mm(torch::ones({2, 2}), torch::ones({2, 2})).scalar_type(), torch::kFloat);
      }
      EXPECT_TRUE(is_on());
      EXPECT_EQ(dtype(), torch::kBFloat16);
    }
    EXPECT_TRUE(is_on());
    EXPECT_EQ(dtype(), torch::kHalf);
  }
  EXPECT_FALSE(is_on());
  EXPECT_EQ(dtype(), before);
}

TEST(Autocast, RestoresWhatWasBeforeAfterAnException) {
  const auto before = dtype();
  try {
    const Autocast outer(torch::kCPU, torch::kBFloat16);
    const Autocast inner(torch::kCPU, torch::kHalf);
    throw std::runtime_error("in a forward pass");
  } catch (const std::runtime_error&) {
  }
  EXPECT_FALSE(is_on());
  EXPECT_EQ(dtype(), before);
  EXPECT_EQ(at::autocast::increment_nesting(), 1);
  EXPECT_EQ(at::autocast::decrement_nesting(), 0);
}

TEST(Autocast, KeepsCastsOfParametersUntilTheOutermostEnds) {
  const auto w = torch::ones({2, 2}, torch::requires_grad());
  const auto x = torch::ones({2, 2});
  const auto element = [&] {
    const Autocast autocast(torch::kCPU, torch::kBFloat16);
    return torch::mm(x, w)[0][0].item<float>();
  };
  const auto step = [&] {
    const torch::NoGradGuard no_grad;
    w.mul_(2);
  };
  EXPECT_EQ(element(), 2);
  step();
  EXPECT_EQ(element(), 4);
  {
    const Autocast outer(torch::kCPU, torch::kBFloat16);
    EXPECT_EQ(element(), 4);
    step();
    EXPECT_EQ(element(), 4);  // a cast of the weight before the step
  }
  EXPECT_EQ(element(), 8);
}

TEST(Autocast, RefusesDtypesAndDevicesThatItDoesNotTakeAndChangesNothing) {
  const auto before = dtype();
  for (const auto other : {torch::kFloat, torch::kDouble, torch::kLong}) {
    expect_refusal([&] { const Autocast autocast(torch::kCPU, other); },
                   "lawn::Autocast: expected Half or BFloat16 on ");
  }
  expect_refusal([&] { const Autocast autocast(torch::kMeta, torch::kBFloat16); },
                 "lawn::Autocast: expected a type of device that LibTorch autocasts on");
  EXPECT_FALSE(is_on());
  EXPECT_EQ(dtype(), before);
}

}  // namespace
