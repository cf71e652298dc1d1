// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <c10/util/Exception.h>
#include <mpi.h>

#include <lawn/distributed/mpi/calls.h>
#include <lawn/distributed/mpi/faults.h>
#include <lawn/distributed/mpi/options.h>
#include <lawn/distributed/mpi/polling.h>
#include <lawn/distributed/mpi/reports.h>

namespace lawn::detail::mpi {

/// Kind of a collective. Each kind has its own communicator: if ranks do different things, their
/// messages do not meet, and the time limit shows it.
enum class MpiKind { kReduce, kBroadcast, kGather, kBarrier };
constexpr int kMpiKinds = 4;

/// One collective, as the engine runs it.
struct MpiTask {
  MpiKind kind = MpiKind::kBarrier;
  /// Text for messages, the same on every rank: "all-reduce of 10 Float in step 3".
  std::string what;
  /// Number of elements; more than `kPiece` take several calls of `start`.
  int64_t length = 0;
  /// Number of bytes that each rank sends.
  int64_t bytes = 0;
  /// Starts the non-blocking collective on elements [offset, offset + count).
  std::function<int(MPI_Comm, int64_t offset, int count, MPI_Request*)> start;
  /// Called once, on the engine's thread, with null or the error.
  std::function<void(std::exception_ptr)> done;

  /// Elements of a piece. With pieces that fit a cache, sums of tens of megabytes took less than
  /// half the time.
  static constexpr int64_t kPiece = int64_t{1} << 20;
  /// Number of bytes from which on the ranks meet at a barrier before they begin.
  static constexpr int64_t kLarge = int64_t{1} << 16;
};

/// Runs MPI's non-blocking collectives one after the other on a thread of its own, and polls them
/// against a time limit: the backward pass goes on meanwhile, and no rank waits for ever. After an
/// error the engine runs nothing more. It keeps the memory into which MPI may still write until the
/// program ends, and MPI must not be finalized (`failed`).
class MpiEngine {
 public:
  MpiEngine(MPI_Comm parent, const MpiOptions& options) : options_(options) {
    options_.validate();
    int provided = 0, initialized = 0;
    MPI_Initialized(&initialized);
    check_not_finalized();
    TORCH_CHECK(initialized != 0,
                "lawn::MpiGroup: expected an initialized MPI, got none; have a lawn::MpiSession in "
                "main, before the group");
    MPI_Query_thread(&provided);
    TORCH_CHECK(provided >= MPI_THREAD_SERIALIZED,
                "lawn::MpiGroup: expected MPI_THREAD_SERIALIZED or more, got level ", provided,
                "; initialize with MPI_Init_thread, or by a lawn::MpiSession");
    for (MPI_Comm& comm : state_->comms) comm = duplicate(parent);
    state_->faults = std::make_unique<MpiFaults>(state_->fault_comm = duplicate(parent));
    MPI_Comm_rank(state_->fault_comm, &rank_);
    MPI_Comm_size(state_->fault_comm, &size_);
    thread_ = std::thread([this] { work(); });
  }
  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  /// Waits until every rank destroys its engine. If an exception is the cause, this rank tells the
  /// others and does not wait.
  ~MpiEngine() {
    if (mpi_finalized()) {
      warn(finalized_error());
    } else if (std::uncaught_exceptions() > 0) {
      fail("it ended by an exception, of which its own output tells");
    } else if (!over()) {
      run({MpiKind::kBarrier, "the end of the work", 1, 0,
           [](MPI_Comm comm, int64_t, int, MPI_Request* request) {
             return MPI_Ibarrier(comm, request);
           },
           [](const std::exception_ptr& error) { warn(error); }});
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ended_ = true;
    }
    wake_.notify_all();
    thread_.join();
    if (error_) {
      failed() = true;
      (void)state_.release();  // MPI may still hold pointers into it
    } else if (!mpi_finalized()) {
      for (MPI_Comm& comm : state_->comms) MPI_Comm_free(&comm);
      MPI_Comm_free(&state_->fault_comm);
    }
  }

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// Appends a collective; `done` is called when it ends, or at once if the engine has failed.
  void run(MpiTask task) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (error_ || mpi_finalized()) {
      const auto error = error_ ? error_ : finalized_error();
      lock.unlock();
      return task.done(error);
    }
    if (step_) task.what += " in step " + std::to_string(*step_);
    state_->tasks.push_back(std::move(task));
    lock.unlock();
    wake_.notify_all();
  }

  /// The step of training to which the collectives to come belong, for messages.
  void enter_step(int64_t step) {
    const std::lock_guard<std::mutex> lock(mutex_);
    step_ = step;
  }

  /// Lets this rank's later collectives end with an error, and those of the other ranks with an
  /// error that gives the reason.
  void fail(const std::string& reason) noexcept {
    try {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (error_ || !reason_.empty() || mpi_finalized()) return;
      // First of all: the others end when they are told, and mpirun then kills this rank, too.
      TORCH_WARN("lawn::MpiGroup: rank ", rank_, " failed: ", reason);
      reason_ = reason.empty() ? "an error without a text" : reason;
    } catch (const std::exception&) {  // without memory the others run into their time limit
      return;
    }
    wake_.notify_all();
  }

  /// Whether an engine of this process has failed, so that MPI_Finalize would wait for ever.
  static bool& failed() {
    static bool failed = false;
    return failed;
  }

 private:
  using Clock = std::chrono::steady_clock;

  struct State {
    std::array<MPI_Comm, kMpiKinds> comms{};
    MPI_Comm fault_comm = MPI_COMM_NULL;
    MPI_Request request = MPI_REQUEST_NULL;
    std::deque<MpiTask> tasks;
    std::unique_ptr<MpiFaults> faults;
  };

