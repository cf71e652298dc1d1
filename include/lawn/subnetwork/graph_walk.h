// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include <lawn/module_view.h>
#include <lawn/subnetwork/degree.h>
#include <lawn/subnetwork/graph.h>
#include <lawn/subnetwork/module_parameters.h>
#include <lawn/subnetwork/operators.h>
#include <lawn/subnetwork/paths.h>
#include <lawn/subnetwork/print.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {
namespace detail::subnetwork {

/// Refuses what was computed from the logits: probabilities, their logarithms, losses.
inline void refuse_past_logits(const std::vector<GraphNode>& graph) {
  size_t root = 0;
  while (graph[root].op.layout && graph[root].target(0) != kNowhere) root = graph[root].targets[0];
  const GraphNode& node = graph[root];
  if (node.is_leaf() || node.op.edge(0) != Edge::kStop) return;
  const std::string_view name = operator_name(node.name);
  const char* got = nullptr;
  if (name == "LogSoftmax" || name == "LogSigmoid" || name == "SparseLogSoftmax") {
    got = "log-probabilities";
  } else if (name == "Softmax" || name == "SafeSoftmax" || name == "Sigmoid") {
    got = "probabilities";
  } else if (node.op.reason == "a loss") {
    got = "a loss";
  }
  TORCH_CHECK(got == nullptr,
              "lawn::final_homogeneous_subnetwork: expected logits, got the output of ", node.name,
              ": this looks like ", got, ": pass the logits");
}

/// The dimension of a matrix that counts output units. It follows from the side of the product on
/// which the matrix stands, and from the transpositions on the way there.
/// @param units_of_module  what its module says
inline int64_t matrix_unit_dim(const GraphNode& product, const Use& use, const at::Tensor& matrix,
                               int64_t units_of_module) {
  if (matrix.dim() < 2) return 0;
  const auto& result = product.node->input_metadata(0);
  const bool right = use.edge == Edge::kRight;
  // A kernel of a convolution that was made a matrix: its rows are those of its module.
  if (right && use.reshaped && !use.permuted && matrix.dim() > 2 && !result.is_nested_tensor() &&
      result.shape_as_dim_vector().size() == 2) {
    return units_of_module;
  }
  const int64_t rows = matrix.dim() - 2;
  const int64_t columns = matrix.dim() - 1;
  // A permutation may swap or not (einsum makes two of each operand): the size of the product
  // tells, unless the matrix is square.
  if (use.permuted && !result.is_nested_tensor() && matrix.size(rows) != matrix.size(columns)) {
    const auto shape = result.shape_as_dim_vector();
    const size_t from_end = right || shape.size() < 2 ? 1 : 2;
    if (shape.size() >= from_end) {
      const int64_t units = shape[shape.size() - from_end].expect_int();
      if (matrix.size(rows) == units) return rows;
      if (matrix.size(columns) == units) return columns;
    }
  }
  return right == (use.swaps % 2 == 0) ? columns : rows;
}

/// The dimension of a convolution's kernel that counts output units. The number of outputs tells:
/// if it is not the kernel's first size, the kernel is one of a transposed convolution, or was
/// transposed on the way there. If it is, `units_of_module`, what its module says, stands.
inline int64_t kernel_unit_dim(const GraphNode& product, const Use& use, const at::Tensor& kernel,
                               int64_t units_of_module) {
  const auto& result = product.node->input_metadata(0);
  if (operator_name(product.name) != "Convolution" || use.slot != 1 || use.reshaped ||
      result.is_nested_tensor()) {
    return units_of_module;
  }
  const auto shape = result.shape_as_dim_vector();
  if (static_cast<size_t>(kernel.dim()) != shape.size()) return units_of_module;
  return kernel.size(0) == shape[1].expect_int() ? units_of_module : 1;
}

/// Writes into `parameter` what its use in the graph tells about it.
inline void describe_use(const std::vector<GraphNode>& graph, const Use& use,
                         SubnetworkParameter& parameter) {
  if (use.node == kNowhere) return;
  const GraphNode& node = graph[use.node];
  parameter.node = node.name;
  switch (use.edge) {
    case Edge::kStop:
      return;  // the role that its name suggests stands
    case Edge::kTerm:
    case Edge::kBias:
      parameter.role = Role::kBias;
      return;
    case Edge::kLookup:
      parameter.role = Role::kEmbedding;
      return;
    case Edge::kLeft:
    case Edge::kRight:
      parameter.role = Role::kWeight;
      parameter.unit_dim = matrix_unit_dim(node, use, parameter.tensor, parameter.unit_dim);
      return;
    default:
      parameter.role = Role::kWeight;
      parameter.unit_dim = kernel_unit_dim(node, use, parameter.tensor, parameter.unit_dim);
  }
}

/// Whether a bias by name is multiplied by a constant tensor, a mask say, before it is added.
inline bool is_scaled_bias(const std::vector<GraphNode>& graph, const std::vector<Paths>& paths,
                           const Use& use, const std::string& name) {
  return use.node != kNowhere && use.edge == Edge::kFactor && is_named_bias(name) &&
         paths[use.node].elementwise && paths[use.node].use.additive() &&
         operator_name(graph[use.node].name) == "Mul";
}

/// Why a parameter is left out although every path keeps it inside; empty if it is not left out.
inline std::string unfit(const SubnetworkParameter& parameter) {
  if (!at::isFloatingType(parameter.tensor.scalar_type())) {
    return "not of a real floating-point type";
  }
  if (parameter.role != Role::kBias && parameter.tensor.numel() < 2) {
    return "a single element: there is no direction to train in once its norm is held";
  }
  return "";
}

/// Marks the frozen biases of layers with a constrained weight as added, and says whether there is
/// one. The graph does not show such a bias, so the search is by name.
inline bool mark_frozen_biases(std::vector<SubnetworkParameter>& parameters) {
  const auto owner = [](const std::string& name) { return name.substr(0, name.rfind('.') + 1); };
  std::unordered_set<std::string> owners;
  for (const SubnetworkParameter& parameter : parameters) {
    if (parameter.constrained()) owners.insert(owner(parameter.name));
  }
  bool any = false;
  for (SubnetworkParameter& parameter : parameters) {
    if (!parameter.tensor.requires_grad() && parameter.role == Role::kBias &&
        owners.count(owner(parameter.name)) != 0) {
      parameter.added = true;
      any = true;
    }
  }
  return any;
}

[[noreturn]] inline void refuse_empty(const std::vector<Boundary>& boundaries) {
  std::string ends;
  bool hidden = false;  // whether the operators at the boundaries are unknown
  for (const Boundary& boundary : boundaries) {
    ends += (ends.empty() ? "" : "; ") + boundary.node + " (" + boundary.reason + ")";
    hidden = hidden || operator_name(boundary.node) == kHiddenByTorchScript;
  }
  if (ends.empty()) ends = "the leaves of the graph, none of which is a weight of the module";
  TORCH_CHECK(
      false,
      "lawn::final_homogeneous_subnetwork: expected a weight from which every path to the "
      "logits is homogeneous, got none: the walk from the logits ended at ",
      ends, hidden ? "" : "; pass what comes before that operator, classify it, or select by hand");
}

}  // namespace detail::subnetwork

