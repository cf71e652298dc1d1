// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/continual/dead_units.h"
#include "examples/apps/continual/stream.h"
#include "examples/apps/continual/turning.h"
#include "examples/apps/support/classifier.h"
#include "examples/apps/support/table.h"
#include "examples/apps/support/task.h"

/// How a network goes through a stream.
struct StreamTaskOptions {
  int64_t epochs = 1;  ///< of the stream's largest task; smaller ones are seen more often
  int64_t batch_size = 64;
  int64_t probe_size = 2000;  ///< images of each half of a task that are measured at the task's end
  uint64_t seed = 0;          ///< of the orders of images
  bool channels_last = false;
};

/// Trains one network on the tasks of a stream, one after the other. For the Trainer each task of
/// the stream is an epoch that passes over its images several times: so figures are by task, and a
/// run can stop within a task.
class StreamTask : public examples::Task {
 public:
  /// @param weights  the weights whose turn by a step is measured
  StreamTask(std::shared_ptr<examples::Classifier> network, std::shared_ptr<const Stream> stream,
             const std::vector<at::Tensor>& weights, const StreamTaskOptions& options)
      : network_(std::move(network)),
        stream_(std::move(stream)),
        options_(options),
        turning_(weights) {
    TORCH_CHECK(stream_->size() >= options_.batch_size, "--batch-size ", options_.batch_size,
                ": a task has only ", stream_->size(), " images");
  }

  /// Called at the beginning of each task, with its number from 0, before its first step.
  void at_beginning(std::function<void(int64_t)> what) { at_beginning_ = std::move(what); }

  torch::nn::Module& network() override { return *network_; }
  at::Device device() const override { return network_->parameters().front().device(); }
  std::string unit() const override { return "images"; }
  std::string epoch_name() const override { return "task"; }
  int64_t size() const override {
    return options_.epochs * (stream_->size() / options_.batch_size) * options_.batch_size;
  }

  void enter_epoch(int64_t epoch, bool anew) override {
    number_ = epoch;
    if (!anew) return;
    turning_.clear();
    if (at_beginning_) at_beginning_(epoch);
  }

  void begin_epoch(at::Generator& /*generator*/) override {
    data_ = stream_->task(number_);
    TORCH_CHECK(data_.train.size() > 0 && (!stream_->tested() || data_.test.size() > 0), "task ",
                number_ + 1, ": none of its ", data_.train.size() == 0 ? "training" : "test",
                " images is among those chosen; expected a larger --train-size or --test-size");
    at::Generator drawn = stream_generator(options_.seed, number_, Draw::kOrder);
    std::vector<at::Tensor> orders;
    for (int64_t count = 0; count < size(); count += data_.train.size()) {
      orders.push_back(at::randperm(data_.train.size(), drawn, at::TensorOptions(at::kLong)));
    }
    order_ = at::cat(orders).slice(0, 0, size()).to(device());
  }

  Batch batch(int64_t begin, int64_t end, at::Generator& /*generator*/) override {
    const Examples chosen = data_.train.pick(order_.slice(0, begin, end));
    const at::Tensor logits = logits_of(chosen.inputs);
    const at::Tensor loss = at::cross_entropy_loss(logits, chosen.labels);
    if (begin / (end - begin) % kLookedAt == 0) turning_.before_step();
    const at::Tensor right = logits.detach().argmax(1).eq(chosen.labels).sum();
    return {loss,
            at::stack({loss.detach().to(at::kDouble) * (end - begin), right.to(at::kDouble)})};
  }

  void after_step() override { turning_.after_step(); }

  std::vector<std::string> batch_columns() const override {
    return {"online_loss", "online_accuracy"};
  }
  std::vector<std::string> columns() const override {
    std::vector<std::string> names = {"task_loss", "task_accuracy"};
    if (stream_->tested()) names.insert(names.end(), {"test_loss", "test_accuracy"});
    names.insert(names.end(), {"dead_units", "angle"});
    return names;
  }

  Measured measure() override {
    const Score train = score(data_.train);
    Measured measured;
    measured.figures = {train.loss, train.accuracy};
    measured.score = train.accuracy;
    measured.text = "accuracy " + examples::percent(train.accuracy);
    if (stream_->tested()) {
      const Score test = score(data_.test);
      measured.figures.insert(measured.figures.end(), {test.loss, test.accuracy});
      measured.score = test.accuracy;
      measured.text += "  test " + examples::percent(test.accuracy);
    }
    measured.figures.insert(measured.figures.end(), {train.dead, turning_.mean()});
    measured.text += "  dead units " + examples::percent(train.dead);
    return measured;
  }

  void add_to(lawn::Checkpoint& checkpoint) override { turning_.add_to(checkpoint); }

 private:
  static constexpr int64_t kLookedAt = 8;    ///< the angle is measured in one of so many steps
  static constexpr int64_t kMeasured = 500;  ///< images measured at once

  struct Score {
    double loss = 0;
    double accuracy = 0;
    double dead = 0;
  };

  at::Tensor logits_of(const at::Tensor& inputs) {
    return network_->forward(
        options_.channels_last ? inputs.contiguous(at::MemoryFormat::ChannelsLast) : inputs);
  }

  /// On the first images, in evaluation mode.
  Score score(const Examples& data) {
    const at::NoGradGuard no_grad;
    network_->eval();
    DeadUnits dead;
    const int64_t count = std::min(options_.probe_size, data.size());
    double loss = 0;
    double right = 0;
    for (int64_t begin = 0; begin < count; begin += kMeasured) {
      const int64_t end = std::min(begin + kMeasured, count);
      const at::Tensor labels = data.labels.slice(0, begin, end);
      dead.next_batch();
      const at::Tensor logits = logits_of(data.inputs.slice(0, begin, end));
      loss +=
          at::cross_entropy_loss(logits, labels).item<double>() * static_cast<double>(end - begin);
      right += logits.argmax(1).eq(labels).sum().item<double>();
    }
    network_->train();
    const auto all = static_cast<double>(count);
    return {loss / all, right / all, dead.share()};
  }

  std::shared_ptr<examples::Classifier> network_;
  std::shared_ptr<const Stream> stream_;
  StreamTaskOptions options_;
  std::function<void(int64_t)> at_beginning_;
  int64_t number_ = 0;  ///< of the task
  TaskData data_;       ///< of it
  at::Tensor order_;    ///< of its images, as often as they pass
  Turning turning_;
};
