// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace examples {

/// The decay of an optimizer's first and second moment, each step, as LibTorch's options take them.
using Betas = std::tuple<double, double>;

/// The optimizers with betas, by the names of --optimizer.
inline const std::vector<std::string> kAdaptiveOptimizers = {"adam", "adamw", "fused-adam",
                                                             "fused-adamw", "lamb"};

/// Reads the value of --betas, as "0.9,0.95".
/// @throws c10::Error that names the flag, for anything except two numbers in [0, 1) with a comma
///         between them
inline Betas parse_betas(const std::string& text) {
  const auto number = [](const std::string& part) {
    size_t used = 0;
    double value = -1;
    try {
      value = std::stod(part, &used);
    } catch (const std::exception&) {  // no number at all, or one that a double cannot hold
      return -1.0;
    }
    return used == part.size() ? value : -1.0;
  };
  const size_t comma = text.find(',');
  const double first = number(text.substr(0, comma));
  const double second = comma == std::string::npos ? -1 : number(text.substr(comma + 1));
  TORCH_CHECK(first >= 0 && first < 1 && second >= 0 && second < 1,
              "--betas: expected two numbers from 0 to below 1, as in 0.9,0.999; got '", text, "'");
  return {first, second};
}

/// The same; nothing for an empty text, which leaves the betas to the optimizer.
inline std::optional<Betas> parse_betas_if_any(const std::string& text) {
  if (text.empty()) return std::nullopt;
  return parse_betas(text);
}

/// Refuses betas for an optimizer that has none.
/// @throws c10::Error that names the flag, the optimizer and those that have betas
inline void check_betas(const std::optional<Betas>& betas, const std::string& optimizer) {
  const bool has = std::find(kAdaptiveOptimizers.begin(), kAdaptiveOptimizers.end(), optimizer) !=
                   kAdaptiveOptimizers.end();
  TORCH_CHECK(!betas || has, "--betas: expected an optimizer with two betas, one of ",
              kAdaptiveOptimizers, "; got ", optimizer, ": leave --betas out");
}

}  // namespace examples
