// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <c10/util/Exception.h>

#include <lawn/subnetwork/operator_list.h>

namespace lawn {

/// How the output of an operator depends on one of its inputs: one entry per edge of its autograd
/// node. The classification is per edge and not per node, because an operator may be homogeneous in
/// one input and not in another (attention is homogeneous in the values, not in the queries).
///
/// With d_i the degree of input i, the degree of the output is the sum of d_i over the factors; the
/// degree of every term, if there are any, must equal that sum.
enum class Edge {
  kFactor,  ///< homogeneous: an activation, or a weight whose output units are dimension 0
  kLeft,    ///< factor, left operand of a matrix product: a weight's output units are its rows
  kRight,   ///< factor, right operand of a matrix product: output units are its columns
  kLookup,  ///< factor, read by index: a weight there is an embedding
  kTerm,    ///< added to the other terms; an edge that leads nowhere is the addition of a constant
  kBias,    ///< a term that may be missing
  kJoin,    ///< joined or compared with the others (cat, maximum, where): degrees must match
  kUnused,  ///< does not reach the output (what `copy_` overwrites)
  kStop,    ///< not homogeneous: the walk ends here
};

/// What the walk needs to know about one kind of autograd node.
struct Operator {
  /// One entry per edge of the node; the last one stands for all further edges.
  std::vector<Edge> edges;
  /// Why the walk ends at edges of kind `kStop`; printed in the table.
  std::string reason;
  /// Whether the operator moves elements without computing (view, transpose, copy): the walk looks
  /// through it to find the role of a parameter.
  bool layout = false;

  /// An operator with f(a x) = a f(x) in every input taken alone; the degrees of several inputs add
  /// up.
  static Operator homogeneous() { return with_edges({Edge::kFactor}); }

  /// An operator that is not homogeneous in any input.
  /// @param reason  why it is not homogeneous; printed in the table
  static Operator boundary(std::string reason) {
    return with_edges({Edge::kStop}, std::move(reason));
  }

  /// An operator that differs from input to input.
  /// @param edges   one per edge of the node, in the order of the operator's tensor arguments
  /// @param reason  why the walk stops at edges of kind `kStop`
  /// @throws c10::Error if `edges` is empty
  static Operator with_edges(std::vector<Edge> edges, std::string reason = "") {
    TORCH_CHECK(!edges.empty(),
                "lawn::Operator: expected at least one edge, got an empty list; name the kind of "
                "each input");
    return Operator{std::move(edges), std::move(reason), false};
  }

  /// The kind of edge number `index`.
  Edge edge(size_t index) const { return index < edges.size() ? edges[index] : edges.back(); }
};

namespace detail::subnetwork {

/// The operator in whose place TorchScript's executor puts several of a module.
inline constexpr std::string_view kHiddenByTorchScript = "DifferentiableGraph";

/// The name of an autograd node without namespace: "ReluBackward0", "CppNode<MyFunction>",
/// "DifferentiableGraphBackward" for "torch::jit::(anonymous namespace)::...".
inline std::string_view without_namespace(std::string_view name) {
  constexpr std::string_view kPrefix = "torch::autograd::";
  if (name.substr(0, kPrefix.size()) == kPrefix) name.remove_prefix(kPrefix.size());
  const size_t hidden = name.find(kHiddenByTorchScript);
  if (hidden != std::string_view::npos && name.substr(0, 5) == "torch") name.remove_prefix(hidden);
  return name;
}

/// The name of the operator: "Relu" for "ReluBackward0" and for "ReluBackward0_copy".
inline std::string_view operator_name(std::string_view node) {
  if (node.substr(0, 8) == "CppNode<") return node;
  const size_t backward = node.rfind("Backward");
  return backward == std::string_view::npos ? node : node.substr(0, backward);
}

inline std::vector<Edge> parse_edges(std::string_view letters) {
  std::vector<Edge> edges;
  for (const char letter : letters) {
    switch (letter) {
      case 'f':
        edges.push_back(Edge::kFactor);
        break;
      case 'l':
        edges.push_back(Edge::kLeft);
        break;
      case 'r':
        edges.push_back(Edge::kRight);
        break;
      case 'e':
        edges.push_back(Edge::kLookup);
        break;
      case 't':
        edges.push_back(Edge::kTerm);
        break;
      case 'b':
        edges.push_back(Edge::kBias);
        break;
      case 'j':
        edges.push_back(Edge::kJoin);
        break;
      case 'u':
        edges.push_back(Edge::kUnused);
        break;
      default:
        TORCH_INTERNAL_ASSERT(letter == '.', "no kind of edge: ", letter);
        edges.push_back(Edge::kStop);
    }
  }
  return edges;
}

/// The operators that the library knows, by operator name or, where overloads differ, by node name.
inline const std::unordered_map<std::string_view, Operator>& builtin_operators() {
  static const auto* const operators = [] {
    auto* map = new std::unordered_map<std::string_view, Operator>;  // lives as long as the program
    for (const OperatorGroup& group : kOperatorGroups) {
      std::string_view names = group.names;
      while (!names.empty()) {
        const size_t end = std::min(names.find(' '), names.size());
        const bool added =
            map->emplace(names.substr(0, end), Operator{parse_edges(group.edges),
                                                        std::string(group.reason), group.layout})
                .second;
        TORCH_INTERNAL_ASSERT(added, "listed twice: ", names.substr(0, end));
        names.remove_prefix(std::min(end + 1, names.size()));
      }
    }
    return map;
  }();
  return *operators;
}

}  // namespace detail::subnetwork

/// The operator table of the walk: the operators that the library knows, and your own, which take
/// precedence.
///
///     auto table = lawn::OperatorTable().classify("CppNode<Scale>",
///                                                 lawn::Operator::homogeneous());
class OperatorTable {
 public:
  /// Adds an operator, or replaces the library's classification of it.
  /// @param name  name as the sub-network table or an error prints it: a node ("CppNode<Scale>",
  ///              "ClampMinBackward0"), or an operator for all its overloads ("ClampMin")
  /// @param op    its classification
  /// @return this table, so that calls chain
  /// @throws c10::Error if the name is empty or the operator has no edges
  OperatorTable& classify(const std::string& name, Operator op) {
    TORCH_CHECK(!name.empty(),
                "lawn::OperatorTable: expected the name of an autograd node, got an empty one; "
                "pass it as printed, for example \"ReluBackward0\"");
    TORCH_CHECK(!op.edges.empty(), "lawn::OperatorTable: expected at least one edge for '", name,
                "', got none; use Operator::homogeneous(), boundary() or with_edges()");
    own_.insert_or_assign(std::string(detail::subnetwork::without_namespace(name)), std::move(op));
    return *this;
  }

  /// Finds the classification of an autograd node; null if there is none.
  /// @param node  name of the node, with or without "torch::autograd::"
  /// @note  the pointer is valid until the table is destroyed or `classify` is called
  const Operator* find(std::string_view node) const {
    node = detail::subnetwork::without_namespace(node);
    for (const std::string_view name : {node, detail::subnetwork::operator_name(node)}) {
      const auto found = own_.find(std::string(name));
      if (found != own_.end()) return &found->second;
    }
    const auto& builtin = detail::subnetwork::builtin_operators();
    for (const std::string_view name : {node, detail::subnetwork::operator_name(node)}) {
      const auto found = builtin.find(name);
      if (found != builtin.end()) return &found->second;
    }
    return nullptr;
  }

 private:
  std::unordered_map<std::string, Operator> own_;
};

}  // namespace lawn
