// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

namespace {

/// A network that uses one weight under two names.
struct Tied : torch::nn::Module {
  Tied() {
    encoder = register_parameter("encoder", torch::randn({3, 3}));
    bias = register_parameter("bias", torch::zeros({3}));
    decoder = register_parameter("decoder", encoder);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    return torch::linear(torch::relu(torch::linear(x, encoder, bias)), decoder.t());
  }

  torch::Tensor encoder, bias, decoder;
};

TEST(UniqueParameters, ListsATiedWeightOnceAndInOrder) {
  const Tied model;
  EXPECT_EQ(model.parameters().size(), 3U) << "LibTorch lists it under both names";
  const auto parameters = lawn::unique_parameters(model);
  ASSERT_EQ(parameters.size(), 2U);
  EXPECT_TRUE(parameters[0].is_same(model.encoder));
  EXPECT_TRUE(parameters[1].is_same(model.bias));
}

TEST(UniqueParameters, MakeAnOptimizerOfATiedNetwork) {
  Tied model;
  const auto sub = lawn::final_homogeneous_subnetwork(model.forward(torch::randn({4, 3})), model);
  lawn::LAWN optimizer(lawn::FusedAdam(lawn::unique_parameters(model), 1e-2), sub);
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    model.forward(torch::randn({4, 3})).square().mean().backward();
    optimizer.step();
  }
  EXPECT_EQ(optimizer.steps(), 3);
  EXPECT_LE(optimizer.report().layers.front().norm_error.value(), 1e-6);
}

}  // namespace
