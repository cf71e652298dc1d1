// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace lawn {

/// Interface to whatever joins several processes, the ranks: sums, copies and short texts.
///
///   sum_        x <- x_0 + x_1 + ... + x_(size-1)      the same bits on every rank
///   broadcast_  x <- x_root
///   gather      text -> (text_0, ..., text_(size-1))
///
/// Every rank calls the same functions in the same order; a call returns when its result is ready
/// (on a GPU: when the current stream may use it). lawn/distributed/mpi.h has an adapter for MPI,
/// lawn/distributed/process_group.h one for c10d (NCCL, Gloo).
/// @throws c10::Error from every function, if a rank does not take part, within the adapter's time
///         limit; the message names the rank and the reason as far as the adapter knows them. The
///         values of the tensor of that call are then undefined
class Collective {
 public:
  Collective() = default;
  Collective(const Collective&) = delete;
  Collective& operator=(const Collective&) = delete;
  Collective(Collective&&) = delete;
  Collective& operator=(Collective&&) = delete;
  virtual ~Collective() = default;

  /// Rank of this process, in [0, size()).
  virtual int rank() const = 0;
  /// Number of ranks, >= 1.
  virtual int size() const = 0;

  /// @param tensor  any dtype that can be added, any strides; the same shape and dtype on every
  ///                rank; changed in place
  virtual void sum_(const at::Tensor& tensor) = 0;

  /// @param tensor  any dtype; the same shape and dtype on every rank; changed in place
  /// @param root    the rank whose values all other ranks get
  virtual void broadcast_(const at::Tensor& tensor, int root) = 0;

  /// @param text  of any length, which may differ from rank to rank
  /// @return the texts of all ranks, by rank
  virtual std::vector<std::string> gather(const std::string& text) = 0;

  /// Tells the other ranks why this one cannot go on. The call in which they wait, or their next
  /// one, then ends with an error that gives the reason. This rank's later calls end with an error,
  /// too.
  virtual void fail(const std::string& reason) noexcept = 0;
};

}  // namespace lawn
