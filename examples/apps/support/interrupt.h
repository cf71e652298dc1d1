// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>

namespace examples {

namespace detail {
inline volatile std::sig_atomic_t interrupted = 0;

inline void interrupt(int) {
  interrupted = 1;
  // What reads the output, such as `tee`, may have got the signal, too, and have ended: what is
  // printed from here on must not end this process before it has saved.
  std::signal(SIGPIPE, SIG_IGN);
}
}  // namespace detail

/// From now on the first Ctrl-C (SIGINT), SIGTERM, SIGHUP (its terminal is gone) or SIGUSR1, which
/// mpirun passes on, only raises a flag, so that a run can finish its step and save; the second of
/// a kind ends the program at once. A SIGHUP that is ignored, as nohup has it, stays ignored. A
/// file that grows beyond the limit of its size (`ulimit -f`) is an error of what writes it, not
/// the signal that ends the program.
inline void catch_signals() {
  struct sigaction action = {};
  action.sa_handler = detail::interrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
  struct sigaction before = {};
  sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);
}

/// Whether the flag is up.
inline bool interrupted() { return detail::interrupted != 0; }

}  // namespace examples
