// SPDX-License-Identifier: Apache-2.0

#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/afan/freeze_batch_norm.h>

namespace {

using lawn::FreezeBatchNormStatistics;

std::vector<torch::Tensor> copies(const std::vector<torch::Tensor>& tensors) {
  std::vector<torch::Tensor> all;
  for (const auto& tensor : tensors) all.push_back(tensor.clone());
  return all;
}

void expect_equal(const torch::nn::Module& module, const std::vector<torch::Tensor>& expected,
                  const std::string& what) {
  const auto buffers = module.buffers();
  ASSERT_EQ(buffers.size(), expected.size()) << what;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    EXPECT_TRUE(torch::equal(buffers[i], expected[i])) << what << ", buffer " << i;
  }
}

/// One layer, with statistics that are not those of the start.
template <class Layer>
void expect_frozen(Layer layer, const torch::Tensor& x, const std::string& what) {
  layer->forward(x);
  const auto before = copies(layer->buffers());
  const auto tracked = layer->clone();
  auto twin = std::dynamic_pointer_cast<typename Layer::ContainedType>(tracked);
  const auto y = x * 2 + 1;
  const auto expected = twin->forward(y);
  {
    const FreezeBatchNormStatistics frozen(*layer);
    EXPECT_TRUE(torch::equal(layer->forward(y), expected)) << what << ": the batch's statistics";
    expect_equal(*layer, before, what + ", within");
  }
  expect_equal(*layer, before, what + ", afterwards");
  layer->forward(y);
  expect_equal(*layer, copies(twin->buffers()), what + " goes on as if nothing had been");
}

TEST(FreezeBatchNorm, KeepsStatisticsOfEveryLayerToTheBit) {
  torch::manual_seed(3);
  using namespace torch::nn;
  const auto line = torch::randn({4, 3, 5});
  const auto plane = torch::randn({4, 3, 5, 5});
  const auto cube = torch::randn({4, 3, 5, 5, 5});
  expect_frozen(BatchNorm1d(3), line, "BatchNorm1d");
  expect_frozen(BatchNorm2d(3), plane, "BatchNorm2d");
  expect_frozen(BatchNorm3d(3), cube, "BatchNorm3d");
  expect_frozen(BatchNorm2d(BatchNorm2dOptions(3).momentum(std::nullopt)), plane,
                "BatchNorm2d with a cumulative average");
  expect_frozen(BatchNorm2d(BatchNorm2dOptions(3).track_running_stats(false)), plane,
                "BatchNorm2d without statistics");
  expect_frozen(InstanceNorm1d(InstanceNorm1dOptions(3).track_running_stats(true)), line,
                "InstanceNorm1d");
  expect_frozen(InstanceNorm2d(InstanceNorm2dOptions(3).track_running_stats(true)), plane,
                "InstanceNorm2d");
  expect_frozen(InstanceNorm3d(InstanceNorm3dOptions(3).track_running_stats(true)), cube,
                "InstanceNorm3d");
  auto half = BatchNorm2d(3);
  half->to(torch::kBFloat16);
  expect_frozen(half, plane.to(torch::kBFloat16), "BatchNorm2d in bfloat16");
}

TEST(FreezeBatchNorm, KeepsThemAlsoFromNumbersThatAreNotFinite) {
  torch::nn::BatchNorm1d norm(2);
  const auto before = copies(norm->buffers());
  {
    const FreezeBatchNormStatistics frozen(*norm);
    norm->forward(torch::full({3, 2}, std::numeric_limits<float>::infinity()));
  }
  expect_equal(*norm, before, "a momentum of 0 would have left NaN");
}

TEST(FreezeBatchNorm, NestsAndTakesALayerThatIsThereTwice) {
  torch::nn::BatchNorm1d norm(2);
  torch::nn::Sequential net(norm, torch::nn::ReLU(), norm);
  const auto x = torch::randn({5, 2});
  net->forward(x);
  const auto before = copies(net->buffers());
  {
    const FreezeBatchNormStatistics outer(*net);
    {
      const FreezeBatchNormStatistics inner(*net);
      net->forward(x);
    }
    net->forward(x);
    expect_equal(*net, before, "after the inner guard");
  }
  expect_equal(*net, before, "after the outer guard");
  net->forward(x);
  EXPECT_EQ(norm->num_batches_tracked.item<int64_t>(), 4);
}

TEST(FreezeBatchNorm, LeavesLayersInEvaluationModeAlone) {
  torch::nn::BatchNorm1d norm(2);
  norm->forward(torch::randn({5, 2}));
  norm->eval();
  const auto x = torch::randn({5, 2});
  const auto expected = norm->forward(x);
  const FreezeBatchNormStatistics frozen(*norm);
  EXPECT_TRUE(torch::equal(norm->forward(x), expected));
}

TEST(FreezeBatchNorm, LeavesCheckpointsAsTheyAre) {
  torch::nn::BatchNorm1d norm(2);
  norm->forward(torch::randn({5, 2}));
  std::stringstream file;
  {
    const FreezeBatchNormStatistics frozen(*norm);
    torch::save(norm, file);
  }
  torch::nn::BatchNorm1d loaded(2);
  torch::load(loaded, file);
  expect_equal(*loaded, copies(norm->buffers()), "saved while frozen");
}

}  // namespace
