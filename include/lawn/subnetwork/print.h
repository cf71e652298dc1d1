// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/ops/linalg_vector_norm.h>

#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

/// The role in words: "weight", "bias" or "embedding".
inline const char* to_string(Role role) {
  switch (role) {
    case Role::kWeight:
      return "weight";
    case Role::kBias:
      return "bias";
    default:
      return "embedding";
  }
}

/// The homogeneity in words, as the table prints it.
inline const char* to_string(Homogeneity homogeneity) {
  switch (homogeneity) {
    case Homogeneity::kStrict:
      return "strict";
    case Homogeneity::kUpToBiases:
      return "up to biases, which are added and do not scale";
    case Homogeneity::kUpToAdds:
      return "up to adds: branches of different degree are added or joined";
    default:
      return "not known: selected by hand";
  }
}

namespace detail {

inline std::string shape_text(const at::Tensor& tensor) {
  std::ostringstream text;
  text << '[';
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    text << (dim == 0 ? "" : ", ") << tensor.size(dim);
  }
  text << ']';
  return text.str();
}

inline std::string norm_text(const at::Tensor& tensor) {
  if (!at::isFloatingType(tensor.scalar_type())) return "-";
  std::ostringstream text;
  text << std::setprecision(6)
       << at::linalg_vector_norm(tensor.detach(), 2, std::nullopt, false, at::kDouble)
              .item<double>();
  return text.str();
}

inline std::string status_text(const SubnetworkParameter& parameter) {
  if (parameter.constrained()) return "constrained";
  return parameter.inside ? "bias: left free" : "outside: " + parameter.reason;
}

}  // namespace detail

/// Prints the sub-network as a table: one line per parameter with its name, shape, Euclidean norm,
/// role, node, and whether it is constrained or why not; below it the boundaries and the
/// homogeneity.
/// @note waits for the device: it reads the norm of every parameter
inline std::ostream& operator<<(std::ostream& stream, const Subnetwork& subnetwork) {
  using Row = std::array<std::string, 6>;
  std::vector<Row> rows{{"name", "shape", "norm", "role", "node", "constrained"}};
  for (const SubnetworkParameter& parameter : subnetwork.all()) {
    rows.push_back({parameter.name, detail::shape_text(parameter.tensor),
                    detail::norm_text(parameter.tensor), to_string(parameter.role),
                    parameter.node.empty() ? "-" : parameter.node, detail::status_text(parameter)});
  }
  std::array<size_t, 6> width{};
  for (const Row& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) {
      width[column] = std::max(width[column], row[column].size());
    }
  }
  // Built in a stream of its own, so that no formatting flag of the caller's is read or changed.
  std::ostringstream text;
  for (const Row& row : rows) {
    for (size_t column = 0; column + 1 < row.size(); ++column) {
      const std::string padding(width[column] - row[column].size(), ' ');
      text << (column == 2 ? padding + row[column] : row[column] + padding) << "  ";
    }
    text << row.back() << '\n';
  }
  text << "constrained: " << subnetwork.names().size() << " of " << subnetwork.all().size()
       << " parameters\n";
  for (const Boundary& boundary : subnetwork.boundaries()) {
    text << "boundary: " << boundary.node << " (" << boundary.reason << ")\n";
  }
  text << "homogeneity: " << to_string(subnetwork.homogeneity());
  if (subnetwork.degree()) text << "; degree " << *subnetwork.degree();
  return stream << text.str() << '\n';
}

}  // namespace lawn
