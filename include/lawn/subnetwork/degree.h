// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <lawn/subnetwork/graph.h>
#include <lawn/subnetwork/paths.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn::detail::subnetwork {

/// The degree of homogeneity of one quantity in all constrained weights together.
struct Degree {
  std::optional<int64_t> value = 0;  ///< nothing if branches of different degree were joined
  bool bias = false;                 ///< made of biases alone

  /// Largest degree that is kept: larger ones are of no use, and their sums could overflow.
  static constexpr int64_t kMax = int64_t{1} << 40;

  void multiply_by(const Degree& factor) {
    if (value && factor.value && *value + *factor.value <= kMax) {
      *value += *factor.value;
    } else {
      value.reset();
    }
  }
};

struct DegreeAnalysis {
  Homogeneity homogeneity = Homogeneity::kStrict;
  std::optional<int64_t> degree;
};

/// Computes degrees from the leaves up. A node that is not inside or has no gradient does not
/// change with the constrained weights: its degree is zero.
/// @param leaves         for every leaf, its own degree, and whether it is a bias
/// @param frozen_biases  whether there are biases that the graph does not show
inline DegreeAnalysis find_degree(const std::vector<GraphNode>& graph,
                                  const std::vector<Paths>& paths,
                                  const std::vector<Degree>& leaves, bool frozen_biases) {
  std::vector<Degree> degrees(graph.size());
  bool biases = false;
  bool mixed = false;
  for (size_t i = graph.size(); i-- > 0;) {
    const GraphNode& node = graph[i];
    if (node.is_leaf()) degrees[i] = leaves[i];
    if (node.is_leaf() || !paths[i].inside) continue;
    Degree product;
    std::optional<Degree> sum;
    bool factors = false;
    bool bias_factor = false;
    bool other_factor = false;
    bool adds_bias = false;
    const auto add = [&](const Degree& term) {
      if (term.bias) {
        adds_bias = true;
      } else if (!sum) {
        sum = term;
      } else if (sum->value != term.value) {
        sum->value.reset();
        mixed = true;
      }
    };
    bool constant = false;
    for (size_t slot = 0; slot < node.slots(); ++slot) {
      const size_t target = node.target(slot);
      const Degree degree = target == kNowhere ? Degree{} : degrees[target];
      switch (node.op.edge(slot)) {
        case Edge::kTerm:
        case Edge::kJoin:
          if (target == kNowhere) {
            constant = true;
          } else {
            add(degree);
          }
          break;
        case Edge::kBias:
          if (target != kNowhere) add(degree);
          break;
        case Edge::kUnused:
        case Edge::kStop:
          break;
        default:
          factors = true;
          product.multiply_by(degree);
          bias_factor = bias_factor || degree.bias;
          other_factor = other_factor || (target != kNowhere && !degree.bias);
      }
    }
    if (factors) {
      product.bias = bias_factor && !other_factor;
      add(product);
    }
    // The constant of addmm is a frozen bias, if there are any; that of an addition may be a whole
    // branch.
    if (constant && factors && frozen_biases) {
      adds_bias = true;
    } else if (constant) {
      add(Degree{});
    }
    // What was written into a view stands beside what was there before.
    if (node.writes_view && node.target(0) != kNowhere) add(degrees[node.target(0)]);
    biases = biases || (adds_bias && sum && sum->value != 0);
    degrees[i] = sum ? *sum : Degree{0, adds_bias};
  }
  DegreeAnalysis result;
  result.degree = degrees[0].value;
  result.homogeneity = mixed                     ? Homogeneity::kUpToAdds
                       : biases || frozen_biases ? Homogeneity::kUpToBiases
                                                 : Homogeneity::kStrict;
  return result;
}

}  // namespace lawn::detail::subnetwork
