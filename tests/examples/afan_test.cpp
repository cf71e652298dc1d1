// SPDX-License-Identifier: Apache-2.0
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <memory>

#include "examples/apps/afan/adversarial.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::tolerance;

class AFANExample : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(0);
    data.name = "test";
    data.images = at::randint(256, {24, 3, 16, 16}, at::TensorOptions(at::kByte));
    data.labels = at::randint(4, {24}, at::TensorOptions(at::kLong));
    data.classes = 4;
    feeding.statistics = examples::channel_statistics(data);
    network = Network(4, 3, 4).ptr();
  }

  /// A batch of all images in a fixed order.
  examples::Task::Batch batch(const lawn::AFANOptions& afan) {
    AdversarialClassification task(network, {data, data}, feeding, {false, 24}, 4, afan);
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(1);
    task.begin_epoch(generator);
    return task.batch(0, 24, generator);
  }

  examples::Dataset data;
  examples::Feeding feeding;
  std::shared_ptr<NetworkImpl> network;
};

TEST_F(AFANExample, HeadAndTailMakeUpTheNetworkAtEverySplit) {
  network->eval();
  const at::Tensor input = feeding.input(data.images);
  const at::Tensor expected = network->forward(input);
  ASSERT_EQ(network->chain().size(), 9U);
  for (int64_t split = 0; split < 9; ++split) {
    EXPECT_TRUE(at::equal(network->tail(split, network->head(split, input)), expected)) << split;
  }
}

TEST_F(AFANExample, WithoutAPerturbationTheBatchIsThatOfPlainClassification) {
  examples::Classification plain(network, {data, data}, feeding, {false, 24});
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(1);
  plain.begin_epoch(generator);
  const auto expected = plain.batch(0, 24, generator);
  lawn::AFANOptions none;
  none.perturbation(lawn::PerturbationOptions().steps(0));
  const auto got = batch(none);
  EXPECT_TRUE(at::equal(got.loss, expected.loss));
  EXPECT_TRUE(at::equal(got.sums, expected.sums));
}

TEST_F(AFANExample, FiguresOfABatchAreOfItsCleanPass) {
  lawn::AFANOptions none;
  none.perturbation(lawn::PerturbationOptions().steps(0));
  const auto clean = batch(none);
  const auto both =
      batch(lawn::AFANOptions().perturbation(lawn::PerturbationOptions().step_size(0.2)));
  EXPECT_TRUE(at::equal(both.sums, clean.sums));
  EXPECT_GT(both.loss.item<double>(), clean.loss.item<double>());
}

TEST_F(AFANExample, EvaluationOfUnperturbedFeaturesIsThatOfTheNetwork) {
  network->train();
  const auto plain = examples::evaluate(*network, data, feeding);
  const auto same = evaluate_perturbed(*network, data, feeding, 4,
                                       lawn::PerturbationOptions().step_size(0), /*batch_size=*/7);
  EXPECT_NEAR(same.loss, plain.loss, tolerance(torch::kFloat).norm);
  EXPECT_DOUBLE_EQ(same.accuracy, plain.accuracy);
  EXPECT_TRUE(network->is_training());
}

TEST_F(AFANExample, AdversarialFeaturesLoseMoreThanRandomSigns) {
  const auto options = lawn::PerturbationOptions().step_size(0.02);
  const auto loss = [&](lawn::PerturbationDirection direction) {
    auto turned = options;
    return evaluate_perturbed(*network, data, feeding, 4, turned.direction(direction)).loss;
  };
  const double adversarial = loss(lawn::PerturbationDirection::kAscent);
  EXPECT_GT(adversarial, loss(lawn::PerturbationDirection::kRandomSigns));
  EXPECT_GT(adversarial, examples::evaluate(*network, data, feeding).loss);
  for (const at::Tensor& parameter : network->parameters()) {
    EXPECT_FALSE(parameter.grad().defined());
  }
}

}  // namespace
