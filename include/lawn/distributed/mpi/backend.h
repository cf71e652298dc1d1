// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/view_as_real.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <mpi.h>
#include <torch/version.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <lawn/distributed/mpi/calls.h>
#include <lawn/distributed/mpi/engine.h>
#include <lawn/distributed/mpi/options.h>

namespace lawn::detail::mpi {

/// The work on which c10d waits; the engine completes it.
class MpiWork : public c10d::Work {
 public:
  MpiWork(int rank, c10d::OpType type, std::vector<at::Tensor> results)
      : Work(rank, type), results_(std::move(results)) {
    std::vector<c10::Device> devices;
    if (!results_.empty() && !results_.front().is_cpu()) devices = {results_.front().device()};
    future_ = c10::make_intrusive<c10::ivalue::Future>(
        c10::ListType::create(c10::TensorType::get()), std::move(devices));
  }

  std::vector<at::Tensor> result() override { return results_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

  void complete(const std::exception_ptr& error) {
    if (error) {
      future_->setError(error);
    } else {
      future_->markCompleted(c10::IValue(results_));
    }
    finish(error);
  }

 private:
  std::vector<at::Tensor> results_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

/// MPI as a backend of c10d, so that c10d's own `Reducer` runs on it. c10d refuses by name every
/// other collective (gather, send, all-to-all ...).
class MpiBackend : public c10d::Backend {
 public:
  MpiBackend(std::unique_ptr<MpiEngine> engine, bool cuda_aware)
      : Backend(engine->rank(), engine->size()),
        engine_(std::move(engine)),
        cuda_aware_(cuda_aware) {}

  // NOLINTNEXTLINE(readability-const-return-type): the base class's
  const std::string getBackendName() const override { return "lawn_mpi"; }
  MpiEngine& engine() { return *engine_; }
#if TORCH_VERSION_MINOR >= 8  // Backend has it
  void abort() override { engine_->fail("it aborted its process group"); }
#endif

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    const auto tensor = only(tensors, "allreduce");
    const auto values = tensor.is_complex() ? at::view_as_real(tensor) : tensor;
    const auto buffer = stage(values, mpi_sum_dtype(values.scalar_type()));
    const auto type = mpi_datatype(buffer.scalar_type());
    const auto op = mpi_op(options.reduceOp);
    return run(
        c10d::OpType::ALLREDUCE, MpiKind::kReduce, describe("all-reduce", tensor), tensors,
        buffer.numel(), bytes_of(buffer),
        [buffer, type, op](MPI_Comm comm, int64_t offset, int count, MPI_Request* request) {
          return MPI_Iallreduce(MPI_IN_PLACE, at_offset(buffer, offset), count, type, op, comm,
                                request);
        },
        [values, buffer] { unstage(values, buffer); });
  }

  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override {
    const auto tensor = only(tensors, "broadcast");
    const auto buffer = stage(tensor, tensor.scalar_type());
    const int root = static_cast<int>(options.rootRank);
    const bool mine = root == getRank();
    return run(
        c10d::OpType::BROADCAST, MpiKind::kBroadcast,
        describe("broadcast", tensor) + " from rank " + std::to_string(root), tensors,
        bytes_of(buffer), bytes_of(buffer),
        [buffer, root](MPI_Comm comm, int64_t offset, int count, MPI_Request* request) {
          return MPI_Ibcast(static_cast<char*>(buffer.data_ptr()) + offset, count, MPI_BYTE, root,
                            comm, request);
        },
        [tensor, buffer, mine] {
          if (!mine) unstage(tensor, buffer);
        });
  }

  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions&) override {
    const auto tensor = only(inputs, "allgather");
    TORCH_CHECK(outputs.size() == 1 && static_cast<int>(outputs[0].size()) == getSize(),
                "lawn::MpiGroup: allgather expected one list of ", getSize(), " outputs, got ",
                outputs.size(), " lists");
    const auto mine = stage(tensor, tensor.scalar_type());
    const auto bytes = bytes_of(mine);
    TORCH_CHECK(bytes <= kMostToGather, "lawn::MpiGroup: allgather expected at most ",
                kMostToGather, " bytes of each rank, got ", bytes, "; gather in parts");
    const auto in_place = rows_of(outputs[0], mine);
    const auto all =
        in_place.defined() ? in_place : at::empty({getSize(), mine.numel()}, mine.options());
    char* const into = static_cast<char*>(all.data_ptr());
    char* const my_place = into + bytes * getRank();
    if (!all.is_cpu()) {
      all[getRank()].copy_(mine.view({-1}));
      wait_for(all);
    } else if (my_place != mine.data_ptr()) {
      std::memcpy(my_place, mine.const_data_ptr(), static_cast<std::size_t>(bytes));
    }
    const auto count = static_cast<int>(bytes);
    return run(
        c10d::OpType::ALLGATHER, MpiKind::kGather, describe("all-gather", tensor), outputs[0], 1,
        bytes,
        [all, into, count](MPI_Comm comm, int64_t, int, MPI_Request* request) {
          return MPI_Iallgather(MPI_IN_PLACE, 0, MPI_BYTE, into, count, MPI_BYTE, comm, request);
        },
        [lists = outputs[0], all, copy = !in_place.defined()] {
          for (std::size_t i = 0; copy && i < lists.size(); ++i) {
            const auto part = all[static_cast<int64_t>(i)];
            lists[i].copy_(part.view(lists[i].sizes()));
          }
          wait_for(all);
        });
  }

  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions&) override {
    return run(
        c10d::OpType::BARRIER, MpiKind::kBarrier, "barrier", {}, 1, 0,
        [](MPI_Comm comm, int64_t, int, MPI_Request* request) {
          return MPI_Ibarrier(comm, request);
        },
        [] {});
  }

