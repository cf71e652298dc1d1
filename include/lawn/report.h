// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <iomanip>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include <lawn/finite_math.h>
#include <lawn/text_columns.h>

namespace lawn {

/// In the free phase the base optimizer steps alone; in the constrained phase norms are held at
/// their radii.
enum class Phase { kFree, kConstrained };

/// Prints "free" or "constrained".
inline std::ostream& operator<<(std::ostream& out, Phase phase) {
  return out << (phase == Phase::kFree ? "free" : "constrained");
}

/// State of one constrained tensor. If it is cut into output units, `radius` and `norm` are taken
/// over all of them, and `norm_error` is the largest.
struct LayerReport {
  /// Dotted name in the selection.
  std::string name;
  /// Number of spheres: 1, or the number of output units.
  int64_t spheres = 1;
  /// R, in the units of the weight; none before the radii are known.
  std::optional<double> radius;
  /// Present norm, in the same units as the radius.
  double norm = 0;
  /// max | ||w|| / R - 1 | over the spheres that are constrained; none in the free phase.
  std::optional<double> norm_error;
  /// <w,g> / (||w|| ||g||), none where one of the norms is zero or not finite. The gradient is the
  /// present one: between `backward()` and `step()` that is the base gradient, after a constrained
  /// step what the projection left of it (the cosine is then nearly 0).
  std::optional<double> cosine;
  /// Angle in radians by which the last step turned the weight; known only with
  /// `LAWNOptions::angular_steps(true)`, none for a zero weight.
  std::optional<double> angular_step;
  /// What is wrong or unusual ("gradient is not finite", "off its sphere"), empty if nothing is.
  std::string note;
};

/// What `LAWN::report()` returns; prints as a table.
struct Report {
  /// Phase of the optimizer.
  Phase phase = Phase::kFree;
  /// Number of steps done in both phases.
  int64_t steps = 0;
  /// One entry for each constrained tensor, in the order of the selection.
  std::vector<LayerReport> layers;
};

namespace detail {

inline std::string cell(const std::optional<double>& value, int precision) {
  if (!value) return "-";
  std::ostringstream text;
  text << std::setprecision(precision) << *value;
  return text.str();
}

}  // namespace detail

/// Prints a table with one line for each layer.
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
  return out << detail::columns_text(rows);
}

}  // namespace lawn
