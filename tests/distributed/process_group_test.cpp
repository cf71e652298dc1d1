// SPDX-License-Identifier: Apache-2.0
#include <lawn/distributed/process_group.h>

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/mpi.h>

#include "tests/support/refusal.h"

namespace {

using namespace lawn;
using lawn::testing::refusal;

/// A backend as NCCL is one: for one kind of device, and of one rank. It takes note of the devices
/// of what it is handed.
class OneDevice : public c10d::Backend {
 public:
  OneDevice() : Backend(0, 1) {}
  // NOLINTNEXTLINE(readability-const-return-type): the base class's
  const std::string getBackendName() const override { return "one_device"; }

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions&) override {
    return note(tensors);
  }
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions&) override {
    return note(tensors);
  }

  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions&) override {
    outputs[0][0].copy_(inputs[0]);
    return note(inputs);
  }

  std::vector<at::Device> devices;
  std::vector<std::vector<int64_t>> sizes;

 private:
  struct Done : c10d::Work {
    bool isCompleted() override { return true; }
    bool wait(std::chrono::milliseconds) override { return true; }
  };

  c10::intrusive_ptr<c10d::Work> note(const std::vector<at::Tensor>& tensors) {
    for (const auto& tensor : tensors) {
      devices.push_back(tensor.device());
      sizes.push_back(tensor.sizes().vec());
      EXPECT_TRUE(tensor.is_contiguous());
    }
    return c10::make_intrusive<Done>();
  }
};

// The meta device in a GPU's stead: c10d itself calls no backend for it.
TEST(ProcessGroupOfOneDevice, IsHandedTensorsOfItsDeviceAlone) {
  const auto tensor = torch::ones({2, 3});
  const auto there =
      lawn::detail::distributed::on_served_device(tensor, {torch::kMeta}, torch::kMeta);
  EXPECT_TRUE(there.is_meta());
  EXPECT_EQ(there.sizes(), tensor.sizes());
  EXPECT_TRUE(lawn::detail::distributed::on_served_device(there, {torch::kMeta}, torch::kMeta)
                  .is_same(there));
  // Where a further backend serves the host, nothing is moved.
  const std::vector<c10::Device> both = {torch::kMeta, torch::kCPU};
  EXPECT_TRUE(
      lawn::detail::distributed::on_served_device(tensor, both, torch::kMeta).is_same(tensor));
  const c10::Device first(torch::kCUDA, 0);
  EXPECT_TRUE(
      lawn::detail::distributed::on_served_device(there, {c10::Device(torch::kMeta, 1)}, first)
          .is_same(there))
      << "of whatever number";
}

// LibTorch says so: it has no collective of the meta device.
TEST(ProcessGroupOfOneDevice, IsHandedThemByEachCollective) {
  ProcessGroup ranks(c10::make_intrusive<OneDevice>(), torch::kMeta);
  EXPECT_TRUE(ranks.serves(torch::kMeta));
  EXPECT_FALSE(ranks.serves(torch::kCPU));
  const auto host = torch::ones({1, 2});
  for (const auto& collective : std::vector<std::function<void()>>{
           [&] { ranks.sum_(host); }, [&] { ranks.broadcast_(host, 0); },
           [&] { ranks.gather_(host); }, [&] { ranks.gather(host); }}) {
    const auto message = refusal(collective);
    EXPECT_NE(message.find("Meta"), std::string::npos) << message;
  }
}

TEST(ProcessGroupOfOneDevice, TrainsNoModelOnAnother) {
  ProcessGroup ranks(c10::make_intrusive<OneDevice>(), torch::kCPU);
  torch::nn::Linear model(3, 2);
  model->register_buffer("elsewhere", torch::ones({2}, torch::kMeta));
  const auto message = refusal([&] { DataParallel(*model, ranks); });
  EXPECT_NE(message.find("expected a model on cpu, the device of the ranks, got elsewhere on meta; "
                         "move it there first"),
            std::string::npos)
      << message;
}

TEST(ProcessGroupOfOneDevice, WorksInPlaceOnTheDeviceItServes) {
  const auto backend = c10::make_intrusive<OneDevice>();
  ProcessGroup ranks(backend, torch::kCPU);
  const auto tensor = torch::arange(6.0);
  ranks.sum_(tensor);  // over one rank
  EXPECT_TRUE(torch::equal(tensor, torch::arange(6.0)));
  ranks.sum_(torch::ones({2, 3}).t());
  ranks.broadcast_(torch::ones({}), 0);
  EXPECT_EQ(backend->devices, std::vector<at::Device>(3, torch::kCPU));
  EXPECT_EQ(backend->sizes, (std::vector<std::vector<int64_t>>{{6}, {3, 2}, {}}));
}

}  // namespace
