// SPDX-License-Identifier: Apache-2.0

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/support/networks.h"
#include "tests/support/scripts.h"

namespace {

using namespace lawn::testing;
using Names = std::vector<std::string>;

Names names(const std::vector<lawn::detail::NamedTensor>& tensors) {
  Names names;
  for (const auto& item : tensors) names.push_back(item.name);
  return names;
}

/// A network with buffers, and with a weight under two names.
std::shared_ptr<Parts> tied_batch_norm() {
  auto net = parts();
  auto body = net->add("body", dense(4, 4));
  net->add("norm", torch::nn::BatchNorm1d(4));
  net->register_parameter("again", body->weight);
  return net;
}

TEST(ModuleView, ListsParametersAndBuffersUnderEveryName) {
  const auto net = tied_batch_norm();
  const lawn::ModuleView view(*net);
  EXPECT_EQ(names(view.parameters()), (Names{"again", "body.weight", "norm.weight", "norm.bias"}));
  EXPECT_EQ(names(lawn::detail::each_once(view.parameters())),
            (Names{"again", "norm.weight", "norm.bias"}));
  EXPECT_EQ(names(view.buffers()),
            (Names{"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}));
  EXPECT_EQ(view.nn(), net.get());
  EXPECT_EQ(view.script(), nullptr);
}

TEST(ModuleView, ListsThoseOfTorchScriptUnderTheirNamesThere) {
  const auto net = tied_batch_norm();
  const auto module = script(*net, "  return x\n");
  const lawn::ModuleView view(module);
  EXPECT_EQ(names(view.parameters()), names(lawn::ModuleView(*net).parameters()));
  EXPECT_EQ(names(view.buffers()), names(lawn::ModuleView(*net).buffers()));
  EXPECT_EQ(view.nn(), nullptr);
  EXPECT_EQ(view.script(), &module);
  for (const auto& [name, tensor] : view.parameters()) EXPECT_TRUE(tensor.requires_grad()) << name;
}

}  // namespace
