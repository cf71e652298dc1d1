// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lawn/subnetwork/graph.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn::detail::subnetwork {

/// How the parameter (or a mere rearrangement of it) at a node is used by the first operator that
/// computes with it.
struct Use {
  size_t node = kNowhere;  ///< the operator
  size_t slot = 0;         ///< which of its edges
  Edge edge = Edge::kStop;
  int swaps = 0;          ///< transposing nodes in between
  bool permuted = false;  ///< one of them permutes in a way that the graph does not show
  bool reshaped = false;  ///< one of them may join dimensions

  bool additive() const { return edge == Edge::kTerm || edge == Edge::kBias; }
  /// Rank of the use: a multiplicative one says more about a parameter than an additive one, and an
  /// additive one more than one at a boundary.
  int weight() const { return node == kNowhere ? 0 : edge == Edge::kStop ? 1 : additive() ? 2 : 3; }
};

/// Properties of the paths from a node to the logits.
struct Paths {
  bool reached = false;      ///< there is a path, except into what is overwritten as a whole
  bool inside = true;        ///< all paths stay inside
  bool touched = false;      ///< at least one path stays inside
  size_t cause = kNowhere;   ///< why a path leaves: an index into `PathAnalysis::causes`
  bool pure = false;         ///< computed from parameters alone, no data and no constants
  bool elementwise = false;  ///< of parameters and constants, which may be data, element by element
  bool normalised = false;   ///< rearranges a quotient whose divisor depends on weights
  Use use;
};

struct PathAnalysis {
  std::vector<Paths> paths;         ///< one per node of the graph
  std::vector<std::string> causes;  ///< "SigmoidBackward0: an activation that ..."
  std::vector<Boundary> boundaries;
};

/// Whether a layout operator may join dimensions.
inline bool reshapes(std::string_view name) {
  return name == "View" || name == "UnsafeView" || name == "Reshape" || name == "ReshapeAlias" ||
         name == "ReshapeCopy" || name == "Squeeze" || name == "AsStrided";
}

/// Whether a node computes its output element by element from its inputs, if these are parameters
/// and constants: w + sigma noise, w mask, w with some rows filled.
inline bool is_elementwise(const GraphNode& node) {
  const auto name = operator_name(node.name);
  const auto all_edges = [&](auto... kinds) {
    return std::all_of(node.op.edges.begin(), node.op.edges.end(),
                       [&](Edge edge) { return ((edge == kinds) || ...); });
  };
  return node.op.layout || name == "Mul" || name == "Div" || name == "Neg" ||
         node.name == "MaskedFillBackward0" || all_edges(Edge::kTerm, Edge::kBias, Edge::kJoin);
}

/// Whether a use is that of a weight for certain, whatever else stands at the same operator: data
/// come in from the left.
inline bool takes_weights(const std::vector<GraphNode>& graph, const Use& use) {
  if (use.node == kNowhere) return false;
  const bool of_layer = use.slot == 1 && graph[use.node].op.edges.back() == Edge::kBias;
  return use.edge == Edge::kRight || use.edge == Edge::kLookup ||
         (use.edge == Edge::kFactor && of_layer);
}

/// Whether an operator, as far as roles are concerned, only rearranges or rescales its input:
/// layout operators do, and so do scaling, adding and joining within an expression of parameters
/// alone (w + b a), and whatever works element by element on parameters and constants where a layer
/// takes its weight (w + sigma noise).
inline bool is_transparent(const std::vector<GraphNode>& graph, size_t index, const Paths& paths) {
  const GraphNode& node = graph[index];
  if (node.is_leaf()) return false;
  const auto all = [&](Edge kind) {
    return node.op.edges.front() == kind && node.op.edges.back() == kind;
  };
  const bool scales = node.targets.size() == 1 && node.op.edge(0) == Edge::kFactor;
  return node.op.layout || (paths.pure && (scales || all(Edge::kTerm) || all(Edge::kJoin))) ||
         (paths.elementwise && takes_weights(graph, paths.use));
}

/// Whether an operator is a normalisation as a whole.
inline bool is_normalisation(std::string_view name) {
  return name.find("Norm") != std::string_view::npos && name != "Norm" &&
         name != "LinalgVectorNorm" && name != "WeightNormInterface" && name != "Renorm";
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
      paths[i].pure = paths[i].elementwise = in_module[i];
      continue;
    }
    bool pure = true;
    bool elementwise = is_elementwise(node);
    bool divided = false;
    for (size_t slot = 0; slot < node.slots(); ++slot) {
      const size_t target = node.target(slot);
      const Edge edge = node.op.edge(slot);
      // A product that takes fewer inputs than it might is the product with a number.
      const bool number = target == kNowhere && edge != Edge::kTerm && slot >= node.targets.size();
      pure =
          pure && edge != Edge::kLookup && (number || (target != kNowhere && paths[target].pure));
      elementwise = elementwise && (target == kNowhere || paths[target].elementwise);
      divided = divided || (target != kNowhere && is_divisor(graph[target]));
    }
    const auto name = operator_name(node.name);
    paths[i].pure = pure;
    paths[i].elementwise = elementwise;
    paths[i].normalised =
        is_normalisation(name) || (name == "Mul" && divided) ||
        (name == "Div" && node.target(1) != kNowhere) ||
        (node.op.layout && node.target(0) != kNowhere && paths[node.target(0)].normalised);
  }
}

/// Whether a factor is the scale g of a normalisation, x / norm(x) * g, be that fused or written
/// out. Fused with its scale, it is a boundary for both: which it is depends on the device, and must
/// not matter.
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
  paths[0].reached = paths[0].touched = true;
  for (size_t i = 0; i < graph.size(); ++i) {
    if (!paths[i].reached) continue;
    const GraphNode& node = graph[i];
    const bool transparent = is_transparent(graph, i, paths[i]);
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
      if (edge == Edge::kUnused && !node.writes_view) continue;
      target.reached = true;
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
      Use use = transparent && paths[i].use.node != kNowhere ? paths[i].use : Use{i, slot, edge};
      if (transparent) {
        const auto name = operator_name(node.name);
        use.permuted = use.permuted || name == "Permute";
        use.swaps += name == "T" || name == "Transpose" || name == "Permute" ? 1 : 0;
        use.reshaped = use.reshaped || reshapes(name);
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
