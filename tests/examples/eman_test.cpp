// SPDX-License-Identifier: Apache-2.0
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "examples/apps/eman/fixmatch.h"
#include "examples/apps/eman/semi_supervised.h"
#include "examples/apps/eman/teacher.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::testing::tolerance;

/// Images to logits through a batch norm, whose mode and statistics decide.
class Small : public examples::Classifier {
 public:
  Small()
      : norm_(register_module("norm", torch::nn::BatchNorm2d(3))),
        head_(register_module("head", torch::nn::Linear(3 * 8 * 8, 4))) {}
  at::Tensor forward(const at::Tensor& images) override { return head_(norm_(images).flatten(1)); }

  torch::nn::BatchNorm2d norm_;
  torch::nn::Linear head_;
};

class EMAN : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(0);
    data.name = "test";
    data.images = at::randint(256, {22, 3, 8, 8}, at::TensorOptions(at::kByte));
    data.labels = at::randint(4, {22}, at::TensorOptions(at::kLong));
    data.classes = 4;
    feeding.statistics = examples::channel_statistics(data);
  }

  std::shared_ptr<Pair> pair(const std::string& method, double decay = 0.5) {
    student = std::make_shared<Small>();
    student->norm_->running_mean.normal_();
    return std::make_shared<Pair>(method, student, std::make_shared<Small>(), decay);
  }

  examples::Dataset data;
  examples::Feeding feeding;
  std::shared_ptr<Small> student;
};

TEST_F(EMAN, RefusesMoreLabelsThanTrainingImages) {
  Options options;
  options.labels = 22;
  SemiSupervised all(pair("student"), {data, data}, feeding, options);
  options.labels = 23;
  lawn::testing::expect_refusal(
      [&] {
        SemiSupervised(pair("student"), {data, data}, feeding, options);
      },
      "--labels 23: there are only 22 training images");
}

TEST_F(EMAN, LossIsTheCrossEntropyOfSurePseudoLabelsOverAllImages) {
  const at::Tensor of_teacher = at::randn({20, 5}, at::kDouble) * 2;
  const at::Tensor of_student = at::randn({20, 5}, at::kDouble).requires_grad_();
  const double threshold = 0.6;
  double sum = 0;
  int64_t used = 0;
  for (int64_t i = 0; i < 20; ++i) {
    double likeliest = 0;
    int64_t label = 0;
    double partition = 0;
    double student_partition = 0;
    for (int64_t c = 0; c < 5; ++c) {
      partition += std::exp(of_teacher[i][c].item<double>());
      student_partition += std::exp(of_student[i][c].item<double>());
    }
    for (int64_t c = 0; c < 5; ++c) {
      const double probability = std::exp(of_teacher[i][c].item<double>()) / partition;
      if (probability > likeliest) {
        likeliest = probability;
        label = c;
      }
    }
    if (likeliest < threshold) continue;
    sum += std::log(student_partition) - of_student[i][label].item<double>();
    ++used;
  }
  ASSERT_GT(used, 2);
  ASSERT_LT(used, 18);
  const PseudoLabels told = pseudo_labels(of_teacher, threshold);
  EXPECT_EQ(told.used.sum().item<int64_t>(), used);
  EXPECT_NEAR(fixmatch_loss(of_student, told).item<double>(), sum / 20,
              tolerance(torch::kDouble).step);
}

TEST_F(EMAN, StrongChangeIsTheOneOfEachPixelAlone) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(5);
  const StrongChange change = draw_strong_change(22, 8, generator);
  const at::Tensor changed = change_strongly(data.images, change);
  for (int64_t i = 0; i < 22; ++i) {
    const auto top = change.top[i].item<int64_t>();
    const auto left = change.left[i].item<int64_t>();
    for (int64_t y = 0; y < 8; ++y) {
      for (int64_t x = 0; x < 8; ++x) {
        const bool cut = y >= top && y < top + 4 && x >= left && x < left + 4;
        const float before = data.images[i][1][y][x].item<float>();
        const float lit = (before - 127.5F) * change.contrast[i].item<float>() + 127.5F +
                          change.brightness[i].item<float>();
        const float expected = cut ? 128 : std::clamp(lit, 0.0F, 255.0F);
        // A half may round either way in the other order of the sums.
        EXPECT_NEAR(changed[i][1][y][x].item<float>(), expected, 0.51F);
      }
    }
  }
}

