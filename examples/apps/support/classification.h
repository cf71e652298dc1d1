// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/augment.h"
#include "examples/apps/support/classifier.h"
#include "examples/apps/support/dataset.h"
#include "examples/apps/support/image_task.h"
#include "examples/apps/support/metrics.h"
#include "examples/apps/support/ranks.h"
#include "examples/apps/support/table.h"

namespace examples {

/// How a classifier sees its images.
struct ClassificationOptions {
  bool augment = false;       ///< random crops with 4 pixels of padding, and flips
  int64_t probe_size = 1000;  ///< images of each half of the data that are measured every epoch
};

/// Trains a network to tell the classes of images apart, by cross-entropy.
class Classification : public ImageTask {
 public:
  /// @param network  trained in place; must stay on feeding.device
  /// @param data     on feeding.device
  /// @param ranks    divide batches, and what is measured, among them; must outlive the task
  Classification(std::shared_ptr<Classifier> network, Split data, Feeding feeding,
                 ClassificationOptions options, Ranks& ranks = alone())
      : ImageTask(std::move(data), std::move(feeding)),
        network_(std::move(network)),
        options_(options),
        ranks_(ranks),
        probe_{
            subset(this->data().train, std::min(options_.probe_size, size()), 1),
            subset(this->data().test, std::min(options_.probe_size, this->data().test.size()), 2)} {
  }

  torch::nn::Module& network() override { return *network_; }
  Ranks& ranks() override { return ranks_; }

  Batch batch(int64_t begin, int64_t end, at::Generator& generator) override {
    CropAndFlip draw;
    if (options_.augment) draw = draw_crop_and_flip(end - begin, kPadding, generator);
    const Part mine = ranks_.part(begin, end);
    if (mine.size() == 0) {
      return {at::zeros({}, at::TensorOptions(feeding().device)),
              at::zeros({static_cast<int64_t>(batch_columns().size())},
                        at::TensorOptions(at::kDouble).device(feeding().device))};
    }
    const at::Tensor samples = chosen(mine.begin, mine.end);
    at::Tensor images = data().train.images.index_select(0, samples);
    const at::Tensor labels = data().train.labels.index_select(0, samples);
    if (options_.augment) {
      images = crop_and_flip(images, draw.slice(mine.begin - begin, mine.end - begin), kPadding);
    }
    return on_batch(images, labels);
  }

  std::vector<std::string> batch_columns() const override {
    return {"batch_loss", "batch_accuracy"};
  }

  std::vector<std::string> columns() const override {
    return {"train_loss",     "train_accuracy",    "train_logit_norm",
            "train_vanished", "train_calibration", "test_loss",
            "test_accuracy",  "test_logit_norm",   "test_calibration"};
  }

  Measured measure() override {
    const Evaluation train = evaluated(probe_.train);
    const Evaluation test = evaluated(probe_.test);
    return {{train.loss, train.accuracy, train.logit_norm, train.vanished, train.calibration,
             test.loss, test.accuracy, test.logit_norm, test.calibration},
            test.accuracy,
            "train loss " + fixed(train.loss, 4) + " accuracy " + percent(train.accuracy) +
                "  test loss " + fixed(test.loss, 4) + " accuracy " + percent(test.accuracy) +
                "  logit norm " + fixed(train.logit_norm, 2)};
  }

  /// The same over all images of a half.
  Evaluation on_training_data() { return evaluated(data().train); }
  Evaluation on_test_data() { return evaluated(data().test); }

 protected:
  /// What becomes of a batch of bytes and their labels, for those who train by another loss.
  virtual Batch on_batch(const at::Tensor& images, const at::Tensor& labels) {
    const at::Tensor logits = feeding().logits(*network_, images);
    const at::Tensor detached = logits.detach();
    return {at::cross_entropy_loss(logits, labels), metric_sums(detached, labels).slice(0, 0, 2)};
  }

 private:
  static constexpr int64_t kPadding = 4;

  Evaluation evaluated(const Dataset& images) {
    return evaluate(*network_, images, feeding(), ranks_);
  }

  std::shared_ptr<Classifier> network_;
  ClassificationOptions options_;
  Ranks& ranks_;
  Split probe_;
};

}  // namespace examples
