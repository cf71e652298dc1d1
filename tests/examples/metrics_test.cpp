// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/metrics.h"

#include <gtest/gtest.h>
#include <lawn/lawn.h>
#include <torch/torch.h>

#include <cmath>
#include <string>
#include <vector>

#include "examples/apps/support/history.h"
#include "examples/apps/support/networks.h"
#include "examples/apps/support/progress.h"
#include "examples/apps/support/resnet.h"
#include "examples/apps/support/table.h"
#include "examples/apps/support/vgg.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::tolerance;

examples::Dataset noise(int64_t count, int64_t channels, int64_t size) {
  torch::manual_seed(5);
  return {"noise", torch::randint(256, {count, channels, size, size}).to(torch::kByte),
          torch::randint(10, {count}, torch::kLong)};
}

examples::Feeding feeding(const examples::Dataset& data) {
  return {examples::channel_statistics(data), at::kCPU, at::kFloat, true};
}

TEST(MetricSums, EqualTorchsOwnLossAndAccuracy) {
  torch::manual_seed(1);
  const at::Tensor logits = 3 * torch::randn({50, 10});
  const at::Tensor labels = torch::randint(10, {50}, torch::kLong);
  const at::Tensor sums = examples::metric_sums(logits, labels);
  const at::Tensor loss = torch::cross_entropy_loss(logits.to(torch::kDouble), labels);
  EXPECT_NEAR(sums[0].item<double>() / 50, loss.item<double>(), tolerance(torch::kDouble).step);
  EXPECT_EQ(sums[1].item<double>(),
            static_cast<double>(logits.argmax(1).eq(labels).sum().item<int64_t>()));
  EXPECT_NEAR(sums[2].item<double>(), logits.to(torch::kDouble).norm(2, 1).sum().item<double>(),
              1e-9);
}

TEST(MetricSums, CountAGradientAsVanishedWhereAutogradSaysSo) {
  // Margins from 0 to 23.75 pass the threshold at some 9.5: log(sqrt(1 + 1/9) * 9 / 1e-4) - log(9).
  at::Tensor logits = torch::zeros({20, 10}, torch::kDouble);
  logits.select(1, 4) = 1.25 * torch::arange(20);
  const at::Tensor labels = torch::full({20}, 4, torch::kLong);
  at::Tensor leaf = logits.detach().clone().requires_grad_();
  torch::cross_entropy_loss(leaf, labels, {}, at::Reduction::Sum).backward();
  const auto expected =
      leaf.grad().norm(2, 1).lt(examples::kVanishedGradient).sum().item<int64_t>();
  EXPECT_GT(expected, 0);
  EXPECT_LT(expected, 20);
  EXPECT_EQ(examples::metric_sums(logits, labels)[3].item<double>(), static_cast<double>(expected));
}

TEST(MetricSums, DoNotCountAWrongAnswerAsVanished) {
  at::Tensor logits = torch::zeros({1, 10});
  logits[0][3] = 100;
  EXPECT_EQ(examples::metric_sums(logits, torch::tensor({4}, torch::kLong))[3].item<double>(), 0);
  EXPECT_EQ(examples::metric_sums(logits, torch::tensor({3}, torch::kLong))[3].item<double>(), 1);
}

/// Logits whose softmax is `first` for class 0 and shares the rest between two others.
at::Tensor logits_of(const std::vector<double>& first) {
  std::vector<at::Tensor> rows;
  for (const double p : first) {
    rows.push_back(torch::tensor({p, 0.6 * (1 - p), 0.4 * (1 - p)}, torch::kDouble).log());
  }
  return torch::stack(rows);
}

TEST(CalibrationGaps, EqualThoseCountedByHand) {
  // Bins of 1/15: 0.95 and 0.96 are in the last one, 0.7 in the eleventh, 0.5 in the eighth.
  const at::Tensor gaps = examples::calibration_gaps(logits_of({0.95, 0.96, 0.7, 0.5, 0.5}),
                                                     torch::tensor({0, 1, 0, 0, 2}));
  std::vector<double> expected(15, 0.0);
  expected[14] = (1 - 0.95) + (0 - 0.96);
  expected[10] = 1 - 0.7;
  expected[7] = (1 - 0.5) + (0 - 0.5);
  for (int64_t bin = 0; bin < 15; ++bin) {
    EXPECT_NEAR(gaps[bin].item<double>(), expected[static_cast<size_t>(bin)],
                tolerance(torch::kDouble).step)
        << bin;
  }
}

TEST(CalibrationGaps, PutAnEdgeIntoTheBinBelowItAndCertaintyIntoTheLast) {
  const at::Tensor sure = torch::tensor({{1000.0, 0.0}, {0.0, 1000.0}}, torch::kDouble);
  EXPECT_EQ(examples::calibration_gaps(sure, torch::tensor({1, 1}))[14].item<double>(), -1);
  const at::Tensor even = torch::zeros({1, 3}, torch::kDouble);  // 1/3 is the edge of bin 5
  EXPECT_NEAR(examples::calibration_gaps(even, torch::tensor({2}))[4].item<double>(), -1.0 / 3,
              1e-12);
}

