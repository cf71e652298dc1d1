// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace examples {

/// The samples [begin, end).
struct Part {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
};

/// The processes, called ranks, that train one network together, each on its own part of every
/// batch. This class is one process alone; MpiRanks are several.
///
/// All ranks draw the same numbers for the whole batch and take the same steps, so that their
/// weights, generators and figures stay equal. A file that rank 0 saves therefore serves any number
/// of ranks.
class Ranks {
 public:
  Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  virtual ~Ranks() = default;

  /// This process, in [0, size()).
  virtual int64_t rank() const { return 0; }
  virtual int64_t size() const { return 1; }
  /// Prints and writes files; the others do not.
  bool is_root() const { return rank() == 0; }
  /// Whether what is printed goes to a terminal that can draw over its last line.
  virtual bool on_terminal() const { return isatty(STDOUT_FILENO) == 1; }

  /// This rank's part of some samples; those of all ranks follow each other, and differ by one at
  /// most in size. Some are empty where there are more ranks than samples.
  Part part(int64_t begin, int64_t end) const {
    const int64_t samples = end - begin;
    return {begin + samples * rank() / size(), begin + samples * (rank() + 1) / size()};
  }

  // Every rank calls these equally often, in the same order.

  /// Begins to train a network, which takes the weights of rank 0.
  /// @param run  what must be the same on all ranks, in lines
  /// @throws c10::Error on every rank if it is not: with the rank and the line
  virtual void begin(const torch::nn::Module& network, const std::string& run) {
    (void)network;
    (void)run;
  }

  /// A backward pass after which each rank has the gradient of the whole batch.
  /// @param loss     the mean over this rank's part; without a graph where that is empty
  /// @param samples  in this rank's part
  /// @param step     must be the same on all ranks
  virtual void backward(const at::Tensor& loss, int64_t samples, int64_t step) {
    (void)samples;
    (void)step;
    loss.backward();
  }

  /// Adds up a tensor of all ranks, in place.
  virtual void sum_(const at::Tensor& tensor) { (void)tensor; }

  /// Whether it holds on any rank.
  virtual bool any(bool here) { return here; }
};

/// One process.
inline Ranks& alone() {
  static Ranks ranks;
  return ranks;
}

}  // namespace examples
