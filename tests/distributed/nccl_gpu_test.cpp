// SPDX-License-Identifier: Apache-2.0
#include <lawn/distributed/process_group.h>

#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <lawn/distributed/data_parallel.h>

namespace {

using namespace lawn;

/// One rank with one GPU: whether calls reach NCCL, not whether several ranks agree.
class NcclGroup : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU that LibTorch can use";
    ranks.emplace(
        c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::HashStore>(), 0, 1),
        device);
  }

  const torch::Device device{torch::kCUDA, 0};
  std::optional<ProcessGroup> ranks;
};

TEST_F(NcclGroup, AddsBroadcastsAndGathers) {
  const auto tensor = torch::arange(6, torch::kFloat).view({2, 3}).to(device).t();
  ranks->sum_(tensor);
  ranks->broadcast_(tensor, 0);
  EXPECT_TRUE(torch::equal(tensor.cpu(), torch::arange(6, torch::kFloat).view({2, 3}).t()));
  EXPECT_EQ(ranks->gather("text"), std::vector<std::string>{"text"});
  const auto on_the_host = torch::arange(3, torch::kFloat).view({1, 3});  // NCCL serves GPUs alone
  ranks->sum_(on_the_host);
  ranks->broadcast_(on_the_host, 0);
  ranks->gather_(on_the_host);
  EXPECT_TRUE(torch::equal(on_the_host, torch::arange(3, torch::kFloat).view({1, 3})));
  EXPECT_TRUE(torch::equal(ranks->gather(on_the_host)[0], on_the_host));
}

TEST_F(NcclGroup, TrainsLikeOneProcess) {
  torch::manual_seed(1);
  torch::nn::Linear model(5, 3);
  model->to(device);
  const auto x = torch::randn({4, 5}, device);
  model->forward(x).square().mean().backward();
  const auto expected = model->weight.grad().clone();
  model->zero_grad();
  DataParallel parallel(*model, *ranks);
  parallel.backward(model->forward(x).square().mean(), 4);
  EXPECT_TRUE(torch::allclose(model->weight.grad(), expected));
}

}  // namespace