TEST(Evaluate, ReportsTheCalibrationErrorOverAllBatches) {
  examples::Dataset data = noise(70, 3, 32);
  torch::manual_seed(2);
  auto network = examples::resnet20();
  network->eval();
  const torch::NoGradGuard no_grad;
  const at::Tensor probabilities =
      feeding(data).logits(*network, data.images).to(torch::kDouble).softmax(1);
  // Right where it is not sure and wrong where it is, so that the gaps have both signs.
  const auto [sureness, answers] = probabilities.max(1);
  data.labels = torch::where(sureness < sureness.median(), answers, (answers + 1) % 10);
  double error = 0;  // a plain twin
  for (int64_t bin = 0; bin < 15; ++bin) {
    double gap = 0;
    for (int64_t index = 0; index < data.size(); ++index) {
      const auto [confidence, predicted] = probabilities[index].max(0);
      const double p = confidence.item<double>();
      if (p <= static_cast<double>(bin) / 15 || p > static_cast<double>(bin + 1) / 15) continue;
      gap += (predicted.item<int64_t>() == data.labels[index].item<int64_t>() ? 1.0 : 0.0) - p;
    }
    error += std::abs(gap) / 70;
  }
  EXPECT_GT(error, 0);
  EXPECT_NEAR(examples::evaluate(*network, data, feeding(data), examples::alone(), 32).calibration,
              error, 1e-6);
}

TEST(Evaluate, DoesNotDependOnTheBatchSizeNorChangeTheNetwork) {
  const examples::Dataset data = noise(70, 3, 32);
  torch::manual_seed(2);
  auto network = examples::resnet20();
  examples::to_channels_last(*network);
  network->train();
  const at::Tensor before = network->buffers().front().clone();
  const auto once = examples::evaluate(*network, data, feeding(data), examples::alone(), 70);
  const auto in_parts = examples::evaluate(*network, data, feeding(data), examples::alone(), 32);
  EXPECT_NEAR(once.loss, in_parts.loss, tolerance(torch::kFloat).step * once.loss);
  EXPECT_EQ(once.accuracy, in_parts.accuracy);
  EXPECT_NEAR(once.logit_norm, in_parts.logit_norm,
              tolerance(torch::kFloat).step * once.logit_norm);
  EXPECT_TRUE(network->is_training());
  EXPECT_TRUE(torch::equal(network->buffers().front(), before));
}

TEST(Evaluate, InBfloat16IsNearFloat32AndLeavesAutocastOff) {
  const examples::Dataset data = noise(40, 3, 32);
  torch::manual_seed(2);
  auto network = examples::resnet20();
  auto feeding_half = feeding(data);
  feeding_half.precision = at::kBFloat16;
  const auto full = examples::evaluate(*network, data, feeding(data));
  const auto half = examples::evaluate(*network, data, feeding_half);
  EXPECT_NE(half.loss, full.loss);  // it did compute in another precision
  EXPECT_NEAR(half.loss, full.loss, 0.05 * full.loss);
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
}

TEST(Networks, TakeOneAndThreeChannelsAnd28And32Pixels) {
  for (const int64_t channels : {1, 3}) {
    for (const int64_t size : {28, 32}) {
      const at::Tensor images = torch::randn({2, channels, size, size});
      examples::VGGOptions options;
      options.channels = channels;
      options.image_size = size;
      EXPECT_EQ(examples::VGG(options)->forward(images).sizes(), (std::vector<int64_t>{2, 10}));
      EXPECT_EQ(examples::resnet20(channels)->forward(images).sizes(),
                (std::vector<int64_t>{2, 10}));
    }
  }
  EXPECT_EQ(examples::resnet18(1)->forward(torch::randn({2, 1, 28, 28})).sizes(),
            (std::vector<int64_t>{2, 10}));
}

TEST(Networks, MLPAndCNNTakeImagesOfAnySizeAndAreHomogeneousInEveryWeight) {
  for (const std::string name : {"mlp", "cnn"}) {
    for (const int64_t channels : {1, 3}) {
      const int64_t size = channels == 1 ? 28 : 32;
      const examples::Dataset data = noise(2, channels, size);
      const auto network = examples::make_network(name, data);
      const at::Tensor images = torch::randn({2, channels, size, size});
      for (const auto& parameter : network->named_parameters()) {
        if (parameter.value().dim() == 1) torch::nn::init::zeros_(parameter.value());
      }
      const at::Tensor logits = network->forward(images);
      EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{2, 10}));
      const auto weights = lawn::select_all_weights(*network);
      EXPECT_EQ(lawn::final_homogeneous_subnetwork(logits, *network).names(), weights.names());
      const torch::NoGradGuard no_grad;
      for (const at::Tensor& weight : weights.parameters()) weight.mul_(2);
      const double factor = name == "mlp" ? 8 : 16;
      EXPECT_TRUE(torch::equal(network->forward(images), factor * logits)) << name;
    }
  }
}

