// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <string>
#include <tuple>

namespace examples {

/// The two decays of Adam's moments out of "0.9,0.999".
/// @throws c10::Error unless `text` is two numbers in [0, 1) with a comma between them
inline std::tuple<double, double> parse_betas(const std::string& text) {
  const auto number = [&text](const std::string& digits) {
    size_t used = 0;
    double value = -1;
    try {
      value = std::stod(digits, &used);
    } catch (const std::exception&) {  // no digits at all, or too many for the type
      used = 0;
    }
    TORCH_CHECK(used == digits.size() && used > 0 && value >= 0 && value < 1,
                "--betas: expected two numbers from 0 to below 1, as in 0.9,0.999; got '", text,
                "'");
    return value;
  };
  const size_t comma = text.find(',');
  const std::string second = comma == std::string::npos ? "" : text.substr(comma + 1);
  return {number(text.substr(0, comma)), number(second)};
}

}  // namespace examples
