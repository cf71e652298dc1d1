// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <list>
#include <map>
#include <string>
#include <vector>

#include <c10/util/irange.h>
#include <mpi.h>

#include <lawn/distributed/mpi/polling.h>
#include <lawn/distributed/mpi/reports.h>

namespace lawn::detail::mpi {

/// Tells ranks that give up about each other. A rank that fails, or has waited too long, sends its
/// report to every other rank. A waiting rank that finds such a report gives up as well and answers
/// with its own, unless the cause is a failure after the collective for which this rank waits. A
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
  /// Collectives that a rank had completed before it failed still complete everywhere: the error
  /// comes in the same collective on each rank, however late that rank is, and whoever tells it.
  bool ends(int64_t number) {
    receive();
    return told() && first() <= number;
  }

  /// The first collective that ends, by the reports of the others; 0 without any.
  int64_t first() const {
    int64_t least = told() ? std::numeric_limits<int64_t>::max() : 0;
    for (const auto& [rank, report] : reports_) {
      if (rank != rank_) least = std::min(least, report.first);
    }
    return least;
  }

  /// Sends this rank's report to all others, without waiting for them.
  void send(const MpiReport& mine) {
    reports_[rank_] = mine;
    sent_.push_back({mine.bytes(), {}});
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
      receive();
      heard = has_failed() || static_cast<int>(reports_.size()) == size_;
      sent = all_sent();
      pause();
    }
    return MpiFindings(reports_, rank_, size_, limit).text();
  }

 private:
  static constexpr int kTag = 1;

  /// Takes all reports that have come.
  void receive() {
    while (receive_one()) {
    }
  }

  bool receive_one() {
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
    reports_[status.MPI_SOURCE] = MpiReport::from(bytes);
    return true;
  }

  /// Whether another rank's report has come.
  bool told() const { return reports_.size() > reports_.count(rank_); }

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
