// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>
#include <torch/optim/optimizer.h>

/// Which parameters an optimizer holds, and where.
namespace lawn::detail::parameters {

/// Where an optimizer holds a parameter.
struct Position {
  std::size_t group;
  std::size_t index;  ///< index in the group

  bool operator==(const Position& other) const {
    return group == other.group && index == other.index;
  }
};

/// A number that almost surely changes when the groups' parameters, their order or their shapes
/// change.
inline std::uint64_t fingerprint(const std::vector<torch::optim::OptimizerParamGroup>& groups) {
  constexpr std::uint64_t kPrime = 1099511628211;
  std::uint64_t sum = 0;
  for (const auto& group : groups) {
    for (const auto& parameter : group.params()) {
      const auto address = reinterpret_cast<std::uintptr_t>(parameter.unsafeGetTensorImpl());
      sum = sum * kPrime + (address >> 4);
      for (const int64_t size : parameter.sizes()) {
        sum = sum * kPrime + static_cast<std::uint64_t>(size);
      }
    }
    sum = sum * kPrime + 1;
  }
  return sum;
}

/// @param place, other  the parameter's second place, and its first
/// @throws c10::Error, always
[[noreturn]] inline void refuse_second_place(const char* who, const at::Tensor& parameter,
                                             const std::string& place, const std::string& other) {
  TORCH_CHECK(false, who, ": expected every parameter once, got one of shape ", parameter.sizes(),
              " as ", place, " that is ", other,
              ", too: it would be stepped twice. Give the optimizer each tensor once; "
              "lawn::unique_parameters(*model) lists those of a model with tied weights so");
}

/// Refuses an optimizer that would step a tensor twice. The first check examines every parameter;
/// later ones do so only if the parameters have changed.
class HeldOnce {
 public:
  HeldOnce() = default;
  /// @throws c10::Error as `check` does
  HeldOnce(const char* who, const std::vector<torch::optim::OptimizerParamGroup>& groups) {
    check(who, groups);
  }

  /// @param more  called as more(parameter, position) for every parameter that is examined
  /// @throws c10::Error that names the two places of a tensor that the groups hold twice, and what
  ///         `more` throws
  template <class More>
  void check(const char* who, const std::vector<torch::optim::OptimizerParamGroup>& groups,
             const More& more) {
    const auto now = fingerprint(groups);
    if (now == checked_) return;
    std::unordered_map<const c10::TensorImpl*, Position> places;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto& parameters = groups[g].params();
      for (std::size_t p = 0; p < parameters.size(); ++p) {
        const auto [held, is_new] =
            places.emplace(parameters[p].unsafeGetTensorImpl(), Position{g, p});
        if (!is_new) {
          refuse_second_place(
              who, parameters[p], c10::str("parameter ", p, " of group ", g),
              c10::str("parameter ", held->second.index, " of group ", held->second.group));
        }
        more(parameters[p], Position{g, p});
      }
    }
    checked_ = now;
  }
  void check(const char* who, const std::vector<torch::optim::OptimizerParamGroup>& groups) {
    check(who, groups, [](const at::Tensor& /*parameter*/, const Position& /*position*/) {});
  }

 private:
  std::uint64_t checked_ = 0;
};

/// Refuses a new group with a parameter that is in `groups` already, or comes twice.
/// @throws c10::Error that names the parameter's two places
inline void refuse_held(const char* who,
                        const std::vector<torch::optim::OptimizerParamGroup>& groups,
                        const torch::optim::OptimizerParamGroup& added) {
  std::unordered_set<const c10::TensorImpl*> of_added;
  for (const auto& parameter : added.params()) {
    if (of_added.insert(parameter.unsafeGetTensorImpl()).second) continue;
    refuse_second_place(who, parameter, "a parameter of the new group", "in the same group");
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (std::size_t p = 0; p < groups[g].params().size(); ++p) {
      const at::Tensor& parameter = groups[g].params()[p];
      if (of_added.count(parameter.unsafeGetTensorImpl()) == 0) continue;
      refuse_second_place(who, parameter, "a parameter of the new group",
                          c10::str("parameter ", p, " of group ", g));
    }
  }
}

}  // namespace lawn::detail::parameters