TEST_F(EMAN, StrongChangesCutSquaresThatReachOverEveryEdge) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(5);
  const StrongChange change = draw_strong_change(1000, 8, generator);
  for (const at::Tensor& first : {change.top, change.left}) {
    EXPECT_EQ(first.min().item<int64_t>(), -2);
    EXPECT_EQ(first.max().item<int64_t>(), 5);
  }
  EXPECT_NEAR(change.contrast.mean().item<double>(), 1, 0.05);
  EXPECT_NEAR(change.brightness.mean().item<double>(), 0, 6);
}

TEST_F(EMAN, TeachersTreatStatisticsAsTheirMethodSays) {
  const at::Tensor mean = at::tensor({1.0F, 2.0F, 3.0F});
  const auto after = [&](const std::string& method) {
    const auto both = pair(method);
    const at::Tensor start = student->norm_->running_mean.clone();
    student->norm_->running_mean.copy_(start + mean);
    both->update_teacher();
    for (const auto& item : both->named_buffers()) {
      if (item.key() == "teacher.teacher.norm.running_mean") return (item.value() - start).clone();
    }
    ADD_FAILURE() << "no teacher in " << method;
    return at::Tensor();
  };
  EXPECT_TRUE(at::allclose(after("eman"), mean / 2));
  EXPECT_TRUE(at::allclose(after("copied"), mean));
  EXPECT_TRUE(at::allclose(after("stale"), at::zeros({3})));
}

TEST_F(EMAN, OnlyTheTeacherOfBatchStatisticsSeesTheOthersInABatch) {
  for (const std::string method : {"eman", "copied", "stale", "batch-statistics"}) {
    const auto both = pair(method);
    both->train();
    const at::Tensor alone = both->teacher_logits(feeding, data.images.slice(0, 0, 4));
    const at::Tensor among = both->teacher_logits(feeding, data.images).slice(0, 0, 4);
    EXPECT_EQ(at::allclose(alone, among, 1e-4, 1e-5), method != "batch-statistics") << method;
  }
}

TEST_F(EMAN, TellingLabelsMovesNoStatisticsAndNoMode) {
  for (const std::string method : {"student", "eman", "batch-statistics"}) {
    const auto both = pair(method);
    both->train();
    std::vector<at::Tensor> before;
    for (const at::Tensor& buffer : both->buffers()) before.push_back(buffer.clone());
    EXPECT_FALSE(both->teacher_logits(feeding, data.images).requires_grad());
    teacher_accuracy(*both, data, feeding, order_by_class(data), 4);
    const auto now = both->buffers();
    for (size_t index = 0; index < now.size(); ++index) {
      EXPECT_TRUE(at::equal(now[index], before[index])) << method;
    }
    EXPECT_TRUE(student->is_training());
  }
}

TEST_F(EMAN, AccuracyInSmallBatchesIsThatOfEachImage) {
  const auto both = pair("eman");
  int64_t right = 0;
  for (int64_t i = 0; i < 22; ++i) {
    const at::Tensor logits = both->teacher_logits(feeding, data.images.slice(0, i, i + 1));
    right += logits.argmax(1).item<int64_t>() == data.labels[i].item<int64_t>() ? 1 : 0;
  }
  ASSERT_GT(right, 0);
  // 22 images leave 2, 1 and none over; and one batch is larger than all of them.
  for (const int64_t batch : {4, 7, 11, 50}) {
    for (const at::Tensor& order : {order_by_class(data), shuffled_order(data, 1)}) {
      EXPECT_DOUBLE_EQ(teacher_accuracy(*both, data, feeding, order, batch),
                       static_cast<double>(right) / 22);
    }
  }
}

TEST_F(EMAN, OrderByClassIsSortedAndHoldsEachImageOnce) {
  const at::Tensor order = order_by_class(data);
  const at::Tensor labels = data.labels.index_select(0, order);
  EXPECT_TRUE((labels.slice(0, 1) >= labels.slice(0, 0, -1)).all().item<bool>());
  EXPECT_TRUE(at::equal(std::get<0>(order.sort()), at::arange(22)));
}

TEST_F(EMAN, RefusesAnUnknownMethod) {
  lawn::testing::expect_refusal([&] { pair("mean"); },
                                "unknown method 'mean'; expected student, eman, copied, stale or "
                                "batch-statistics");
}

}  // namespace
