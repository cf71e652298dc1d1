// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/ops/linalg_vector_norm.h>

#include <lawn/subnetwork/subnetwork.h>
#include <lawn/text_columns.h>

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

namespace detail::subnetwork {

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

/// From this number on, consecutive parameters that are outside for one reason are printed as one
/// line; tensors of one name, which are not in the module, always are.
constexpr size_t kFewestToShareALine = 4;

/// End of the run of parameters, from `begin` on, that are outside for the same reason.
inline size_t end_of_like(const std::vector<SubnetworkParameter>& all, size_t begin) {
  size_t end = begin + 1;
  while (end < all.size() && !all[begin].inside && !all[end].inside &&
         all[end].reason == all[begin].reason) {
    ++end;
  }
  return end;
}

}  // namespace detail::subnetwork

/// Prints the sub-network as a table: one line per parameter with its name, shape, Euclidean norm,
/// role, node, and whether it is constrained or why not; below it the boundaries and the
/// homogeneity. Four or more parameters in a row that are outside for one reason share a line, and
/// so do all tensors that are not in the module.
/// @note waits for the device: it reads the norm of every parameter
inline std::ostream& operator<<(std::ostream& stream, const Subnetwork& subnetwork) {
  const auto& all = subnetwork.all();
  std::vector<std::vector<std::string>> rows{
      {"name", "shape", "norm", "role", "node", "constrained"}};
  for (size_t i = 0; i < all.size();) {
    const size_t next = detail::subnetwork::end_of_like(all, i);
    const bool one_name = all[i].name == all[next - 1].name;
    if (next - i >= (one_name ? 2 : detail::subnetwork::kFewestToShareALine)) {
      rows.push_back({one_name ? all[i].name : all[i].name + " ... " + all[next - 1].name,
                      std::to_string(next - i) + " tensors", "-", "-", "-",
                      detail::subnetwork::status_text(all[i])});
      i = next;
      continue;
    }
    const SubnetworkParameter& parameter = all[i++];
    rows.push_back({parameter.name, detail::subnetwork::shape_text(parameter.tensor),
                    detail::subnetwork::norm_text(parameter.tensor), to_string(parameter.role),
                    parameter.node.empty() ? "-" : parameter.node,
                    detail::subnetwork::status_text(parameter)});
  }
  // Built in a stream of its own, so that no formatting flag of the caller's is read or changed.
  std::ostringstream text;
  constexpr size_t kNorm = 2;
  text << detail::columns_text(rows, kNorm);
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
