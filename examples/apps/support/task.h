// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <lawn/checkpoint.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <vector>

#include "examples/apps/support/ranks.h"

namespace examples {

/// What a network is trained for: its data, batches, loss and figures. The Trainer does the rest,
/// the same for all tasks.
class Task {
 public:
  /// What becomes of a batch.
  struct Batch {
    at::Tensor loss;  ///< mean over this rank's part, with a graph unless that is empty
    at::Tensor sums;  ///< float64, of what batch_columns() names, over the samples of that part
  };

  /// What an epoch ends with.
  struct Measured {
    std::vector<double> figures;  ///< of what columns() names
    double score = 0;             ///< by which the best epoch is told; the higher the better
    std::string text;             ///< for the line that is printed
  };

  virtual ~Task() = default;

  virtual torch::nn::Module& network() = 0;
  /// Those among whom each batch is divided.
  virtual Ranks& ranks() { return alone(); }
  /// Of the network and the data.
  virtual at::Device device() const = 0;
  /// What samples are called: "images".
  virtual std::string unit() const = 0;
  /// What an epoch is called: "task" where each has other data.
  virtual std::string epoch_name() const { return "epoch"; }
  /// Samples in an epoch.
  virtual int64_t size() const = 0;

  /// Called before begin_epoch(), for tasks that change from epoch to epoch.
  /// @param epoch  counted from 0
  /// @param anew   false for a run that goes on within the epoch, whose network and optimizer are
  ///               as they were
  virtual void enter_epoch(int64_t epoch, bool anew) {
    (void)epoch;
    (void)anew;
  }
  /// Draws the samples of an epoch and their order. For equal states of `generator` (a CPU's) it
  /// must draw the same: a run that goes on within an epoch has it drawn once more.
  virtual void begin_epoch(at::Generator& generator) = 0;
  /// Runs the network over this rank's part of the samples [begin, end) of the epoch.
  /// @param generator  for what else is drawn at random, batch by batch: on each rank the same, for
  ///                   all samples
  virtual Batch batch(int64_t begin, int64_t end, at::Generator& generator) = 0;
  /// Called after each step of the optimizer, for what follows the weights.
  virtual void after_step() {}
  /// Names of Batch::sums, the first of which is the loss.
  virtual std::vector<std::string> batch_columns() const = 0;

  /// Measures the network as it is. Called with the network in training mode, and leaves it so.
  virtual Measured measure() = 0;
  /// Names of Measured::figures.
  virtual std::vector<std::string> columns() const = 0;

  /// Adds what it gathers in an epoch, beside the sums of batches, to a checkpoint.
  virtual void add_to(lawn::Checkpoint& checkpoint) { (void)checkpoint; }
};

}  // namespace examples
