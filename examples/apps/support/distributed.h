// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>

#include "examples/apps/support/flags.h"
#include "examples/apps/support/ranks.h"

#ifdef LAWN_EXAMPLES_MPI
#include <lawn/distributed/mpi.h>

#include "examples/apps/support/mpi_ranks.h"
#include "examples/apps/support/output_folder.h"
#endif

namespace examples {

/// What a program that can train on several ranks takes from its command line.
struct RankOptions {
  bool distributed = false;
  double timeout = 300;

  void add_ranks(Flags& flags) {
    flags
        .add("distributed", &distributed,
             "train on all ranks that mpirun starts, each its own part of every batch; --threads 0 "
             "divides the machine's cores among them")
        .incidental();
    flags
        .add("timeout", &timeout,
             "seconds that a rank waits for the others, also for one that writes a checkpoint, "
             "before it ends with an error that names them")
        .range(0.1, 1e6)
        .incidental();
  }
};

/// CPU threads of a rank that leaves the choice to us: its share of the machine's cores, and no
/// more than torch would take, which knows of cores that a rank is bound to, and of
/// OMP_NUM_THREADS.
inline int threads_per_rank(int of_torch, int64_t cores, int ranks_here) {
  return std::max(1, std::min(of_torch, static_cast<int>(cores) / ranks_here));
}

/// What joins this process to others: with --distributed all that mpirun started. The first object
/// of `main`, so that what went wrong has been printed when it ends.
class Session {
 public:
  /// Runs `body` on the ranks and this one's device; rank 0 takes the output folder for all. If it
  /// fails on one rank, the others are told the reason. All but rank 0 are silent from here on,
  /// errors apart.
  /// @tparam Options  derived from RunOptions and RankOptions
  /// @return what `body` does
  /// @throws c10::Error for --distributed in a program without MPI; what `body` throws
  template <class Options, class Body>
  int run(const Options& options, const Body& body) {
    if (!options.distributed) return body(alone(), options.torch_device());
#ifdef LAWN_EXAMPLES_MPI
    session_.emplace();
    int rank_here = 0, ranks_here = 1;
    count_neighbours(rank_here, ranks_here);
    if (options.threads == 0) {
      at::set_num_threads(
          threads_per_rank(at::get_num_threads(), sysconf(_SC_NPROCESSORS_ONLN), ranks_here));
    }
    const at::Device device = options.torch_device(rank_here);
    lawn::MpiGroup group(lawn::MpiOptions().timeout(std::chrono::milliseconds(
                             static_cast<int64_t>(1e3 * options.timeout))),
                         MPI_COMM_WORLD, device);
    lawn::check_agreement(group, "--distributed", "options", options.job());
    MpiRanks ranks(group);
    if (!ranks.is_root()) std::cout.rdbuf(nullptr);
    std::string reason;
    try {
      std::optional<OutputFolder> folder;
      if (ranks.is_root()) folder.emplace(options.out);
      const int code = body(ranks, device);
      std::cout << std::flush;  // mpirun ends what is left of the ranks when the first one is done
      return code;
    } catch (const c10::Error& error) {
      reason = error.what_without_backtrace();
    } catch (const std::exception& error) {
      reason = error.what();
    }
    group.fail(reason);
    throw std::runtime_error("rank " + std::to_string(ranks.rank()) + ": " + reason);
#else
    TORCH_CHECK(false,
                "--distributed: expected a program that was built with MPI, got one without; "
                "install an MPI (Debian: libopenmpi-dev), configure anew with -DLAWN_MPI=ON and "
                "build again, or leave --distributed out");
#endif
  }

#ifdef LAWN_EXAMPLES_MPI
 private:
  /// The ranks on this machine, and which of them this one is.
  static void count_neighbours(int& rank, int& size) {
    MPI_Comm here = MPI_COMM_NULL;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
    MPI_Comm_rank(here, &rank);
    MPI_Comm_size(here, &size);
    MPI_Comm_free(&here);
  }

  std::optional<lawn::MpiSession> session_;
#endif
};

}  // namespace examples
