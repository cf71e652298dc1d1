// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <c10/util/irange.h>
#include <mpi.h>

#include <lawn/distributed/agreement.h>
#include <lawn/distributed/mpi/polling.h>

namespace lawn::detail::mpi {

/// The report of a rank that gives up.
struct MpiReport {
  /// Whether the rank itself is the cause; otherwise it waits for others.
  bool failed = false;
  /// The rank's collective (number and kind, the same on all ranks that wait for each other). If
  /// the rank failed: the reason.
  std::string place;
  /// How long it has waited there.
  int64_t milliseconds = 0;
  /// Number of the rank's first collective that it does not complete.
  int64_t number = 0;
};

/// Tells ranks that give up about each other. A rank that fails, or has waited too long, sends its
/// report to every other rank. A waiting rank that finds such a report gives up as well and answers
/// with its own, unless the sender failed only after the collective for which this rank waits. A
/// rank that does not answer is dead, hangs or is busy with something else. Nothing is sent while
/// all goes well.
class MpiFaults {
 public:
  /// @param comm  communicator for reports alone, which returns errors
  explicit MpiFaults(MPI_Comm comm) : comm_(comm) {
    MPI_Comm_rank(comm, &rank_);
    MPI_Comm_size(comm, &size_);
  }

  /// Whether another rank has given up, so that this one must give up in its collective `number`.
  /// Collectives that the other rank had completed before it failed still complete everywhere: the
  /// error comes in the same collective on each rank, however late that rank is.
  bool ends(int64_t number) {
    while (receive()) {
    }
    for (const auto& [rank, report] : reports_) {
      if (rank != rank_ && (!report.failed || report.number <= number)) return true;
    }
    return false;
  }

  /// Sends this rank's report to all others, without waiting for them.
  void send(const MpiReport& mine) {
    reports_[rank_] = mine;
    std::string bytes(kHead, mine.failed ? '1' : '0');
    std::memcpy(bytes.data() + 1, &mine.milliseconds, sizeof(int64_t));
    std::memcpy(bytes.data() + 1 + sizeof(int64_t), &mine.number, sizeof(int64_t));
    sent_.push_back({bytes + mine.place, {}});
    auto& [message, requests] = sent_.back();
    for (const auto other : c10::irange(size_)) {
      if (other == rank_) continue;
      MPI_Request request = MPI_REQUEST_NULL;
      // Sending to a rank that is gone may fail: the other ranks must get the report all the same.
      MPI_Isend(message.data(), static_cast<int>(message.size()), MPI_BYTE, other, kTag, comm_,
                &request);
      requests.push_back(request);
    }
  }

  /// Collects the other ranks' reports until the cause is clear, at most for `limit`, and describes
  /// what happened. Waits just as long for this rank's own sends.
  std::string settle(std::chrono::milliseconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    PollingPause pause;
    bool sent = false, heard = false;
    while (!(sent && heard) && std::chrono::steady_clock::now() < end) {
      while (receive()) {
      }
      heard = has_failed() || static_cast<int>(reports_.size()) == size_;
      sent = all_sent();
      pause();
    }
    return explain(limit);
  }

 private:
  static constexpr int kTag = 1;
  /// Number of bytes of a report before its place.
  static constexpr std::size_t kHead = 1 + 2 * sizeof(int64_t);

  bool receive() {
    int flag = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, kTag, comm_, &flag, &status) != MPI_SUCCESS || flag == 0) {
      return false;
    }
    int count = 0;
    MPI_Get_count(&status, MPI_BYTE, &count);
    std::string bytes(static_cast<std::size_t>(count), '\0');
    if (MPI_Recv(bytes.data(), count, MPI_BYTE, status.MPI_SOURCE, kTag, comm_,
                 MPI_STATUS_IGNORE) != MPI_SUCCESS) {
      return false;
    }
    MpiReport report;
    report.failed = bytes[0] == '1';
    std::memcpy(&report.milliseconds, bytes.data() + 1, sizeof(int64_t));
    std::memcpy(&report.number, bytes.data() + 1 + sizeof(int64_t), sizeof(int64_t));
    report.place = bytes.substr(kHead);
    reports_[status.MPI_SOURCE] = report;
    return true;
  }

  bool has_failed() const {
    for (const auto& [rank, report] : reports_) {
      if (report.failed && rank != rank_) return true;
    }
    return false;
  }

  bool all_sent() {
    for (auto& [message, requests] : sent_) {
      for (auto& request : requests) {
        int flag = 0;
        if (request == MPI_REQUEST_NULL) continue;
        if (MPI_Test(&request, &flag, MPI_STATUS_IGNORE) == MPI_SUCCESS && flag == 0) return false;
      }
    }
    return true;
  }

  std::string explain(std::chrono::milliseconds limit) const {
    std::string text;
    for (const auto& [rank, report] : reports_) {
      if (report.failed && rank != rank_) {
        text += (text.empty() ? "rank " : "; rank ") + std::to_string(rank) +
                " failed: " + report.place;
      }
    }
    if (!text.empty()) return text;

    std::vector<int> silent, waiting;
    std::vector<std::string> places;
    int last = rank_;
    for (const auto rank : c10::irange(size_)) {
      const auto found = reports_.find(rank);
      if (found == reports_.end()) {
        silent.push_back(rank);
        continue;
      }
      waiting.push_back(rank);
      places.push_back(found->second.place);
      if (found->second.milliseconds < reports_.at(last).milliseconds) last = rank;
    }
    if (!silent.empty()) {
      return distributed::name_ranks(silent) + (silent.size() == 1 ? " has" : " have") +
             " not come, and did not answer within " + std::to_string(limit.count()) +
             " ms: dead, hanging or busy with something else";
    }
    const auto groups = distributed::group_by_value(places);
    if (groups.size() == 1) {
      return "rank " + std::to_string(last) + " came last, after " +
             std::to_string(reports_.at(last).milliseconds) +
             " ms less of waiting than others: give a longer timeout if that is how it should be";
    }
    for (const auto i : c10::irange(std::size_t{1}, groups.size())) {
      const auto place = places[static_cast<std::size_t>(groups[i].front())];
      text += (text.empty() ? "" : "; ") + distributed::name_ranks(groups[i]) +
              (groups[i].size() == 1 ? " is" : " are") + " in " + place;
    }
    return text + ", where " + distributed::name_ranks(groups.front()) +
           (groups.front().size() == 1 ? " is" : " are") + " in " +
           places[static_cast<std::size_t>(groups.front().front())] +
           ": a step was skipped, or the ranks do different things";
  }

  struct Sent {
    std::string message;
    std::vector<MPI_Request> requests;
  };

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::map<int, MpiReport> reports_;
  /// A list, since MPI holds pointers into it.
  std::list<Sent> sent_;
};

}  // namespace lawn::detail::mpi
