// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <string>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/subnetwork/operators.h>

#include "tests/support/refusal.h"

namespace {

using lawn::Edge;
using lawn::Operator;
using lawn::OperatorTable;
using lawn::testing::expect_refusal;

TEST(OperatorTable, FindsANodeWhateverItsOverloadOrNamespace) {
  const OperatorTable table;
  for (const auto* name :
       {"ReluBackward0", "torch::autograd::ReluBackward0", "Relu", "ViewBackward0_copy",
        "ViewBackwardAutogradNestedTensor0", "torch::autograd::CopyBackwards"}) {
    EXPECT_NE(table.find(name), nullptr) << name;
  }
  for (const auto* name : {"FooBackward0", "ReluBackwardBackward0", "CppNode<ReluBackward0>", ""}) {
    EXPECT_EQ(table.find(name), nullptr) << name;
  }
}

TEST(OperatorTable, PrefersTheOverloadToTheOperator) {
  const OperatorTable table;
  EXPECT_EQ(table.find("DivBackward0")->edge(0), Edge::kFactor);
  EXPECT_EQ(table.find("DivBackward2")->edge(0), Edge::kStop);  // with a rounding mode
  EXPECT_EQ(table.find("MaskedFillBackward0")->edge(0), Edge::kFactor);
  EXPECT_EQ(table.find("MaskedFillBackward1")->edge(1), Edge::kJoin);
}

TEST(OperatorTable, ClassifiesEachEdge) {
  const OperatorTable table;
  const auto& addmm = *table.find("AddmmBackward0");
  EXPECT_EQ(addmm.edge(0), Edge::kTerm);
  EXPECT_EQ(addmm.edge(1), Edge::kLeft);
  EXPECT_EQ(addmm.edge(2), Edge::kRight);
  const auto& attention = *table.find("ScaledDotProductFlashAttentionForCpuBackward0");
  EXPECT_EQ(attention.edge(0), Edge::kStop);
  EXPECT_EQ(attention.edge(1), Edge::kStop);
  EXPECT_EQ(attention.edge(2), Edge::kFactor);
  EXPECT_EQ(attention.edge(3), Edge::kStop);
  const auto& cat = *table.find("CatBackward0");
  EXPECT_EQ(cat.edge(99), Edge::kJoin);
}

TEST(OperatorTable, GivesAReasonExactlyWhereItStops) {
  for (const auto& [name, op] : lawn::detail::subnetwork::builtin_operators()) {
    const bool stops = std::count(op.edges.begin(), op.edges.end(), Edge::kStop) != 0;
    EXPECT_EQ(stops, !op.reason.empty()) << name;
    EXPECT_FALSE(op.edges.empty()) << name;
  }
}

TEST(OperatorTable, PrefersWhatTheUserSays) {
  OperatorTable table;
  table.classify("Relu", Operator::boundary("too steep"))
      .classify("torch::autograd::CppNode<Scale>", Operator::homogeneous())
      .classify("GeluBackward0", Operator::homogeneous())
      .classify("Lookup", Operator::with_edges({Edge::kLookup, Edge::kStop}, "indices"));
  EXPECT_EQ(table.find("ReluBackward0")->reason, "too steep");
  EXPECT_EQ(table.find("torch::autograd::CppNode<Scale>")->edge(0), Edge::kFactor);
  EXPECT_EQ(table.find("CppNode<Scale>")->edge(0), Edge::kFactor);
  EXPECT_EQ(table.find("GeluBackward0")->edge(0), Edge::kFactor);
  EXPECT_EQ(table.find("GeluBackward1")->edge(0), Edge::kStop);
  EXPECT_EQ(table.find("LookupBackward0")->edge(1), Edge::kStop);
  table.classify("Relu", Operator::homogeneous());
  EXPECT_EQ(table.find("ReluBackward0")->edge(0), Edge::kFactor);
  EXPECT_EQ(OperatorTable().find("GeluBackward0")->edge(0), Edge::kStop);
}

TEST(OperatorTable, RefusesWhatIsEmpty) {
  expect_refusal([] { OperatorTable().classify("", Operator::homogeneous()); },
                 "lawn::OperatorTable: expected the name of an autograd node, got an empty one");
  expect_refusal([] { OperatorTable().classify("Foo", Operator{}); },
                 "lawn::OperatorTable: expected at least one edge for 'Foo', got none");
  expect_refusal([] { Operator::with_edges({}); },
                 "lawn::Operator: expected at least one edge, got an empty list");
}

}  // namespace
