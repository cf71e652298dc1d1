// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/cuda_emulation/fiber.h"

/// The coordinates that CUDA's kernels see, those of the thread that runs.
struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 threadIdx;
inline dim3 blockIdx;
inline dim3 blockDim;
inline dim3 gridDim;

/// CUDA on the host, one block at a time, a fiber for each of its threads. A thread runs until it
/// must wait for others, then the next one in the chosen order does. What CUDA leaves undefined
/// ends the launch with an exception: a barrier or shuffle that not all threads reach, or not the
/// same one.
namespace cuda_emulation {

/// In which order threads, and blocks, get their turn.
enum class Order { kForward, kBackward, kShuffled };

constexpr int kWarpSize = 32;

/// Where in the source threads meet.
struct Site {
  const char* file = nullptr;
  int line = 0;
  int detail = 0;  ///< lane distance of a shuffle
  bool operator==(const Site& other) const {
    return line == other.line && detail == other.detail &&
           (file == other.file || std::strcmp(file, other.file) == 0);
  }
  std::string text() const { return std::string(file) + ":" + std::to_string(line); }
};

/// The linker's names for where __shared__ variables lie, if there are any.
extern "C" __attribute__((weak)) unsigned char __start_cuda_emulation_shared[];
extern "C" __attribute__((weak)) unsigned char __stop_cuda_emulation_shared[];

class Machine {
 public:
  Order thread_order = Order::kForward;
  Order block_order = Order::kForward;
  unsigned seed = 0;
  int launches = 0;
  std::int64_t blocks_run = 0;

  /// Another order of threads and blocks for each of a test's runs: forward, backward, shuffled.
  void order_for_run(unsigned run) {
    seed = run;
    thread_order = run == 0 ? Order::kForward : run == 1 ? Order::kBackward : Order::kShuffled;
    block_order = thread_order;
  }

  static Machine& get() {
    static Machine machine;
    return machine;
  }

  /// Runs `body` as every thread of every block.
  void launch(unsigned blocks, unsigned threads, const std::function<void()>& body) {
    if (threads == 0 || threads % kWarpSize != 0 || threads > 1024 || blocks == 0) {
      throw std::runtime_error("cuda emulation: blocks must be whole warps, at most 1,024 threads");
    }
    ++launches;
    random_.seed(seed);
    gridDim = dim3(blocks);
    blockDim = dim3(threads);
    body_ = &body;
    for (const unsigned block : ordered(blocks, block_order)) {
      blockIdx = dim3(block);
      run_block(threads);
      ++blocks_run;
    }
  }

  /// __syncthreads
  void barrier(Site site) {
    if (at_barrier_ == 0) barrier_site_ = site;
    if (!(barrier_site_ == site)) {
      stop("threads wait at different barriers", barrier_site_, site);
    }
    if (++at_barrier_ == count_) {
      at_barrier_ = 0;
      for (unsigned thread = 0; thread < count_; ++thread) wake(thread);
    } else {
      wait(Waits::kAtBarrier);
    }
  }

  /// Gives this lane's `bits` to its warp, and gets those of the lane at `distance` by xor.
  std::uint64_t shuffle_xor(std::uint64_t bits, Site site) {
    const unsigned lane = current_ % kWarpSize;
    const unsigned first = current_ - lane;
    Warp& warp = warps_[current_ / kWarpSize];
    // Two rounds can be under way: a lane that has read goes on and gives, others have yet to read.
    Round& round = warp.rounds[threads_[current_].shuffles++ % 2];
    if (round.arrived == 0) round.site = site;
    if (!(round.site == site)) {
      stop("lanes of a warp shuffle at different places", round.site, site);
    }
    round.bits[lane] = bits;
    if (++round.arrived == kWarpSize) {
      round.arrived = 0;
      for (unsigned i = first; i < first + kWarpSize; ++i) wake(i);
    } else {
      wait(Waits::kAtShuffle);
    }
    return round.bits[lane ^ static_cast<unsigned>(site.detail)];
  }

 private:
  enum class Waits { kNot, kAtBarrier, kAtShuffle, kDone };

  struct Thread {
    Fiber fiber;
    Waits waits = Waits::kDone;
    unsigned shuffles = 0;
    unsigned turn = 0;
  };

  struct Round {
    std::uint64_t bits[kWarpSize];
    int arrived = 0;
    Site site;
  };

  struct Warp {
    Round rounds[2];
  };

  std::vector<unsigned> ordered(unsigned count, Order order) {
    std::vector<unsigned> all(count);
    std::iota(all.begin(), all.end(), 0U);
    if (order == Order::kBackward) std::reverse(all.begin(), all.end());
    if (order == Order::kShuffled) std::shuffle(all.begin(), all.end(), random_);
    return all;
  }

