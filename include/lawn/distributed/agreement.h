// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <c10/util/Exception.h>
#include <c10/util/irange.h>

#include <lawn/distributed/collective.h>

namespace lawn {

namespace detail::distributed {

/// "rank 2" or "ranks 0, 1 and 3".
inline std::string name_ranks(const std::vector<int>& ranks) {
  std::string names = ranks.size() == 1 ? "rank " : "ranks ";
  for (const auto i : c10::irange(ranks.size())) {
    if (i > 0) names += i + 1 == ranks.size() ? " and " : ", ";
    names += std::to_string(ranks[i]);
  }
  return names;
}

/// Groups of ranks that have the same value, the largest group first; of two groups of one size,
/// the one with the lowest rank first.
template <class T>
std::vector<std::vector<int>> group_by_value(const std::vector<T>& values) {
  std::map<T, std::vector<int>> ranks;
  for (const auto i : c10::irange(values.size())) ranks[values[i]].push_back(static_cast<int>(i));
  std::vector<std::vector<int>> groups;
  groups.reserve(ranks.size());
  for (auto& [value, group] : ranks) groups.push_back(group);
  std::sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return a.size() != b.size() ? a.size() > b.size() : a.front() < b.front();
  });
  return groups;
}

/// "rank 1 in step 4, ranks 0 and 2 in step 3": the odd ones first.
/// @param groups  of `group_by_value(steps)`
inline std::string name_steps(const std::vector<std::vector<int>>& groups,
                              const std::vector<int64_t>& steps) {
  std::string text;
  for (auto group = groups.rbegin(); group != groups.rend(); ++group) {
    text += (text.empty() ? "" : ", ") + name_ranks(*group) + " in step " +
            std::to_string(steps[static_cast<std::size_t>(group->front())]);
  }
  return text;
}

/// Tells the other ranks about an error of this one, so that they do not wait for it.
template <class Action>
void tell_of_errors(Collective& ranks, const Action& action) {
  try {
    action();
  } catch (const c10::Error& error) {
    ranks.fail(error.what_without_backtrace());
    throw;
  } catch (const std::exception& error) {
    ranks.fail(error.what());
    throw;
  }
}

/// Describes the first line in which two texts differ.
inline std::string first_difference(const std::string& expected, const std::string& got) {
  std::istringstream a(expected), b(got);
  for (int number = 1;; ++number) {
    std::string line_a, line_b;
    const bool more_a = static_cast<bool>(std::getline(a, line_a));
    const bool more_b = static_cast<bool>(std::getline(b, line_b));
    if (!more_a && !more_b) return "nothing but the end of a line";
    if (line_a == line_b && more_a == more_b) continue;
    return "expected " + (more_a ? "'" + line_a + "'" : "no more") + ", got " +
           (more_b ? "'" + line_b + "'" : "no more") + " in line " + std::to_string(number);
  }
}

}  // namespace detail::distributed

/// Checks that all ranks have the same text, before they do something together.
/// @param collective  joins the ranks that are checked
/// @param where  the caller's name in the message: "lawn::DataParallel"
/// @param what   what the text describes, in the message: "model"
/// @param text   must be the same on every rank; it consists of lines, of which the message shows
///               the first that differs
/// @throws c10::Error on every rank, if the texts differ: the message names the ranks outside the
///         largest group (of groups of one size the one with the lowest rank counts as the largest)
///         and the first line that differs
/// @note   every rank must call it; takes one `gather` of a text (two all-gathers in a
///         `ProcessGroup`)
inline void check_agreement(Collective& collective, const std::string& where,
                            const std::string& what, const std::string& text) {
  const auto texts = collective.gather(text);
  const auto groups = detail::distributed::group_by_value(texts);
  if (groups.size() == 1) return;
  const auto& most = groups.front();
  std::string differences;
  for (const auto i : c10::irange(std::size_t{1}, groups.size())) {
    const auto& group = groups[i];
    differences +=
        "; " + detail::distributed::name_ranks(group) + ": " +
        detail::distributed::first_difference(texts.at(static_cast<std::size_t>(most.front())),
                                              texts.at(static_cast<std::size_t>(group.front())));
  }
  TORCH_CHECK(false, where, ": expected the same ", what, " on every rank, as ",
              detail::distributed::name_ranks(most), most.size() == 1 ? " has" : " have", " it",
              differences, ". Start every rank with the same program and options");
}

}  // namespace lawn
