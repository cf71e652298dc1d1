// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <mpi.h>

#include <lawn/distributed/mpi/backend.h>
#include <lawn/distributed/mpi/calls.h>
#include <lawn/distributed/mpi/engine.h>
#include <lawn/distributed/mpi/options.h>
#include <lawn/distributed/process_group.h>

namespace lawn {

/// Initializes MPI when it is constructed and finalizes it when it is destroyed, unless MPI was
/// initialized before. Make it the first object of `main`:
///
///   int main() {
///     const lawn::MpiSession session;
///     try {
///       lawn::MpiGroup ranks;                             // of MPI_COMM_WORLD
///       ...
///     } catch (const std::exception& error) {
///       std::cerr << error.what() << '\n';
///       return 1;
///     }
///   }
///
/// If a rank was lost, MPI is not finalized, since that would wait for the lost rank for ever:
/// returning from `main` ends this process, and mpirun ends the others.
class MpiSession {
 public:
  /// @throws c10::Error if MPI cannot be initialized for several threads, or is finalized already
  MpiSession() {
    TORCH_CHECK(!detail::mpi::mpi_finalized(),
                "lawn::MpiSession: expected an MPI that is not finalized, got one after "
                "MPI_Finalize, which cannot be initialized a second time; have one session, in "
                "main");
    int initialized = 0;
    MPI_Initialized(&initialized);
    if (initialized != 0) return;
    int provided = 0;
    detail::mpi::check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided),
                           "MPI_Init_thread");
    owner_ = true;
  }
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  ~MpiSession() {
    if (!owner_ || detail::mpi::mpi_finalized()) return;
    if (detail::mpi::MpiEngine::failed()) {
      // mpirun kills the other ranks when one ends with an error: give them time to print their
      // own.
      std::this_thread::sleep_for(std::chrono::seconds(1));
    } else {
      MPI_Finalize();
    }
  }

 private:
  bool owner_ = false;
};

/// All ranks of an MPI communicator, both as a `Collective` and as a c10d process group.
///
/// A collective runs on the group's own thread, by MPI's non-blocking calls, and is polled until
/// `timeout`. A rank that waits longer, or fails, tells the others. Within `timeout` +
/// `answer_time` each rank then ends with an error that says from which rank no message came and
/// since when, which one failed and why, or, if all answer, where each of them waits. If a rank
/// dies by a signal, or ends without telling the others, mpirun notices it first: it ends all ranks
/// and names that one, unless it is told not to (`--enable-recovery` of Open MPI).
///
/// Half and bfloat16 are added in float32. The bits of a sum are those of MPI's all-reduce. The MPI
/// standard recommends, but does not demand, that they are the same on each rank and in each run;
/// with Open MPI they are the same on all ranks.
///
/// With MPI_THREAD_SERIALIZED the program must not call MPI while a collective runs; `MpiSession`
/// asks for MPI_THREAD_MULTIPLE. For tensors on a device the group waits for the device; they go
/// through host memory, unless MPI is CUDA-aware and the option says so. The CUDA-aware part has
/// not run on a GPU.
class MpiGroup : public ProcessGroup {
 public:
  /// @param options  checked here
  /// @param comm     communicator, which is duplicated: the group's messages do not mix with those
  ///                 of the program
  /// @param device   device of `DataParallel`'s weights
  /// @throws c10::Error for options out of range, before MPI is initialized or after MPI_Finalize,
  ///         and if some rank does not construct its group in time. After MPI_Finalize every later
  ///         call throws, too
  explicit MpiGroup(const MpiOptions& options = {}, MPI_Comm comm = MPI_COMM_WORLD,
                    c10::Device device = c10::Device(c10::kCPU))
      : MpiGroup(c10::make_intrusive<detail::mpi::MpiBackend>(
                     std::make_unique<detail::mpi::MpiEngine>(comm, options), options.cuda_aware()),
                 device) {}

  /// Prints the reason before the other ranks are told: mpirun ends this one when they end.
  void fail(const std::string& reason) noexcept override { backend_->engine().fail(reason); }
  void enter_step(int64_t step) override { backend_->engine().enter_step(step); }

 private:
  MpiGroup(const c10::intrusive_ptr<detail::mpi::MpiBackend>& backend, c10::Device device)
      : ProcessGroup(backend, device), backend_(backend) {
    if (!device.is_cpu()) add(backend, c10::kCPU);
  }

  c10::intrusive_ptr<detail::mpi::MpiBackend> backend_;
};

}  // namespace lawn
