// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <lawn/module_view.h>

/// Parameters and buffers of a module, for pairing with those of another module of the same
/// architecture.
namespace lawn::detail::companions {

struct ModuleTensor {
  std::string name;
  at::Tensor tensor;
  bool is_buffer = false;

  /// Whether the tensor takes part in averages.
  bool is_real() const { return tensor.is_floating_point() || tensor.is_complex(); }
};

/// Every parameter and then every buffer that is defined, each under every name that it has.
inline std::vector<ModuleTensor> module_tensors(const ModuleView& module) {
  std::vector<ModuleTensor> all;
  for (const auto& [name, tensor] : module.parameters()) all.push_back({name, tensor, false});
  for (const auto& [name, tensor] : module.buffers()) all.push_back({name, tensor, true});
  return all;
}

/// `entries` with each tensor once, under its first name.
inline std::vector<ModuleTensor> each_once(const std::vector<ModuleTensor>& entries) {
  std::vector<ModuleTensor> once;
  std::unordered_set<const void*> seen;
  for (const auto& entry : entries) {
    if (seen.insert(entry.tensor.unsafeGetTensorImpl()).second) once.push_back(entry);
  }
  return once;
}

/// Describes what of a tensor has to be the same in another module of the same architecture. It has
/// the name in the tensor's own module, not the path to that: `Sequential::clone()` renumbers the
/// modules.
inline std::string describe(const ModuleTensor& entry) {
  std::ostringstream text;
  text << entry.name.substr(entry.name.rfind('.') + 1) << " " << entry.tensor.scalar_type() << " "
       << entry.tensor.sizes();
  return text.str();
}

inline std::vector<std::string> describe(const std::vector<ModuleTensor>& entries) {
  std::vector<std::string> all;
  all.reserve(entries.size());
  for (const auto& entry : entries) all.push_back(describe(entry));
  return all;
}

/// @param what  what `came` describes, for messages: "a student"
/// @throws c10::Error that names the first tensor that differs
inline void refuse_other_architecture(const char* who, const char* what,
                                      const std::vector<ModuleTensor>& mine,
                                      const std::vector<std::string>& came) {
  TORCH_CHECK(came.size() == mine.size(), who, ": expected ", what, " with ", mine.size(),
              " parameters and buffers, as the teacher has, got one with ", came.size(),
              ": it is of another architecture; nothing was changed");
  for (std::size_t i = 0; i < mine.size(); ++i) {
    TORCH_CHECK(came[i] == describe(mine[i]), who, ": expected ", what, " with '",
                describe(mine[i]), "' in the place of the teacher's ", mine[i].name, ", got '",
                came[i], "': it is of another architecture or dtype; nothing was changed");
  }
}

/// @throws c10::Error if a tensor of the teacher corresponds to two of the student's, or shares
///         memory with one
inline void refuse_other_ties(const char* who, const std::vector<ModuleTensor>& teacher,
                              const std::vector<ModuleTensor>& student) {
  std::unordered_map<const void*, const void*> of_teacher;
  for (std::size_t i = 0; i < teacher.size(); ++i) {
    const void* mine = teacher[i].tensor.unsafeGetTensorImpl();
    const void* other = student[i].tensor.unsafeGetTensorImpl();
    const bool shared =
        teacher[i].tensor.numel() > 0 && teacher[i].tensor.is_alias_of(student[i].tensor);
    TORCH_CHECK(mine != other && !shared, who, ": expected a teacher with memory of its own, got ",
                "one that shares ", teacher[i].name, " with the student; give it a copy");
    TORCH_CHECK(of_teacher.emplace(mine, other).first->second == other, who, ": expected ",
                teacher[i].name, " to be tied to another tensor in the student as it is in the ",
                "teacher, got tensors of their own; nothing was changed");
  }
}

}  // namespace lawn::detail::companions