TEST(Networks, CNNHasTwoConvolutionsAndAHiddenLayerThatStartAsLibTorchsDo) {
  const auto network = examples::make_network("cnn", noise(2, 1, 28));
  std::vector<std::string> names;
  for (const auto& parameter : network->named_parameters()) names.push_back(parameter.key());
  EXPECT_EQ(names, (std::vector<std::string>{"conv1_1.weight", "conv1_1.bias", "conv2_1.weight",
                                             "conv2_1.bias", "hidden.weight", "hidden.bias",
                                             "head.weight", "head.bias"}));
  const at::Tensor hidden = network->named_parameters()["hidden.weight"];
  EXPECT_EQ(hidden.sizes(), (std::vector<int64_t>{128, 32 * 7 * 7}));
  EXPECT_NEAR(hidden.square().mean().item<double>() * 3 * 32 * 7 * 7, 1, 0.05);
}

TEST(Networks, AreRefusedByAnUnknownName) {
  lawn::testing::expect_refusal([&] { examples::make_network("alexnet", noise(2, 1, 28)); },
                                "unknown network 'alexnet'; expected one of resnet20 "
                                "resnet20-without-norm resnet18 vgg cnn mlp mlp-layer-norm");
}

TEST(Networks, HaveThePublishedNumbersOfParameters) {
  const auto count = [](const torch::nn::Module& module) {
    int64_t sum = 0;
    for (const auto& parameter : module.parameters()) sum += parameter.numel();
    return sum;
  };
  EXPECT_EQ(count(*examples::resnet20()), 269'722);     // He et al.: 0.27 million
  EXPECT_EQ(count(*examples::resnet18()), 11'173'962);  // the usual CIFAR variant: 11.17 million
}

TEST(Networks, VGGStartsWithActivationsOfOneScaleFromFirstToLastLayer) {
  torch::manual_seed(3);
  examples::VGG vgg{examples::VGGOptions{}};
  const at::Tensor logits = vgg->forward(torch::randn({64, 3, 32, 32}));
  const double scale = logits.square().mean().sqrt().item<double>();
  EXPECT_GT(scale, 0.5);  // neither vanished nor exploded after eight layers without normalisation
  EXPECT_LT(scale, 8.0);
}

TEST(Networks, VGGRefusesImagesThatAreTooSmall) {
  examples::VGGOptions options;
  options.image_size = 4;
  try {
    examples::VGG vgg(options);
    FAIL() << "was not refused";
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find("images of 4 pixels are too small for 3 halvings"),
              std::string::npos);
  }
}

TEST(Norms, AreEuclideanAndJoinToTheNormOfAll) {
  const std::vector<at::Tensor> tensors = {torch::tensor({3.0F, 4.0F}), torch::full({2, 72}, 1.0F)};
  const std::vector<double> each = examples::norms(tensors);
  EXPECT_DOUBLE_EQ(each[0], 5);
  EXPECT_DOUBLE_EQ(each[1], 12);
  EXPECT_DOUBLE_EQ(examples::joint_norm(each), 13);
}

TEST(History, WritesNumbersThatReadBackTheSame) {
  examples::History history({"epoch", "loss"});
  history.add({1, 0.1});
  history.add({2, 1.0 / 3.0});
  const std::string csv = history.csv();
  EXPECT_EQ(csv.substr(0, 11), "epoch,loss\n");
  EXPECT_EQ(std::stod(csv.substr(csv.rfind(',') + 1)), 1.0 / 3.0);
  examples::History copy({"epoch", "loss"});
  copy.from_tensor(history.to_tensor());
  EXPECT_EQ(copy.csv(), csv);
  EXPECT_EQ(copy.last("loss"), 1.0 / 3.0);
}

TEST(Progress, ShowsShareSpeedLossAndTimeLeft) {
  std::ostringstream out;
  const examples::Progress plain(out, "adam", 1000, 0, false, "images");
  EXPECT_EQ(plain.line(250, 1.5, 2.0), "adam  25 %  125 images/s  loss 1.5000  6 s left");
  const examples::Progress bar(out, "adam", 1000, 0, true, "samples");
  EXPECT_EQ(bar.line(500, 0.25, 1.0),
            "adam  [===============               ] 50 %  500 samples/s  loss 0.2500  1 s left");
}

TEST(Progress, CountsSpeedFromWhereARunWasResumed) {
  std::ostringstream out;
  const examples::Progress progress(out, "adam", 1000, 400, false, "images");
  EXPECT_EQ(progress.line(500, 1, 1.0), "adam  50 %  100 images/s  loss 1.0000  5 s left");
}

TEST(Progress, WritesDurationsAsPeopleDo) {
  EXPECT_EQ(examples::duration(59.4), "59 s");
  EXPECT_EQ(examples::duration(187), "3:07");
  EXPECT_EQ(examples::duration(3723), "1:02:03");
}

TEST(Table, AlignsItsColumns) {
  examples::Table table({"", "adam", "lawn-adam"});
  table.add({"accuracy", "9.50 %", "10.00 %"});
  std::ostringstream out;
  out << table;
  EXPECT_EQ(out.str(),
            "            adam  lawn-adam\n"
            "---------------------------\n"
            "accuracy  9.50 %    10.00 %\n");
}

}  // namespace