/// Finds the final homogeneous sub-network: the weights w for which the logits are positively
/// homogeneous,
///   f(a w) = a^k f(w)   for a > 0,
/// up to biases and up to adds of branches of different degree.
///
/// The function reads the autograd graph from the logits. A weight belongs to the sub-network when
/// every path from it to the logits stays within operators that are homogeneous; one that is also
/// used behind a boundary (a norm, a softmax, a gate) is outside. A parameter that is added is a
/// bias, one that is read by index is an embedding, and every other one is a weight; what is added to
/// a weight (noise, a correction) is one, too. If a parameter has several uses, a multiplying one
/// decides its role. A weight of a single element stays
/// outside, and so does the scale of a normalisation. The walk cannot see what the graph does not
/// record: a detached tensor counts as a constant, and so does a threshold in a comparison.
/// `check_homogeneity` measures the rest.
///
/// @param logits  output of the network on any batch, before softmax and loss, with its graph
/// @param module  the network, of torch::nn or TorchScript, whose parameters are reported in module
///                order, each once; leaves of the graph that are not among them follow as "(not in
///                the module)". For TorchScript see also the function that takes its inputs
/// @param table   classification of operators that the library does not know, or that you classify
///                otherwise
/// @return names, roles and reasons; the tensors are aliases
/// @throws c10::Error if the logits have no graph, if they are probabilities, log-probabilities or
///         a loss, or if there is no such weight (the message says where the walk ended)
/// @note   does not wait for the device; call it in the mode in which you train, before backward()
/// @source Gupta et al. 2021, arXiv 2108.05839
inline Subnetwork final_homogeneous_subnetwork(const at::Tensor& logits, const ModuleView& module,
                                               const OperatorTable& table = OperatorTable()) {
  TORCH_CHECK(logits.defined(),
              "lawn::final_homogeneous_subnetwork: expected logits, got an undefined tensor; pass "
              "the output of forward()");
  TORCH_CHECK(!logits.is_complex(),
              "lawn::final_homogeneous_subnetwork: expected real logits, got ",
              logits.scalar_type(), "; complex outputs are not supported");
  const auto& root = logits.grad_fn();
  TORCH_CHECK(root != nullptr,
              "lawn::final_homogeneous_subnetwork: expected logits with an autograd graph, got a ",
              logits.scalar_type(),
              " tensor without one; compute them from parameters that require gradients, outside "
              "NoGradGuard and InferenceMode, and do not detach or round them");

  const std::vector<detail::subnetwork::GraphNode> graph =
      detail::subnetwork::read_graph(*root, table);
  detail::subnetwork::refuse_past_logits(graph);

  std::vector<SubnetworkParameter> parameters = detail::subnetwork::module_parameters(module);
  std::unordered_map<const c10::TensorImpl*, size_t> index;
  for (size_t i = 0; i < parameters.size(); ++i) {
    index.emplace(parameters[i].tensor.unsafeGetTensorImpl(), i);
    parameters[i].reason = parameters[i].tensor.requires_grad()
                               ? "not used by these logits, or detached from them"
                               : "frozen (requires_grad is false)";
  }
  std::vector<bool> in_module(graph.size(), false);
  for (size_t i = 0; i < graph.size(); ++i) {
    in_module[i] = graph[i].is_leaf() && index.count(graph[i].leaf.unsafeGetTensorImpl()) == 1;
  }
  detail::subnetwork::PathAnalysis analysis = detail::subnetwork::follow_paths(graph, in_module);

  std::vector<detail::subnetwork::Degree> leaves(graph.size());
  bool found = false;
  for (size_t i = 0; i < graph.size(); ++i) {
    if (!graph[i].is_leaf()) continue;
    if (!in_module[i]) {
      parameters.emplace_back();
      parameters.back().name = "(not in the module)";
      parameters.back().tensor = graph[i].leaf;
    }
    SubnetworkParameter& parameter = in_module[i]
                                         ? parameters[index.at(graph[i].leaf.unsafeGetTensorImpl())]
                                         : parameters.back();
    const detail::subnetwork::Paths& paths = analysis.paths[i];
    detail::subnetwork::describe_use(graph, paths.use, parameter);
    if (detail::subnetwork::is_scaled_bias(graph, analysis.paths, paths.use, parameter.name)) {
      parameter.role = Role::kBias;
    }
    if (!in_module[i]) {
      parameter.reason = "not a parameter of the module";
    } else if (!paths.inside) {
      parameter.reason =
          (paths.touched ? "also used behind " : "behind ") + analysis.causes[paths.cause];
    } else if (paths.touched) {
      parameter.reason = detail::subnetwork::unfit(parameter);
      parameter.inside = parameter.reason.empty();
    }
    parameter.added = in_module[i] && parameter.role == Role::kBias && paths.touched;
    leaves[i].value = parameter.constrained() ? 1 : 0;
    leaves[i].bias = parameter.added;
    found = found || parameter.constrained();
  }
  if (!found) detail::subnetwork::refuse_empty(analysis.boundaries);

  const bool frozen_biases = detail::subnetwork::mark_frozen_biases(parameters);
  const detail::subnetwork::DegreeAnalysis degree =
      detail::subnetwork::find_degree(graph, analysis.paths, leaves, frozen_biases);
  return Subnetwork(std::move(parameters), std::move(analysis.boundaries), degree.homogeneity,
                    degree.degree);
}

}  // namespace lawn
