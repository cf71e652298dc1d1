// SPDX-License-Identifier: Apache-2.0

#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <lawn/lawn.h>
#include <lawn/subnetwork/select_by_name.h>
#include <lawn/subnetwork/torchscript.h>

#include "tests/support/networks.h"
#include "tests/support/refusal.h"
#include "tests/support/scripts.h"
#include "tests/support/tolerance.h"

namespace {

namespace nn = torch::nn;
using lawn::final_homogeneous_subnetwork;
using torch::Tensor;
using namespace lawn::testing;

using Names = std::vector<std::string>;

/// A network of torch::nn, and what its forward is in TorchScript.
struct Row {
  std::string name;
  Network (*make)();
  std::vector<int64_t> inputs;
  std::string body;
  bool tokens = false;  ///< whether the inputs are indices
};

std::ostream& operator<<(std::ostream& stream, const Row& row) { return stream << row.name; }

Network decoder() {
  auto net = parts();
  auto table = net->add("table", nn::Embedding(9, 12));
  auto up = net->add("up", nn::ConvTranspose2d(nn::ConvTranspose2dOptions(3, 6, 2).stride(2)));
  auto head = net->add("head", dense(6, 4));
  return {net, [=, x = torch::randint(9, {5})]() mutable {
            return head(torch::relu(up(table(x).view({-1, 3, 2, 2}))).mean({2, 3}));
          }};
}

Network lstm() {
  auto net = parts();
  auto cell = net->add("cell", nn::LSTM(6, 8));
  auto head = net->add("head", dense(8, 4));
  return {net,
          [=, x = torch::randn({3, 2, 6})]() mutable { return head(std::get<0>(cell(x))[-1]); }};
}

Network attention() {
  auto net = parts();
  auto heads = net->add("heads", nn::MultiheadAttention(nn::MultiheadAttentionOptions(8, 1)));
  auto head = net->add("head", dense(8, 4));
  return {net,
          [=, x = torch::randn({3, 2, 8})]() mutable { return head(std::get<0>(heads(x, x, x))); }};
}

const Row kRows[] = {
    {"Mlp",
     [] { return mlp(true); },
     {5, 6},
     "  h = torch.relu(torch.linear(x, self.hidden1.weight, self.hidden1.bias))\n"
     "  h = torch.relu(torch.linear(h, self.hidden2.weight, self.hidden2.bias))\n"
     "  return torch.linear(h, self.head.weight, self.head.bias)\n"},
    {"ResNetWithBatchNorm",
     resnet,
     {2, 3, 8, 8},
     "  h = torch.conv2d(x, self.stem.weight, None, [1, 1], [1, 1])\n"
     "  h = torch.relu(torch.batch_norm(h, self.norm0.weight, self.norm0.bias,\n"
     "      self.norm0.running_mean, self.norm0.running_var, False, 0.1, 1e-5, True))\n"
     "  y = torch.conv2d(h, self.conv1.weight, None, [1, 1], [1, 1])\n"
     "  y = torch.relu(torch.batch_norm(y, self.norm1.weight, self.norm1.bias,\n"
     "      self.norm1.running_mean, self.norm1.running_var, False, 0.1, 1e-5, True))\n"
     "  y = torch.conv2d(y, self.conv2.weight, None, [1, 1], [1, 1])\n"
     "  y = torch.batch_norm(y, self.norm2.weight, self.norm2.bias,\n"
     "      self.norm2.running_mean, self.norm2.running_var, False, 0.1, 1e-5, True)\n"
     "  h = torch.adaptive_avg_pool2d(torch.relu(h + y), [1, 1]).flatten(1)\n"
     "  return torch.linear(h, self.head.weight, self.head.bias)\n"},
    {"ResidualWithoutNormalisation",
     residual,
     {2, 3, 8, 8},
     "  h = torch.relu(torch.conv2d(x, self.stem.weight, None, [1, 1], [1, 1]))\n"
     "  y = torch.relu(torch.conv2d(h, self.conv1.weight, None, [1, 1], [1, 1]))\n"
     "  h = torch.relu(h + torch.conv2d(y, self.conv2.weight, None, [1, 1], [1, 1]))\n"
     "  return torch.linear(torch.mean(h, [2, 3]), self.head.weight)\n"},
    {"EmbeddingAndTransposedConvolution",
     decoder,
     {5},
     "  h = torch.embedding(self.table.weight, x).view([-1, 3, 2, 2])\n"
     "  h = torch.relu(torch.conv_transpose2d(h, self.up.weight, self.up.bias, [2, 2]))\n"
     "  return torch.linear(torch.mean(h, [2, 3]), self.head.weight)\n",
     true},
    {"Lstm",
     lstm,
     {3, 2, 6},
     "  h = torch.zeros([1, x.size(1), 8])\n"
     "  h, _h, _c = torch.lstm(x, [h, h], [self.cell.weight_ih_l0, self.cell.weight_hh_l0,\n"
     "      self.cell.bias_ih_l0, self.cell.bias_hh_l0], True, 1, 0.0, False, False, False)\n"
     "  return torch.linear(h[-1], self.head.weight)\n"},
    {"MultiheadAttention",
     attention,
     {3, 2, 8},
     "  q, k, v = torch.chunk(torch.linear(x, self.heads.in_proj_weight,\n"
     "      self.heads.in_proj_bias), 3, -1)\n"
     "  q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)\n"
     "  a = torch.softmax(torch.bmm(q, k.transpose(1, 2)) * 8 ** -0.5, -1)\n"
     "  h = torch.bmm(a, v).transpose(0, 1)\n"
     "  h = torch.linear(h, self.heads.out_proj.weight, self.heads.out_proj.bias)\n"
     "  return torch.linear(h, self.head.weight)\n"},
};

class TorchScript : public ::testing::TestWithParam<Row> {
 protected:
  void SetUp() override {
    torch::manual_seed(0);
    network_ = GetParam().make();
    script_ = script(*network_.module, GetParam().body);
    x_ = GetParam().tokens ? torch::randint(9, GetParam().inputs) : torch::randn(GetParam().inputs);
  }