 private:
  /// MPI counts elements in an int.
  static constexpr int64_t kMostToGather = int64_t{1} << 30;

  static at::Tensor only(const std::vector<at::Tensor>& tensors, const char* what) {
    TORCH_CHECK(tensors.size() == 1, "lawn::MpiGroup: ", what, " expected one tensor, got ",
                tensors.size());
    TORCH_CHECK(tensors[0].layout() == at::kStrided, "lawn::MpiGroup: ", what,
                " expected a strided tensor, got layout ", tensors[0].layout(),
                "; call to_dense() first");
    return tensors[0].detach();
  }

  static std::string describe(const char* what, const at::Tensor& tensor) {
    return std::string(what) + " of " + std::to_string(tensor.numel()) + " " +
           c10::toString(tensor.scalar_type());
  }

  /// The first of `outputs`, if they lie one after the other in host memory and each has the dtype
  /// and size of `mine`; else undefined.
  static at::Tensor rows_of(const std::vector<at::Tensor>& outputs, const at::Tensor& mine) {
    const auto* next = static_cast<const char*>(outputs.front().const_data_ptr());
    for (const auto& output : outputs) {
      if (!output.is_cpu() || !output.is_contiguous() ||
          output.scalar_type() != mine.scalar_type() || output.numel() != mine.numel() ||
          output.const_data_ptr() != next) {
        return {};
      }
      next += bytes_of(output);
    }
    return outputs.front();
  }

  static int64_t bytes_of(const at::Tensor& buffer) {
    return buffer.numel() * buffer.element_size();
  }

  static void* at_offset(const at::Tensor& buffer, int64_t elements) {
    return static_cast<char*>(buffer.data_ptr()) + elements * buffer.element_size();
  }

  /// The values of `tensor` in memory that MPI can read and write: the tensor itself, if possible.
  /// Waits for the device of a tensor that is not on the host.
  at::Tensor stage(const at::Tensor& tensor, at::ScalarType dtype) const {
    auto values = (cuda_aware_ ? tensor : tensor.cpu()).to(dtype).contiguous();
    wait_for(values);
    return values;
  }

  static void wait_for(const at::Tensor& tensor) {
    if (tensor.is_cpu()) return;
    const c10::impl::VirtualGuardImpl guard(tensor.device().type());
    guard.getStream(tensor.device()).synchronize();
  }

  /// Copies the result out of `buffer`, if it is not the tensor itself. Waits for the device, on
  /// which a copy runs on this thread's stream: whoever waits for the work may read on another one.
  static void unstage(const at::Tensor& tensor, const at::Tensor& buffer) {
    if (buffer.is_alias_of(tensor)) return;
    tensor.copy_(buffer);
    wait_for(tensor);
  }

  c10::intrusive_ptr<c10d::Work> run(c10d::OpType type, MpiKind kind, std::string what,
                                     const std::vector<at::Tensor>& results, int64_t length,
                                     int64_t bytes,
                                     std::function<int(MPI_Comm, int64_t, int, MPI_Request*)> start,
                                     std::function<void()> finish) {
    auto work = c10::make_intrusive<MpiWork>(getRank(), type, results);
    engine_->run({kind, std::move(what), length, bytes, std::move(start),
                  [work, finish = std::move(finish)](std::exception_ptr error) {
                    if (!error) {
                      try {
                        finish();
                      } catch (const std::exception&) {
                        error = std::current_exception();
                      }
                    }
                    work->complete(error);
                  }});
    return work;
  }

  std::unique_ptr<MpiEngine> engine_;
  bool cuda_aware_;
};

}  // namespace lawn::detail::mpi
