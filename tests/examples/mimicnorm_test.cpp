// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <lawn/companions/mimicnorm/mimic_norm.h>
#include <torch/torch.h>

#include "examples/apps/mimicnorm/kept_bytes.h"
#include "examples/apps/mimicnorm/network.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::close;

constexpr int64_t kFloat = sizeof(float);

TEST(KeptBytes, AreTheResultAloneWithoutAGraph) {
  const at::Tensor x = at::ones({64, 32});
  EXPECT_EQ(bytes_kept_for_backward([&] { return (x * 2).relu().exp(); }), 64 * 32 * kFloat);
}

TEST(KeptBytes, AreWhatEachOperatorSaves) {
  const at::Tensor x = at::ones({64, 32}).requires_grad_();
  const int64_t all = 64 * 32 * kFloat;
  // exp saves its result; the sum saves nothing, and is one number.
  EXPECT_EQ(bytes_kept_for_backward([&] { return x.exp().sum(); }), all + kFloat);
  // Its second, scalar operand apart, a product by a number keeps nothing.
  EXPECT_EQ(bytes_kept_for_backward([&] { return (-x).exp().relu().sum(); }), 2 * all + kFloat);
  // A sine saves its input, which was there before.
  EXPECT_EQ(bytes_kept_for_backward([&] { return x.sin().sum(); }), kFloat);
}

TEST(KeptBytes, OfABatchNormAreItsInputAndItsStatistics) {
  torch::nn::BatchNorm2d norm(8);
  const at::Tensor x = at::randn({4, 8, 5, 5}).requires_grad_();
  const int64_t layer = x.numel() * kFloat;
  EXPECT_EQ(bytes_kept_for_backward([&] { return (-x).relu().sum(); }), layer + kFloat);
  const int64_t statistics = 2 * 8 * kFloat;  // of the batch: mean and deviation of each channel
  EXPECT_EQ(bytes_kept_for_backward([&] { return norm(-x).relu().sum(); }),
            2 * layer + statistics + kFloat);
}

TEST(KeptBytes, DoNotCountWhatWasThereBefore) {
  at::Tensor old = at::ones({1000});
  EXPECT_EQ(bytes_kept_for_backward([&] {
              old = at::Tensor();
              return at::ones({10});
            }),
            10 * kFloat);
}

class MimicNormNetwork : public ::testing::TestWithParam<bool> {
 protected:
  NetworkOptions shape() const {
    NetworkOptions options;
    options.residual = GetParam();
    return options;
  }
};

TEST_P(MimicNormNetwork, HasOneNormOfItsLogitsOrOneBehindEachConvolution) {
  const auto norms = [](const NetworkOptions& options) {
    int64_t count = 0;
    for (const auto& module : Network(options)->modules()) {
      count += module->as<torch::nn::BatchNorm2d>() != nullptr ||
                       module->as<torch::nn::BatchNorm1d>() != nullptr
                   ? 1
                   : 0;
    }
    return count;
  };
  NetworkOptions options = shape();
  EXPECT_EQ(norms(options), 0);
  options.last_norm = true;
  EXPECT_EQ(norms(options), 1);
  options.last_norm = false;
  options.batch_norm = true;
  EXPECT_EQ(norms(options), 13);
}

TEST_P(MimicNormNetwork, StartsFromTheSameDrawsWithAndWithoutCentring) {
  Network plain(shape());
  Network centred(shape());
  torch::manual_seed(1);
  he_init_(*plain);
  torch::manual_seed(1);
  const auto selection = lawn::mimic_norm_init_(*centred);
  ASSERT_EQ(selection.parameters().size(), 12U);  // all convolutions but the first, of fan-in 27
  const auto expected = plain->named_parameters();
  for (const auto& item : centred->named_parameters()) {
    at::Tensor draw = expected[item.key()].detach();
    if (item.value().dim() == 4 && item.value().size(1) > 3) {
      draw = draw - draw.mean({1, 2, 3}, /*keepdim=*/true);
    }
    EXPECT_TRUE(close(item.value(), draw)) << item.key();
  }
}

TEST_P(MimicNormNetwork, TakesImagesOfOddSizesAndOfOneChannel) {
  NetworkOptions options = shape();
  options.channels = 1;
  options.classes = 4;
  options.last_norm = true;
  EXPECT_EQ(Network(options)->forward(at::rand({2, 1, 25, 25})).sizes(), (at::IntArrayRef{2, 4}));
}

INSTANTIATE_TEST_SUITE_P(ChainAndResidual, MimicNormNetwork, ::testing::Bool());

TEST(MimicNormActivations, AreKeptHalfAsManyWithoutBatchNorms) {
  const at::Tensor images = at::rand({4, 3, 32, 32});
  const auto kept = [&](const NetworkOptions& options) {
    Network network(options);
    return static_cast<double>(
        bytes_kept_for_backward([&] { return network->forward(images).sum(); }));
  };
  NetworkOptions options;
  const double none = kept(options);
  options.batch_norm = true;
  const double every = kept(options);
  // The input of each convolution, against that and its output; the head keeps next to nothing.
  EXPECT_GT(every / none, 1.9);
  EXPECT_LT(every / none, 2.1);
}

}  // namespace
