// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/eman/fixmatch.h"
#include "examples/apps/eman/options.h"
#include "examples/apps/eman/teacher.h"
#include "examples/apps/support/augment.h"
#include "examples/apps/support/dataset.h"
#include "examples/apps/support/image_task.h"
#include "examples/apps/support/metrics.h"
#include "examples/apps/support/table.h"

/// Trains a student on few labelled images and many without labels, by FixMatch's loss:
///   cross-entropy of the labelled images + weight * fixmatch_loss() of the others
/// An epoch passes over the images without labels, which include the labelled ones.
/// @source Sohn et al. 2020, arXiv 2001.07685
class SemiSupervised : public examples::ImageTask {
 public:
  /// @throws c10::Error for more labels than training images
  SemiSupervised(std::shared_ptr<Pair> pair, examples::Split data, examples::Feeding feeding,
                 const Options& options)
      : ImageTask(std::move(data), std::move(feeding)),
        pair_(std::move(pair)),
        ratio_(options.ratio),
        threshold_(options.threshold),
        weight_(options.weight),
        small_batch_(options.small_batch),
        labelled_(labelled(this->data().train, options.labels)),
        probe_(examples::subset(this->data().test,
                                std::min(options.probe_size, this->data().test.size()), 2)) {}

  torch::nn::Module& network() override { return *pair_; }

  Batch batch(int64_t begin, int64_t end, at::Generator& generator) override {
    const at::Tensor samples = chosen(begin, end);
    const at::Tensor images = data().train.images.index_select(0, samples);
    const auto count = images.size(0);
    const at::Tensor known = at::randint(labelled_.size(), {std::max<int64_t>(1, count / ratio_)},
                                         generator, at::TensorOptions(at::kLong))
                                 .to(feeding().device);
    const at::Tensor labels = labelled_.labels.index_select(0, known);
    const at::Tensor weak = change_weakly(labelled_.images.index_select(0, known), generator);
    const at::Tensor unlabelled = change_weakly(images, generator);
    const at::Tensor strong = change_strongly(change_weakly(images, generator),
                                              draw_strong_change(count, images.size(2), generator));

    const PseudoLabels told =
        pseudo_labels(pair_->teacher_logits(feeding(), unlabelled), threshold_);
    const at::Tensor logits = feeding().logits(pair_->student(), at::cat({weak, strong}));
    const at::Tensor loss = at::cross_entropy_loss(logits.slice(0, 0, labels.size(0)), labels) +
                            weight_ * fixmatch_loss(logits.slice(0, labels.size(0)), told);
    const at::Tensor right =
        at::logical_and(told.used, told.labels.eq(data().train.labels.index_select(0, samples)));
    return {loss, at::stack({loss.detach().to(at::kDouble) * count, told.used.sum().to(at::kDouble),
                             right.sum().to(at::kDouble)})};
  }

  void after_step() override { pair_->update_teacher(); }

  std::vector<std::string> batch_columns() const override {
    return {"batch_loss", "pseudo_labels_used", "pseudo_labels_right"};
  }
  std::vector<std::string> columns() const override {
    return {"student_loss", "student_accuracy", "teacher_accuracy"};
  }

  Measured measure() override {
    const auto student = examples::evaluate(pair_->student(), probe_, feeding());
    const double teacher =
        teacher_accuracy(*pair_, probe_, feeding(), shuffled_order(probe_, 3), small_batch_);
    return {{student.loss, student.accuracy, teacher},
            teacher,
            "student: test loss " + examples::fixed(student.loss, 4) + " accuracy " +
                examples::percent(student.accuracy) + "  teacher: accuracy " +
                examples::percent(teacher)};
  }

  /// The student's figures on all test images.
  examples::Evaluation student_on_test_data() {
    return examples::evaluate(pair_->student(), data().test, feeding());
  }
  /// The teacher's accuracy on all test images, in small batches.
  double teacher_on_shuffled_batches() {
    return teacher_accuracy(*pair_, data().test, feeding(), shuffled_order(data().test, 4),
                            small_batch_);
  }
  double teacher_on_sorted_batches() {
    return teacher_accuracy(*pair_, data().test, feeding(), order_by_class(data().test),
                            small_batch_);
  }

 private:
  static constexpr int64_t kPadding = 4;

  static examples::Dataset labelled(const examples::Dataset& train, int64_t labels) {
    TORCH_CHECK(labels <= train.size(), "--labels ", labels, ": there are only ", train.size(),
                " training images");
    return examples::subset(train, labels, 0);
  }

  static at::Tensor change_weakly(const at::Tensor& images, at::Generator& generator) {
    return examples::crop_and_flip(
        images, examples::draw_crop_and_flip(images.size(0), kPadding, generator), kPadding);
  }

  std::shared_ptr<Pair> pair_;
  int64_t ratio_;
  double threshold_;
  double weight_;
  int64_t small_batch_;
  examples::Dataset labelled_;
  examples::Dataset probe_;
};
