// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/tensor.h>

#include <lawn/subnetwork/operators.h>

namespace lawn::detail::subnetwork {

constexpr size_t kNowhere = static_cast<size_t>(-1);

/// One autograd node, or one leaf, with its place in the operator table.
struct GraphNode {
  std::string name;  ///< without namespace, for example "AddmmBackward0"
  const torch::autograd::Node* node = nullptr;
  Operator op;
  bool writes_view = false;     ///< an operator that wrote into a view of its first input
  at::Tensor leaf;              ///< the leaf tensor, if it is one
  std::vector<size_t> targets;  ///< where each edge leads: an index into the graph, or kNowhere

  bool is_leaf() const { return leaf.defined(); }

  /// Number of edges of the node, or of its operator if that has more: a scalar overload has fewer.
  size_t slots() const { return std::max(targets.size(), is_leaf() ? 0 : op.edges.size()); }
  size_t target(size_t slot) const { return slot < targets.size() ? targets[slot] : kNowhere; }
};

inline Operator look_up(const std::string& name, const OperatorTable& table) {
  if (const Operator* op = table.find(name)) return *op;
  return Operator::boundary(
      "not in the operator table; if it is homogeneous, pass "
      "OperatorTable().classify(\"" +
      std::string(operator_name(name)) + "\", Operator::homogeneous())");
}

inline GraphNode describe(const torch::autograd::Node& node, const OperatorTable& table) {
  using torch::autograd::AccumulateGrad;
  using torch::autograd::CopySlices;
  GraphNode result;
  result.node = &node;
  if (const auto* leaf = dynamic_cast<const AccumulateGrad*>(&node)) {
    result.leaf = leaf->variable;
    return result;
  }
  // Writing in place into a view hides the operator that wrote; backward() drops it.
  const auto* slices = dynamic_cast<const CopySlices*>(&node);
  result.writes_view = slices != nullptr && slices->fn != nullptr;
  result.name = without_namespace(result.writes_view ? slices->fn->name() : node.name());
  result.op = look_up(result.name, table);
  return result;
}

/// Reads the graph behind `root`: every node from which it was computed. The root comes first, and
/// each node after all nodes that use it. The time is linear in the number of edges; there is no
/// recursion, which deep networks would exhaust.
inline std::vector<GraphNode> read_graph(const torch::autograd::Node& root,
                                         const OperatorTable& table) {
  using torch::autograd::Node;
  std::unordered_map<const Node*, size_t> users{{&root, 0}};
  std::vector<const Node*> stack{&root};
  while (!stack.empty()) {
    const Node* const node = stack.back();
    stack.pop_back();
    for (const torch::autograd::Edge& edge : node->next_edges()) {
      if (edge.function == nullptr) continue;
      if (users[edge.function.get()]++ == 0) stack.push_back(edge.function.get());
    }
  }

  std::vector<const Node*> order{&root};
  order.reserve(users.size());
  std::unordered_map<const Node*, size_t> position{{&root, 0}};
  for (size_t i = 0; i < order.size(); ++i) {
    for (const torch::autograd::Edge& edge : order[i]->next_edges()) {
      if (edge.function == nullptr || --users[edge.function.get()] != 0) continue;
      position.emplace(edge.function.get(), order.size());
      order.push_back(edge.function.get());
    }
  }

  std::vector<GraphNode> graph;
  graph.reserve(order.size());
  for (const Node* const node : order) {
    graph.push_back(describe(*node, table));
    for (const torch::autograd::Edge& edge : node->next_edges()) {
      graph.back().targets.push_back(edge.function ? position.at(edge.function.get()) : kNowhere);
    }
  }
  return graph;
}

}  // namespace lawn::detail::subnetwork
