// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <regex>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <lawn/module_view.h>
#include <lawn/subnetwork/module_parameters.h>
#include <lawn/subnetwork/selection.h>
#include <lawn/subnetwork/subnetwork.h>

// Not part of selection.h, since <regex> is slow to compile.

namespace lawn {

/// Selects the parameters whose dotted name matches a regular expression as a whole.
/// @param module   the network
/// @param pattern  ECMAScript; "layer2\\..*weight" takes "layer2.0.conv1.weight"
/// @throws c10::Error if the pattern is malformed, if no name matches, or if a parameter that
///         matches is not of a real floating-point type
/// @note   does not wait for the device
inline Subnetwork select_by_name(const ModuleView& module, const std::string& pattern) {
  std::regex expression;
  try {
    expression = std::regex(pattern, std::regex::ECMAScript);
  } catch (const std::regex_error& error) {
    TORCH_CHECK(false, "lawn::select_by_name: expected an ECMAScript regular expression, got '",
                pattern, "' (", error.what(), "); correct the pattern");
  }
  const std::vector<SubnetworkParameter> parameters = detail::subnetwork::module_parameters(module);
  bool any = false;
  for (const SubnetworkParameter& parameter : parameters) {
    any = any || std::regex_match(parameter.name, expression);
  }
  TORCH_CHECK(any,
              "lawn::select_by_name: expected a pattern that matches a whole dotted name, got '",
              pattern, "', which matches none of ", parameters.size(), " (",
              parameters.empty() ? "" : parameters.front().name, ", ...); correct the pattern");
  return select_if(module, [&expression](const std::string& name, const at::Tensor&) {
    return std::regex_match(name, expression);
  });
}

}  // namespace lawn
