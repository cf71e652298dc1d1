// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <lawn/subnetwork/graph.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn::detail::subnetwork {

/// How the parameter (or a mere rearrangement of it) at a node is used by the first operator that
/// computes with it.
struct Use {
  size_t node = kNowhere;  ///< the operator
  Edge edge = Edge::kStop;
  int swaps = 0;          ///< transposing nodes in between
  bool permuted = false;  ///< one of them permutes in a way that the graph does not show

  bool additive() const { return edge == Edge::kTerm || edge == Edge::kBias; }
  /// Rank of the use: a multiplicative one says more about a parameter than an additive one, and an
  /// additive one more than one at a boundary.
  int weight() const { return node == kNowhere ? 0 : edge == Edge::kStop ? 1 : additive() ? 2 : 3; }
};

/// Properties of the paths from a node to the logits.
struct Paths {
  bool inside = true;       ///< all paths stay inside
  bool touched = false;     ///< at least one path stays inside
  size_t cause = kNowhere;  ///< why a path leaves: an index into `PathAnalysis::causes`
  bool pure = false;        ///< computed from parameters alone, no data and no constants
  bool normalised = false;  ///< rearranges a quotient whose divisor depends on weights
  Use use;
};

struct PathAnalysis {
  std::vector<Paths> paths;         ///< one per node of the graph
  std::vector<std::string> causes;  ///< "SigmoidBackward0: an activation that ..."
  std::vector<Boundary> boundaries;
};

/// Whether an operator, as far as roles are concerned, only rearranges or rescales its input:
/// layout operators do, and so do scaling and adding within an expression of parameters alone (w +
/// b a).
inline bool is_transparent(const GraphNode& node, const Paths& paths) {
  if (node.is_leaf()) return false;
  const bool scales = node.targets.size() == 1 && node.op.edge(0) == Edge::kFactor;
  const bool adds = node.op.edges.front() == Edge::kTerm && node.op.edges.back() == Edge::kTerm;
  return node.op.layout || (paths.pure && (scales || adds));
}

inline bool is_divisor(const GraphNode& node) {
  const auto name = operator_name(node.name);
  return name == "Rsqrt" || name == "Reciprocal";
}

/// Marks, from the leaves up, the nodes that are computed from parameters alone, and those that
/// hold a normalised quantity.
inline void mark_contents(const std::vector<GraphNode>& graph, std::vector<Paths>& paths,
                          const std::vector<bool>& in_module) {
  for (size_t i = graph.size(); i-- > 0;) {
    const GraphNode& node = graph[i];
    if (node.is_leaf()) {
      paths[i].pure = in_module[i];
      continue;
    }
    bool pure = true;
    bool divided = false;
    for (size_t slot = 0; slot < node.slots(); ++slot) {
      const size_t target = node.target(slot);
      const Edge edge = node.op.edge(slot);
      // A product that takes fewer inputs than it might is the product with a number.
      const bool number = target == kNowhere && edge != Edge::kTerm && slot >= node.targets.size();
      pure =
          pure && edge != Edge::kLookup && (number || (target != kNowhere && paths[target].pure));
      divided = divided || (target != kNowhere && is_divisor(graph[target]));
    }
    const auto name = operator_name(node.name);
    paths[i].pure = pure;
    paths[i].normalised =
        (name == "Mul" && divided) || (name == "Div" && node.target(1) != kNowhere) ||
        (node.op.layout && node.target(0) != kNowhere && paths[node.target(0)].normalised);
  }
}

/// Whether a factor is the scale g of a normalisation that is written out, x / norm(x) * g. A fused
/// normalisation is a boundary together with its scale. Whether it is fused depends on the device
/// and must not matter.
inline bool is_scale_of_normalisation(const GraphNode& node, size_t slot,
                                      const std::vector<Paths>& paths) {
  if (operator_name(node.name) != "Mul" || node.targets.size() != 2) return false;
  const size_t scale = node.targets[slot];
  const size_t other = node.targets[1 - slot];
  return other != kNowhere && paths[scale].pure && paths[other].normalised;
}

/// Follows every path from the logits down. A node is inside when each operator that uses it is
/// inside and is homogeneous in it: that is the all-paths rule.
/// @param graph      as read by `read_graph`
/// @param in_module  for every leaf, whether it is a parameter of the module
inline PathAnalysis follow_paths(const std::vector<GraphNode>& graph,
                                 const std::vector<bool>& in_module) {
  PathAnalysis result;
  result.paths.resize(graph.size());
  std::vector<Paths>& paths = result.paths;
  mark_contents(graph, paths, in_module);
  paths[0].touched = true;
  for (size_t i = 0; i < graph.size(); ++i) {
    const GraphNode& node = graph[i];
    const bool transparent = is_transparent(node, paths[i]);
    size_t own_cause = kNowhere;  // of the edges that stop here
    size_t scale_cause = kNowhere;
    const auto cause = [&](size_t& index, const std::string& reason) {
      if (index != kNowhere) return index;
      result.causes.push_back(node.name + ": " + reason);
      return index = result.causes.size() - 1;
    };
    for (size_t slot = 0; slot < node.targets.size(); ++slot) {
      if (node.targets[slot] == kNowhere) continue;
      Paths& target = paths[node.targets[slot]];
      const Edge edge = node.op.edge(slot);
      const bool scale = is_scale_of_normalisation(node, slot, paths);
      const bool stop = edge == Edge::kStop;
      if (stop && paths[i].touched) cause(own_cause, node.op.reason);
      if (target.inside && (stop || scale || !paths[i].inside)) {
        target.inside = false;
        target.cause = !paths[i].inside ? paths[i].cause
                       : stop           ? own_cause
                                        : cause(scale_cause, "the scale of a normalisation");
      }
      target.touched = target.touched || (paths[i].touched && !stop && !scale);
      Use use =
          transparent && paths[i].use.node != kNowhere ? paths[i].use : Use{i, edge, 0, false};
      if (transparent) {
        const auto name = operator_name(node.name);
        use.permuted = use.permuted || name == "Permute";
        use.swaps += name == "T" || name == "Transpose" || name == "Permute" ? 1 : 0;
      }
      if (use.weight() > target.use.weight()) target.use = use;
    }
    const auto same = [&](const Boundary& boundary) {
      return boundary.node == node.name && boundary.reason == node.op.reason;
    };
    if (own_cause != kNowhere &&
        std::none_of(result.boundaries.begin(), result.boundaries.end(), same)) {
      result.boundaries.push_back({node.name, node.op.reason});
    }
  }
  return result;
}

}  // namespace lawn::detail::subnetwork
