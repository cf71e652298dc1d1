// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <lawn/archive/copy_values.h>
#include <lawn/distributed/c10d_versions.h>
#include <lawn/distributed/collective.h>

namespace lawn {

namespace detail::distributed {

/// Whether `device` is of a kind that is among `served`.
inline bool serves(const std::vector<c10::Device>& served, c10::Device device) {
  const auto same = [&](c10::Device other) { return other.type() == device.type(); };
  return std::any_of(served.begin(), served.end(), same);
}

/// `tensor` on a device that a group's backends serve: the tensor itself if they serve its kind of
/// device, else a copy on `device`, which they serve.
inline at::Tensor on_served_device(const at::Tensor& tensor, const std::vector<c10::Device>& served,
                                   c10::Device device) {
  return serves(served, tensor.device()) ? tensor : tensor.to(device);
}

}  // namespace detail::distributed

/// A c10d process group as a `Collective`: NCCL, Gloo, or MPI through lawn/distributed/mpi.h.
///
///   auto store = c10::make_intrusive<c10d::TCPStore>(...);
///   lawn::ProcessGroup ranks(c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size),
///                            c10::Device(c10::kCUDA, local_rank));
///
/// Tensors on a device for which the group has no backend go through `device`, except in
/// `begin_gather`: with NCCL alone, for example, a number on the host. Time limits and error
/// messages are the backend's own: NCCL names no rank.
/// @note none of this has run with NCCL on several GPUs
class ProcessGroup : public Collective {
 public:
  /// @param backend  a backend that sums and copies tensors on `device`
  /// @param device   the device of `DataParallel`'s weights; the texts of `gather`, and tensors of
  ///                 devices that the backend does not serve, are copied to it
  template <class Backend, std::enable_if_t<std::is_base_of_v<c10d::Backend, Backend>, int> = 0>
  ProcessGroup(const c10::intrusive_ptr<Backend>& backend, c10::Device device) : device_(device) {
    TORCH_CHECK(backend, "lawn::ProcessGroup: expected a backend, got none; construct one first");
    group_ = c10::make_intrusive<c10d::ProcessGroup>(backend->getRank(), backend->getSize());
    add(backend, device.type());
  }

  /// @param group   with a backend for `device`
  /// @param device  as above
  ProcessGroup(c10::intrusive_ptr<c10d::ProcessGroup> group, c10::Device device)
      : group_(std::move(group)), device_(device) {
    TORCH_CHECK(group_, "lawn::ProcessGroup: expected a process group, got none");
  }

  int rank() const override { return group_->getRank(); }
  int size() const override { return group_->getSize(); }

  void sum_(const at::Tensor& tensor) override {
    in_place(tensor, [&](std::vector<at::Tensor>& flat) { group_->allreduce(flat)->wait(); });
  }

  void broadcast_(const at::Tensor& tensor, int root) override {
    TORCH_CHECK(root >= 0 && root < size(),
                "lawn::ProcessGroup: broadcast_ expected a root in [0, ", size(), "), got ", root);
    c10d::BroadcastOptions options;
    options.rootRank = root;
    in_place(tensor,
             [&](std::vector<at::Tensor>& flat) { group_->broadcast(flat, options)->wait(); });
  }

  std::vector<std::string> gather(const std::string& text) override {
    const auto lengths =
        gather(at::empty({1}, at::kLong).fill_(static_cast<int64_t>(text.size())).to(device_));
    int64_t longest = 1;
    for (const auto& length : lengths) longest = std::max(longest, length.item<int64_t>());
    auto padded = at::zeros({longest}, at::kByte);
    std::memcpy(padded.data_ptr(), text.data(), text.size());
    std::vector<std::string> texts;
    const auto gathered = gather(padded.to(device_));
    for (std::size_t i = 0; i < gathered.size(); ++i) {
      const auto bytes = gathered[i].cpu();
      texts.emplace_back(static_cast<const char*>(bytes.data_ptr()),
                         static_cast<std::size_t>(lengths[i].item<int64_t>()));
    }
    return texts;
  }

