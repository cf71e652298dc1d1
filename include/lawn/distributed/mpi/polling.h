// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

namespace lawn::detail::mpi {

/// The pause between two polls; waiting with a time limit needs polling. At first there are no
/// pauses, then each lasts an eighth of the time waited so far, which leaves the core to the
/// backward pass and to other ranks.
class PollingPause {
 public:
  void operator()() {
    const auto waited = std::chrono::steady_clock::now() - begin_;
    if (waited < kEager) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(waited / 8, kLongest));
    }
  }

 private:
  static constexpr std::chrono::microseconds kEager{50};
  static constexpr std::chrono::microseconds kLongest{200};
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// The pause between two polls for something that is sure to come soon.
struct EagerPause {
  void operator()() const { std::this_thread::yield(); }
};

/// Makes this thread's pauses end on time, not up to 50 us late, which is Linux's default.
inline void sleep_precisely() {
#if defined(__linux__)
  prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
#endif
}

}  // namespace lawn::detail::mpi
