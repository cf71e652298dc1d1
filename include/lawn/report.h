// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

namespace lawn {

/// Free: the base optimizer alone. Constrained: norms held at their radii.
enum class Phase { kFree, kConstrained };

inline std::ostream& operator<<(std::ostream& out, Phase phase) {
  return out << (phase == Phase::kFree ? "free" : "constrained");
}

/// How one constrained tensor stands. Where it is cut into output units, `radius` and `norm` are
/// over all of them and `norm_error` is the largest of any.
struct LayerReport {
  std::string name;
  /// Number of spheres: 1, or the output units.
  int64_t spheres = 1;
  /// R, in the units of the weight; none before the radii are known.
  std::optional<double> radius;
  double norm = 0;
  /// max | ||w|| / R - 1 | over the spheres that are constrained; none in the free phase.
  std::optional<double> norm_error;
  /// <w,g> / (||w|| ||g||) of the gradient as it now is: the base gradient between `backward()` and
  /// `step()`, what the projection left of it (nearly 0) after a constrained step.
  std::optional<double> cosine;
  /// Angle in radians by which the last step turned the weight; with
  /// `LAWNOptions::angular_steps(true)`.
  std::optional<double> angular_step;
  /// What is wrong or unusual ("gradient is not finite"), empty if nothing is.
  std::string note;
};

/// What `LAWN::report()` returns; prints as a table.
struct Report {
  Phase phase = Phase::kFree;
  int64_t steps = 0;
  std::vector<LayerReport> layers;
};

namespace detail {

inline std::string cell(const std::optional<double>& value, int precision) {
  if (!value) return "-";
  std::ostringstream text;
  text << std::setprecision(precision) << *value;
  return text.str();
}

/// Rows of cells in aligned columns, two spaces apart.
inline void print_columns(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      line += row[c] + std::string(widths[c] - row[c].size() + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  }
}

}  // namespace detail

inline std::ostream& operator<<(std::ostream& out, const Report& report) {
  out << "LAWN: " << report.phase << " phase, " << report.steps << " steps done\n";
  std::vector<std::vector<std::string>> rows = {
      {"layer", "spheres", "radius", "norm", "norm error", "cos(w,g)", "angular step", "note"}};
  for (const auto& layer : report.layers) {
    rows.push_back({layer.name, std::to_string(layer.spheres), detail::cell(layer.radius, 5),
                    detail::cell(layer.norm, 5), detail::cell(layer.norm_error, 2),
                    detail::cell(layer.cosine, 3), detail::cell(layer.angular_step, 3),
                    layer.note});
  }
  detail::print_columns(out, rows);
  return out;
}

}  // namespace lawn