  Tensor forward() { return script_.forward({x_}).toTensor(); }

  /// Expects what the walk finds for the module of torch::nn.
  void expect_as_nn(const lawn::Subnetwork& subnetwork) const {
    const auto expected = final_homogeneous_subnetwork(network_.logits(), *network_.module);
    ASSERT_EQ(subnetwork.all().size(), expected.all().size());
    for (size_t i = 0; i < expected.all().size(); ++i) {
      const auto& got = subnetwork.all()[i];
      const auto& as = expected.all()[i];
      EXPECT_EQ(got.name, as.name);
      EXPECT_EQ(got.role, as.role) << as.name;
      EXPECT_EQ(got.inside, as.inside) << as.name;
      EXPECT_EQ(got.added, as.added) << as.name;
      EXPECT_EQ(got.unit_dim, as.unit_dim) << as.name;
      EXPECT_EQ(got.reason, as.reason) << as.name;
    }
    EXPECT_EQ(subnetwork.homogeneity(), expected.homogeneity());
    EXPECT_EQ(subnetwork.degree(), expected.degree());
  }

  Network network_;
  torch::jit::Module script_;
  Tensor x_;
};

TEST_P(TorchScript, GivesTheSubnetworkOfItsTwinFromItsFirstLogits) {
  expect_as_nn(final_homogeneous_subnetwork(forward(), script_));
}

TEST_P(TorchScript, GivesTheSubnetworkOfItsTwinAtAnyForward) {
  for (int i = 0; i < 4; ++i) {
    expect_as_nn(final_homogeneous_subnetwork(script_, {x_}));
    forward();
  }
}

TEST_P(TorchScript, ScalesAsItsTwinDoes) {
  const auto subnetwork = final_homogeneous_subnetwork(script_, {x_});
  const auto expected = lawn::check_homogeneity(
      network_.logits, final_homogeneous_subnetwork(network_.logits(), *network_.module));
  for (int i = 0; i < 3; ++i) {
    const auto check = lawn::check_homogeneity([this] { return forward(); }, subnetwork);
    EXPECT_EQ(check.exact, expected.exact) << check;
    forward();  // with a graph, which is what the executor optimizes
  }
}

TEST_P(TorchScript, IsSelectedByHandAsItsTwin) {
  const auto names = lawn::select_all_weights(*network_.module).names();
  EXPECT_EQ(lawn::select_all_weights(script_).names(), names);
  EXPECT_EQ(lawn::select_by_name(script_, "head\\..*").names(),
            lawn::select_by_name(*network_.module, "head\\..*").names());
  const auto head = script_.attr("head").toModule().attr("weight").toTensor();
  EXPECT_EQ(lawn::select(script_, {head}).names(), (Names{"head.weight"}));
  EXPECT_TRUE(lawn::select(script_, {head}).parameters()[0].is_same(head));
  const auto roles = lawn::select_all_weights(*network_.module);
  const auto script_roles = lawn::select_all_weights(script_);
  for (size_t i = 0; i < roles.all().size(); ++i) {
    EXPECT_EQ(script_roles.all()[i].role, roles.all()[i].role) << roles.all()[i].name;
    EXPECT_EQ(script_roles.all()[i].unit_dim, roles.all()[i].unit_dim) << roles.all()[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, TorchScript, ::testing::ValuesIn(kRows),
                         [](const auto& row) { return row.param.name; });

class LoadedScript : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }

  /// One that hides its operators, as every module that has trained does.
  torch::jit::Module optimized() {
    auto module = script(*mlp_.module, kRows[0].body);
    for (int i = 0; i < 3; ++i) module.forward({x_});
    return module;
  }

  Network mlp_ = mlp(true);
  Tensor x_ = torch::randn({5, 6});
};

TEST_F(LoadedScript, HidesItsOperatorsAndSaysWhatToDo) {
  auto module = optimized();
  const auto message =
      refusal([&] { final_homogeneous_subnetwork(module.forward({x_}).toTensor(), module); });
  EXPECT_NE(message.find("ended at DifferentiableGraphBackward (TorchScript's executor hides "
                         "operators here, as it does from the second forward on: call "
                         "final_homogeneous_subnetwork(module, {inputs}) of "
                         "lawn/subnetwork/torchscript.h, or compute"),
            std::string::npos)
      << message;
  EXPECT_EQ(message.find("classify"), std::string::npos) << message;
}

TEST_F(LoadedScript, CanBeWalkedThroughACloneAsTheMessageSays) {
  const auto module = optimized();
  const torch::jit::GraphOptimizerEnabledGuard unoptimized(false);
  const auto logits = module.clone(/*inplace=*/true).forward({x_}).toTensor();
  EXPECT_EQ(final_homogeneous_subnetwork(logits, module).names(),
            (Names{"hidden1.weight", "hidden2.weight", "head.weight"}));
}

TEST_F(LoadedScript, IsABoundaryWithinAnotherNetwork) {
  auto body = optimized();
  auto net = parts();
  auto head = net->add("head", dense(4, 3));
  const auto subnetwork = final_homogeneous_subnetwork(head(body.forward({x_}).toTensor()), *net);
  EXPECT_EQ(subnetwork.names(), (Names{"head.weight"}));
  ASSERT_EQ(subnetwork.boundaries().size(), 1U);
  EXPECT_EQ(subnetwork.boundaries()[0].node, "DifferentiableGraphBackward");
  std::ostringstream text;
  text << subnetwork;
  EXPECT_NE(text.str().find("(not in the module)  6 tensors"), std::string::npos) << text.str();
}

TEST_F(LoadedScript, IsLeftOptimizedByTheWalk) {
  auto module = optimized();
  final_homogeneous_subnetwork(module, {x_});
  EXPECT_TRUE(torch::jit::getGraphExecutorOptimize());
  EXPECT_NE(module.forward({x_}).toTensor().grad_fn()->name().find("DifferentiableGraph"),
            std::string::npos);
  EXPECT_THROW(final_homogeneous_subnetwork(module, {torch::randn({5, 7})}), std::exception);
  EXPECT_TRUE(torch::jit::getGraphExecutorOptimize());
}

TEST_F(LoadedScript, IsRefusedWithoutParametersOrLogits) {
  auto module = script(*mlp_.module, kRows[0].body);
  module.register_attribute("training", c10::BoolType::get(), false);
  expect_refusal([&] { final_homogeneous_subnetwork(torch::jit::freeze(module), {x_}); },
                 "lawn::final_homogeneous_subnetwork: expected a TorchScript module with "
                 "parameters, got one without any; load one that was not frozen");
  expect_refusal(
      [&] {
        final_homogeneous_subnetwork(script(*mlp_.module, "  return x, self.head.weight\n"), {x_});
      },
      "expected a TorchScript module whose forward returns the logits, got Tuple; compute the "
      "logits of module.clone(/*inplace=*/true) under");
}

TEST_F(LoadedScript, LeavesItsRunningStatisticsAsOneForwardDoes) {
  auto net = parts();
  auto norm = net->add("norm", nn::BatchNorm1d(6));
  net->add("head", dense(6, 4));
  const auto module =
      script(*net,
             "  h = torch.batch_norm(x, self.norm.weight, self.norm.bias, self.norm.running_mean,\n"
             "      self.norm.running_var, True, 0.1, 1e-5, True)\n"
             "  return torch.linear(h, self.head.weight)\n");
  norm(x_);
  EXPECT_EQ(final_homogeneous_subnetwork(module, {x_}).names(), (Names{"head.weight"}));
  const auto mean = module.attr("norm").toModule().attr("running_mean").toTensor();
  EXPECT_TRUE(torch::equal(mean, norm->running_mean));
}

/// Trains for `steps` steps, and returns the parameters.
template <class Forward>
std::vector<Tensor> train(const lawn::ModuleView& module, const lawn::Subnetwork& subnetwork,
                          const Forward& forward, int steps) {
  lawn::LAWN optimizer(lawn::FusedAdam(lawn::unique_parameters(module), 1e-2), subnetwork,
                       lawn::LAWNOptions().free_steps(steps / 3));
  const auto x = torch::randn({16, 6}, at::make_generator<at::CPUGeneratorImpl>(1));
  const auto y = torch::arange(16) % 4;
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    torch::nn::functional::cross_entropy(forward(x), y).backward();
    optimizer.step();
  }
  for (const auto& layer : optimizer.report().layers) {
    EXPECT_LE(layer.norm_error.value(), tolerance(torch::kFloat).norm) << layer.name;
  }
  return lawn::unique_parameters(module);
}