  /// Aborts the backend; the other ranks do not learn the reason. In LibTorch 2.6 and older a
  /// backend cannot be aborted: the other ranks wait until their time limit.
  void fail(const std::string& reason) noexcept override {
    (void)reason;
    try {
      detail::distributed::abort_backend(*group_->getBackend(device_.type()), 0);
    } catch (const std::exception&) {  // this rank is about to end with an error in any case
    }
  }

  /// Tells the group to which step of training its next collectives belong, for its error messages.
  /// `DataParallel` calls it; a group that prints no steps ignores it.
  virtual void enter_step(int64_t step) { (void)step; }

  /// For `c10d::Reducer` and other parts of c10d.
  const c10::intrusive_ptr<c10d::ProcessGroup>& group() const { return group_; }
  /// The device on which the group adds tensors.
  c10::Device device() const { return device_; }
  /// Whether a backend of the group takes tensors on such a device.
  bool serves(c10::Device device) const {
    return detail::distributed::serves(group_->getDeviceTypes(), device);
  }

  /// Gives every rank, in place, the row r of each rank r.
  /// @param rows  [size(), ...], contiguous; the same shape and dtype on every rank
  void gather_(const at::Tensor& rows) {
    TORCH_CHECK(rows.dim() > 0 && rows.size(0) == size() && rows.is_contiguous(),
                "lawn::ProcessGroup: gather_ expected a contiguous tensor of ", size(),
                " rows, one for each rank, got sizes ", rows.sizes(), ", strides ", rows.strides());
    in_place(rows, [&](std::vector<at::Tensor>& all) {
      std::vector<at::Tensor> inputs{all[0][rank()]};
      std::vector<std::vector<at::Tensor>> outputs{all[0].unbind(0)};
      group_->allgather(outputs, inputs)->wait();
    });
  }

  /// The values of all ranks, by rank. The tensor has the same shape and dtype on each rank.
  std::vector<at::Tensor> gather(const at::Tensor& mine) {
    std::vector<at::Tensor> values;
    begin_gather(on_served_device(mine), values)->wait();
    for (auto& value : values) value = value.to(mine.device());
    return values;
  }

  /// The same without waiting.
  /// @param mine    on a device that the group serves
  /// @param values  is set to those of all ranks, which are valid when the work is done
  c10::intrusive_ptr<c10d::Work> begin_gather(const at::Tensor& mine,
                                              std::vector<at::Tensor>& values) {
    std::vector<at::Tensor> inputs{mine};
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int i = 0; i < size(); ++i) outputs[0].push_back(at::empty_like(mine));
    values = outputs[0];
    return group_->allgather(outputs, inputs);
  }

 protected:
  /// Lets `backend` serve one more kind of device.
  void add(const c10::intrusive_ptr<c10d::Backend>& backend, c10::DeviceType type) {
    detail::distributed::add_backend(*group_, type, backend, 0);
  }

 private:
  at::Tensor on_served_device(const at::Tensor& tensor) const {
    return detail::distributed::on_served_device(tensor, group_->getDeviceTypes(), device_);
  }

  /// Runs `action` on a contiguous copy, if needed, and copies the result back. Backends take only
  /// contiguous tensors on their own device, detached from autograd.
  template <class Action>
  void in_place(const at::Tensor& tensor, const Action& action) const {
    TORCH_CHECK(tensor.layout() == at::kStrided,
                "lawn::ProcessGroup: expected a strided tensor, got layout ", tensor.layout(),
                "; call to_dense() first");
    const auto values = tensor.detach();
    std::vector<at::Tensor> flat{on_served_device(values).contiguous()};
    action(flat);
    if (!flat[0].is_same(values)) detail::archive::copy_values(values, flat[0]);
  }

  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  c10::Device device_;
};

}  // namespace lawn
