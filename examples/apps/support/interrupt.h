// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>

namespace examples {

namespace detail {
inline volatile std::sig_atomic_t interrupted = 0;
}  // namespace detail

/// From now on the first Ctrl-C (SIGINT), SIGTERM or SIGUSR1, which mpirun passes on, only raises a
/// flag, so that a run can finish its step and save; the second of a kind ends the program at once.
inline void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { detail::interrupted = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
}

/// Whether the flag is up.
inline bool interrupted() { return detail::interrupted != 0; }

}  // namespace examples
