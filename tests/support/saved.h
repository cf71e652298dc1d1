// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sstream>
#include <string>

#include <torch/torch.h>

namespace lawn::testing {

/// What `torch::save` writes of `value`.
template <class T>
std::string saved(const T& value) {
  std::ostringstream file;
  torch::save(value, file);
  return file.str();
}

/// Reads it back.
template <class T>
void load(T& value, const std::string& bytes) {
  std::istringstream file(bytes);
  torch::load(value, file);
}

}  // namespace lawn::testing
