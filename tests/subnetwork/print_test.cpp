// SPDX-License-Identifier: Apache-2.0

#include <iomanip>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/subnetwork/graph_walk.h>
#include <lawn/subnetwork/selection.h>

#include "tests/support/networks.h"

namespace {

namespace nn = torch::nn;
using namespace lawn::testing;

std::string print(const lawn::Subnetwork& subnetwork) {
  std::ostringstream text;
  text << subnetwork;
  return text.str();
}

TEST(SubnetworkTable, ShowsEachParameterWithItsReasonAndWhereTheWalkEnded) {
  nn::Sequential net(nn::Linear(4, 2), nn::Tanh(), nn::Linear(2, 3));
  const torch::NoGradGuard no_grad;
  for (auto& parameter : net->parameters()) parameter.fill_(0.5);
  const auto subnetwork = [&] {
    const torch::AutoGradMode grad(true);
    return lawn::final_homogeneous_subnetwork(net->forward(torch::ones({5, 4})), *net);
  }();
  EXPECT_EQ(print(subnetwork),
            "name      shape       norm  role    node            constrained\n"
            "0.weight  [2, 4]   1.41421  weight  AddmmBackward0  outside: behind TanhBackward0: an "
            "activation that is not positively homogeneous\n"
            "0.bias    [2]     0.707107  bias    AddmmBackward0  outside: behind TanhBackward0: an "
            "activation that is not positively homogeneous\n"
            "2.weight  [3, 2]   1.22474  weight  AddmmBackward0  constrained\n"
            "2.bias    [3]     0.866025  bias    AddmmBackward0  bias: left free\n"
            "constrained: 1 of 4 parameters\n"
            "boundary: TanhBackward0 (an activation that is not positively homogeneous)\n"
            "homogeneity: up to biases, which are added and do not scale; degree 1\n");
}

TEST(SubnetworkTable, SaysWhatIsNotKnownOfASelectionByHand) {
  auto net = parts();
  net->weight("w", {2, 2}).data().fill_(1);
  net->register_parameter("codes", torch::zeros({3}, torch::kInt8), false);
  net->add("table", nn::Embedding(2, 1))->weight.data().fill_(0);
  EXPECT_EQ(print(lawn::select_all_weights(*net)),
            "name          shape   norm  role       node  constrained\n"
            "w             [2, 2]     2  weight     -     constrained\n"
            "codes         [3]        -  weight     -     outside: not selected\n"
            "table.weight  [2, 1]     0  embedding  -     constrained\n"
            "constrained: 2 of 3 parameters\n"
            "homogeneity: not known: selected by hand\n");
}

TEST(SubnetworkTable, GivesManyParametersOutsideForOneReasonOneLine) {
  nn::Sequential net(nn::Linear(4, 2), nn::Tanh(), nn::Linear(2, 2), nn::Tanh(), nn::Linear(2, 3));
  const auto text =
      print(lawn::final_homogeneous_subnetwork(net->forward(torch::ones({5, 4})), *net));
  EXPECT_NE(text.find("0.weight ... 2.bias  4 tensors"), std::string::npos) << text;
  EXPECT_EQ(text.find("2.weight"), std::string::npos) << text;
  EXPECT_NE(text.find("constrained: 1 of 6 parameters"), std::string::npos) << text;
}

TEST(SubnetworkTable, NamesTensorsThatAreNotInTheModuleOnce) {
  nn::Sequential body(nn::Linear(4, 2), nn::ReLU());
  nn::Linear head(2, 3);
  const auto text =
      print(lawn::final_homogeneous_subnetwork(head(body->forward(torch::ones({5, 4}))), *head));
  EXPECT_NE(text.find("(not in the module)  2 tensors"), std::string::npos) << text;
  EXPECT_EQ(text.find("(not in the module)"), text.rfind("(not in the module)")) << text;
}

TEST(SubnetworkTable, SaysHowTheNetworkScales) {
  const auto last_line = [](const Network& network) {
    auto text = print(lawn::final_homogeneous_subnetwork(network.logits(), *network.module));
    text.pop_back();
    return text.substr(text.rfind('\n') + 1);
  };
  EXPECT_EQ(last_line(mlp(false)), "homogeneity: strict; degree 3");
  EXPECT_EQ(last_line(residual()),
            "homogeneity: up to adds: branches of different degree are added or joined");
}

TEST(SubnetworkTable, DoesNotDependOnTheStateOfTheStream) {
  const auto w = torch::full({2, 2}, 0.3);
  std::ostringstream text;
  text << std::setprecision(2) << std::fixed << std::setw(40) << std::left << std::setfill('*');
  text << lawn::select({w});
  EXPECT_NE(text.str().find("parameter 0  [2, 2]   0.6  weight  -     constrained\n"),
            std::string::npos)
      << text.str();
}

TEST(SubnetworkTable, PrintsEveryFloatingPointTypeAndAnEmptyTensor) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    EXPECT_NE(print(lawn::select({torch::full({4}, 1.5, dtype)})).find("  3  weight"),
              std::string::npos);
  }
  EXPECT_NE(print(lawn::select({torch::zeros({0, 2})})).find("[0, 2]     0  weight"),
            std::string::npos);
  EXPECT_NE(print(lawn::select({torch::tensor(-2.0)})).find("[]        2  weight"),
            std::string::npos);
}

}  // namespace