  void run_block(unsigned threads) {
    if (count_ != threads) {
      count_ = threads;
      threads_ = std::make_unique<Thread[]>(threads);
      for (unsigned i = 0; i < count_; ++i) threads_[i].fiber.prepare(&Machine::thread_main);
    }
    warps_.assign(threads / kWarpSize, Warp{});
    turns_ = ordered(threads, thread_order);
    ready_.assign(threads / kWarpSize, 0);
    at_barrier_ = 0;
    for (unsigned turn = 0; turn < count_; ++turn) {
      Thread& thread = threads_[turns_[turn]];
      thread.turn = turn;
      thread.shuffles = 0;
      wake(turns_[turn]);
    }
    spoil_shared_memory();
    enter(turns_[0], program_);
    const std::string failure = failed();
    if (failure.empty()) return;
    // Fibers were left in the middle of things: the next launch makes new ones.
    count_ = 0;
    threads_.reset();
    throw std::runtime_error("cuda emulation: " + failure);
  }

  /// What went wrong with the block that has just ended.
  std::string failed() {
    if (stopped_ != nullptr) {
      return std::exchange(stopped_, nullptr) + (": " + sites_[0].text()) + " and " +
             sites_[1].text();
    }
    const auto count = [&](Waits kind) {
      return std::count_if(threads_.get(), threads_.get() + count_,
                           [&](const Thread& thread) { return thread.waits == kind; });
    };
    if (count(Waits::kDone) == static_cast<std::ptrdiff_t>(count_)) return {};
    return std::to_string(count(Waits::kAtBarrier)) + " threads wait at a barrier, " +
           std::to_string(count(Waits::kAtShuffle)) + " at a shuffle, " +
           std::to_string(count(Waits::kDone)) + " have returned";
  }

  /// Shared memory holds nothing that a block may rely on.
  static void spoil_shared_memory() {
    if (__start_cuda_emulation_shared == nullptr) return;
    std::memset(
        __start_cuda_emulation_shared, 0xff,
        static_cast<std::size_t>(__stop_cuda_emulation_shared - __start_cuda_emulation_shared));
  }

  static void thread_main() {
    Machine& machine = get();
    for (;;) {
      (*machine.body_)();
      machine.wait(Waits::kDone);
    }
  }

  void wake(unsigned thread) {
    threads_[thread].waits = Waits::kNot;
    const unsigned turn = threads_[thread].turn;
    ready_[turn / kWarpSize] |= 1U << turn % kWarpSize;
  }

  /// Leaves the thread that runs until it is woken, for the next in turn that can run.
  void wait(Waits why) {
    Thread& mine = threads_[current_];
    mine.waits = why;
    ready_[mine.turn / kWarpSize] &= ~(1U << mine.turn % kWarpSize);
    const auto words = static_cast<unsigned>(ready_.size());
    unsigned word = mine.turn / kWarpSize;
    const std::uint32_t behind = ~0U << mine.turn % kWarpSize;
    std::uint32_t ready = ready_[word] & behind;
    for (unsigned i = 0; ready == 0 && i < words; ++i) {
      word = word + 1 == words ? 0 : word + 1;
      ready = ready_[word];
    }
    if (ready != 0) {
      enter(turns_[word * kWarpSize + static_cast<unsigned>(__builtin_ctz(ready))], mine.fiber);
      return;
    }
    // Nobody can run: the block is done, or stuck. Comes back as a thread of the next block.
    mine.fiber.switch_to(program_);
  }

  /// Ends the launch. A fiber that is left for good must own nothing: no text is made here.
  [[noreturn]] void stop(const char* what, Site one, Site other) {
    stopped_ = what;
    sites_[0] = one;
    sites_[1] = other;
    threads_[current_].fiber.switch_to(program_);
    __builtin_abort();
  }

  void enter(unsigned thread, Fiber& from) {
    current_ = thread;
    threadIdx = dim3(thread, 0, 0);
    from.switch_to(threads_[thread].fiber);
  }

  const std::function<void()>* body_ = nullptr;
  Fiber program_;
  std::unique_ptr<Thread[]> threads_;
  unsigned count_ = 0;
  std::vector<Warp> warps_;
  std::vector<unsigned> turns_;       // threads
  std::vector<std::uint32_t> ready_;  // a bit for each turn
  unsigned current_ = 0;
  std::size_t at_barrier_ = 0;
  Site barrier_site_;
  const char* stopped_ = nullptr;
  Site sites_[2];
  std::mt19937 random_;
};

}  // namespace cuda_emulation