TEST_F(LoadedScript, TrainsAsItsTwinDoesAndHoldsItsNorms) {
  auto module = script(*mlp_.module, kRows[0].body);
  auto& twin = dynamic_cast<Parts&>(*mlp_.module);
  const auto layer = [&twin](const char* name, const Tensor& x) {
    const auto parameters = twin.named_parameters();
    return torch::linear(x, parameters[name + std::string(".weight")],
                         parameters[name + std::string(".bias")]);
  };
  const auto got = train(
      module, final_homogeneous_subnetwork(module, {x_}),
      [&](const Tensor& x) { return module.forward({x}).toTensor(); }, 30);
  const auto expected = train(
      twin, final_homogeneous_subnetwork(mlp_.logits(), twin),
      [&](const Tensor& x) {
        return layer("head", torch::relu(layer("hidden2", torch::relu(layer("hidden1", x)))));
      },
      30);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_LE((got[i] - expected[i]).abs().max().item<double>(),
              tolerance(torch::kFloat).trajectory)
        << i;
  }
}

TEST_F(LoadedScript, KeepsTiedWeightsTied) {
  auto net = parts();
  auto table = net->weight("table", {6, 6});
  net->register_parameter("same", table);
  auto made = script_parts(*net);
  made.setattr("same", made.attr("table"));
  made.define(
      "def forward(self, x):\n  return torch.linear(torch.linear(x, self.table), self.same)\n");
  const auto module = reloaded(made);
  EXPECT_EQ(module.parameters().size(), 2U);
  EXPECT_EQ(lawn::unique_parameters(module).size(), 1U);
  const auto subnetwork = final_homogeneous_subnetwork(module, {x_});
  EXPECT_EQ(subnetwork.names(), (Names{"table"}));
  EXPECT_EQ(subnetwork.degree(), 2);
}

}  // namespace
