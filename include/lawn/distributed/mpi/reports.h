// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <c10/util/irange.h>

#include <lawn/distributed/agreement.h>

namespace lawn::detail::mpi {

/// The report of a rank that gives up.
struct MpiReport {
  /// Whether the rank itself is the cause; otherwise it waits for others.
  bool failed = false;
  /// What the rank's first collective that it does not complete does (the same text on all ranks
  /// that wait for each other). If the rank failed: the reason.
  std::string place;
  /// How long it has waited there.
  int64_t milliseconds = 0;
  /// Number of that collective.
  int64_t number = 0;
  /// What the collective before it did, the last one that the rank completed; empty for the first.
  std::string before;
  /// The first collective that other ranks must not wait for either: after a failure, the first one
  /// that the failed rank does not complete; 0, whichever they are in, if a rank waited too long.
  int64_t first = 0;

  /// The report as a message.
  std::string bytes() const {
    const int64_t numbers[kNumbers] = {failed ? 1 : 0, milliseconds, number,
                                       static_cast<int64_t>(place.size()), first};
    return std::string(reinterpret_cast<const char*>(numbers), sizeof(numbers)) + place + before;
  }

  static MpiReport from(const std::string& bytes) {
    int64_t numbers[kNumbers];
    std::memcpy(numbers, bytes.data(), sizeof(numbers));
    const auto length = static_cast<std::size_t>(numbers[3]);
    return {numbers[0] != 0, bytes.substr(sizeof(numbers), length),  numbers[1],
            numbers[2],      bytes.substr(sizeof(numbers) + length), numbers[4]};
  }

 private:
  static constexpr std::size_t kNumbers = 5;
};

/// "collective 3, barrier".
inline std::string in_words(int64_t number, const std::string& place) {
  return "collective " + std::to_string(number) + ", " + place;
}

/// Says what the reports of ranks that gave up tell of the cause, and no more than that: after a
/// lost link the ranks may be in one collective, or in neighbouring ones, and none of them is at
/// fault.
class MpiFindings {
 public:
  /// @param reports  by rank; that of this rank is among them
  /// @param rank     this rank
  /// @param size     number of ranks
  /// @param answer   how long this rank has waited for the reports of the others
  MpiFindings(const std::map<int, MpiReport>& reports, int rank, int size,
              std::chrono::milliseconds answer)
      : reports_(reports), mine_(reports.at(rank)), rank_(rank), size_(size), answer_(answer) {}

  std::string text() const {
    auto found = failures();
    if (found.empty()) found = silence();
    if (found.empty()) found = lost_messages();
    if (found.empty()) found = different_places();
    return found.empty() ? waits() : found;
  }

 private:
  std::string failures() const {
    std::string text;
    for (const auto& [rank, report] : reports_) {
      if (!report.failed || rank == rank_) continue;
      text +=
          (text.empty() ? "rank " : "; rank ") + std::to_string(rank) + " failed: " + report.place;
    }
    return text;
  }

  std::string silence() const {
    std::vector<int> silent;
    for (const auto rank : c10::irange(size_)) {
      if (reports_.count(rank) == 0) silent.push_back(rank);
    }
    if (silent.empty()) return "";
    const std::string them = silent.size() == 1 ? "it" : "each of them";
    return "no message from " + distributed::name_ranks(silent) + " for " +
           std::to_string(mine_.milliseconds + answer_.count()) + " ms, " +
           (mine_.before.empty() ? "and none before"
                                 : "since " + in_words(mine_.number - 1, mine_.before)) +
           ": " + them + " is dead, hangs or is busy with something else, or the link to " + them +
           " is down";
  }

  /// Some ranks wait in a collective that all others have completed.
  std::string lost_messages() const {
    std::vector<int> behind, ahead;
    const auto& last = std::min_element(reports_.begin(), reports_.end(), [](auto& a, auto& b) {
                         return a.second.number < b.second.number;
                       })->second;
    for (const auto& [rank, report] : reports_) {
      const bool waits = report.number == last.number && report.place == last.place;
      const bool completed = report.number == last.number + 1 && report.before == last.place;
      if (!waits && !completed) return "";
      (waits ? behind : ahead).push_back(rank);
    }
    if (ahead.empty()) return "";
    return distributed::name_ranks(behind) + (behind.size() == 1 ? " waits" : " wait") + " in " +
           in_words(last.number, last.place) + ", which " + distributed::name_ranks(ahead) +
           (ahead.size() == 1 ? " has" : " have") + " completed: messages to " +
           distributed::name_ranks(behind) + " were lost or are late";
  }

  std::string different_places() const {
    std::vector<std::string> places;  // by rank, since each has sent its report
    for (const auto& [rank, report] : reports_) {
      places.push_back(in_words(report.number, report.place));
    }
    const auto groups = distributed::group_by_value(places);
    if (groups.size() == 1) return "";
    std::string text;
    for (const auto i : c10::irange(std::size_t{1}, groups.size())) {
      text += (text.empty() ? "" : "; ") + are_in(groups[i], places);
    }
    return text + ", where " + are_in(groups.front(), places) +
           ": the ranks do different things, for example if one skips a step";
  }

  static std::string are_in(const std::vector<int>& ranks, const std::vector<std::string>& places) {
    return distributed::name_ranks(ranks) + (ranks.size() == 1 ? " is in " : " are in ") +
           places[static_cast<std::size_t>(ranks.front())];
  }

  /// All ranks are in one collective.
  std::string waits() const {
    const auto [least, most] = std::minmax_element(
        reports_.begin(), reports_.end(),
        [](auto& a, auto& b) { return a.second.milliseconds < b.second.milliseconds; });
    const auto shortest = least->second.milliseconds, longest = most->second.milliseconds;
    const auto limits = std::to_string(shortest) + " ms, rank " + std::to_string(most->first) +
                        " for " + std::to_string(longest) + " ms";
    // The collective would have ended when the last rank came, had messages been delivered.
    if (2 * shortest >= longest) {
      return "all ranks are in it, rank " + std::to_string(least->first) + " for " + limits +
             ": none of them came late, and messages between them were lost or are late";
    }
    return "rank " + std::to_string(least->first) + " came last: it has waited for " + limits +
           ": give a longer timeout if that is how it should be";
  }

  const std::map<int, MpiReport>& reports_;
  const MpiReport& mine_;
  int rank_;
  int size_;
  std::chrono::milliseconds answer_;
};

}  // namespace lawn::detail::mpi