  static void warn(const std::exception_ptr& error) {
    if (!error) return;
    try {
      std::rethrow_exception(error);
    } catch (const c10::Error& e) {
      TORCH_WARN(e.what_without_backtrace());
    } catch (const std::exception& e) {
      TORCH_WARN(e.what());
    }
  }

  MPI_Comm duplicate(MPI_Comm parent) {
    // Only errors in the duplication run the parent's handler, which ends the program.
    MPI_Comm copy = MPI_COMM_NULL;
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Comm_idup(parent, &copy, &request), "MPI_Comm_idup");
    const auto end = Clock::now() + options_.timeout();
    PollingPause pause;
    for (int flag = 0; flag == 0; pause()) {
      check_mpi(MPI_Test(&request, &flag, MPI_STATUS_IGNORE), "MPI_Comm_idup");
      if (flag == 0 && Clock::now() > end) {
        failed() = true;
        TORCH_CHECK(false, "lawn::MpiGroup: expected every rank to construct its group within ",
                    options_.timeout().count(), " ms, got no answer from at least one");
      }
    }
    check_mpi(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    return copy;
  }

  void work() {
    sleep_precisely();
    for (;;) {
      const MpiTask* next = nullptr;  // stays valid while `run` appends others
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return ended_ || !reason_.empty() || !state_->tasks.empty(); });
        if (reason_.empty() && state_->tasks.empty()) return;
        if (reason_.empty()) next = &state_->tasks.front();
      }
      std::exception_ptr error;
      if (next == nullptr || !reason().empty()) {
        error = give_up_by_itself(number_ + 1);
      } else {
        error = complete(*next);
      }
      if (error) return end(error);
      MpiTask task;
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        task = std::move(state_->tasks.front());
        state_->tasks.pop_front();
      }
      before_ = task.what;
      task.done(nullptr);
    }
  }

  bool over() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return error_ || !reason_.empty();
  }

  std::string reason() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return reason_;
  }

  /// Runs a collective to its end; null if it succeeds, otherwise the error.
  std::exception_ptr complete(const MpiTask& task) {
    ++number_;
    const MPI_Comm comm = state_->comms[static_cast<std::size_t>(task.kind)];
    const auto begin = Clock::now();
    const auto give_up = [&](const std::string& why) {
      const auto waited =
          std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count();
      state_->faults->send({false, task.what, waited, number_, before_, state_->faults->first()});
      return error("rank " + std::to_string(rank_) + " gave up in " + in_words(number_, task.what) +
                   ", after " + std::to_string(waited) + " ms" + why + ": " +
                   state_->faults->settle(options_.answer_time()));
    };
    const auto wait = [&](int code, auto pause) -> std::exception_ptr {
      for (int flag = 0; code == MPI_SUCCESS; pause()) {
        code = MPI_Test(&state_->request, &flag, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS || flag != 0) break;
        if (state_->faults->ends(number_)) return give_up(", since another rank did");
        if (!reason().empty()) return give_up_by_itself(number_);
        if (Clock::now() - begin > options_.timeout()) return give_up("");
      }
      return code == MPI_SUCCESS ? nullptr : give_up(" (" + mpi_error(code) + ")");
    };
    // MPI moves data while it is polled, some at a time. For large data, pauses between polls would
    // cost more than the transfer itself, and polling without pauses would waste the core while
    // other ranks have not come yet. Therefore the ranks first meet.
    const bool large = task.bytes >= MpiTask::kLarge;
    if (large) {
      if (auto error = wait(MPI_Ibarrier(comm, &state_->request), PollingPause())) return error;
    }
    for (int64_t offset = 0; offset < task.length; offset += MpiTask::kPiece) {
      const auto count = static_cast<int>(std::min(MpiTask::kPiece, task.length - offset));
      const int code = task.start(comm, offset, count, &state_->request);
      if (auto error = large ? wait(code, EagerPause()) : wait(code, PollingPause())) return error;
    }
    return nullptr;
  }

  /// @param number  number of the first collective that this rank does not complete
  std::exception_ptr give_up_by_itself(int64_t number) {
    state_->faults->send({true, reason(), 0, number, before_, number});
    state_->faults->settle(std::min(options_.answer_time(), kTelling));
    return error("rank " + std::to_string(rank_) + " failed: " + reason());
  }

  static std::exception_ptr error(const std::string& text) {
    try {
      TORCH_CHECK(false, "lawn::MpiGroup: ", text,
                  ". End the program and start it again from its last checkpoint");
    } catch (const c10::Error&) {
      return std::current_exception();
    }
  }

  static void check_not_finalized() {
    TORCH_CHECK(!mpi_finalized(),
                "lawn::MpiGroup: expected an MPI that is not finalized, got a call after "
                "MPI_Finalize; construct the group, and let it end, before MPI_Finalize");
  }
  static std::exception_ptr finalized_error() {
    try {
      check_not_finalized();
    } catch (const c10::Error&) {
      return std::current_exception();
    }
    return nullptr;
  }

  void end(const std::exception_ptr& error) {
    std::deque<MpiTask> open;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      error_ = error;
      open = state_->tasks;  // copied: MPI may still write into the first one's memory
    }
    for (auto& task : open) task.done(error);
  }

  /// Time that a failing rank allows for sending its reports.
  static constexpr std::chrono::milliseconds kTelling{500};

  MpiOptions options_;
  int rank_ = 0;
  int size_ = 1;
  std::unique_ptr<State> state_ = std::make_unique<State>();
  int64_t number_ = 0;
  /// What the last completed collective did.
  std::string before_;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool ended_ = false;
  std::optional<int64_t> step_;
  std::string reason_;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace lawn::detail::mpi
