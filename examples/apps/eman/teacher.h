// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <c10/util/Exception.h>
#include <lawn/companions/afan/freeze_batch_norm.h>
#include <lawn/companions/eman/ema_teacher.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "examples/apps/support/classifier.h"
#include "examples/apps/support/dataset.h"
#include "examples/apps/support/metrics.h"

/// A student, and the teacher that makes the labels of images without labels.
class Pair : public torch::nn::Module {
 public:
  using Teacher = lawn::EmaTeacher<examples::Classifier>;

  /// @param method  "student": the student makes them. Otherwise a teacher with averaged weights
  ///                does. Its batch norms have the student's statistics averaged ("eman") or copied
  ///                ("copied"), their initial ones ("stale"), or those of the batch
  ///                ("batch-statistics")
  /// @param twin    another network of the student's architecture, to be the teacher
  Pair(std::string method, std::shared_ptr<examples::Classifier> student,
       std::shared_ptr<examples::Classifier> twin, double decay)
      : method_(std::move(method)), student_(register_module("student", std::move(student))) {
    if (method_ == "student") return;
    TORCH_CHECK(method_ == "eman" || method_ == "copied" || method_ == "stale" ||
                    method_ == "batch-statistics",
                "unknown method '", method_,
                "'; expected student, eman, copied, stale or batch-statistics");
    const auto buffers = method_ == "eman"     ? lawn::EmaBuffers::kAverage
                         : method_ == "copied" ? lawn::EmaBuffers::kCopy
                                               : lawn::EmaBuffers::kLeave;
    teacher_ = register_module(
        "teacher", std::make_shared<Teacher>(*student_, std::move(twin),
                                             lawn::EmaOptions().decay(decay).buffers(buffers)));
  }

  examples::Classifier& student() { return *student_; }

  /// Call this after each step of the student.
  void update_teacher() {
    if (teacher_) teacher_->update(*student_);
  }

  /// The teacher's logits for a batch, without a graph. A student that is its own teacher stays in
  /// its current mode, as in FixMatch. No running statistics move.
  at::Tensor teacher_logits(const examples::Feeding& feeding, const at::Tensor& images) {
    const at::NoGradGuard no_grad;
    examples::Classifier& network = teacher_ ? *teacher_->module() : *student_;
    const bool was_training = network.is_training();
    if (method_ == "batch-statistics") network.train();
    at::Tensor logits;
    {
      const lawn::FreezeBatchNormStatistics frozen(network);
      logits = feeding.logits(network, images);
    }
    network.train(was_training);
    return logits;
  }

 private:
  std::string method_;
  std::shared_ptr<examples::Classifier> student_;
  std::shared_ptr<Teacher> teacher_;  ///< null if the student is its own teacher
};

/// Share of images that the teacher gets right in batches of `batch_size`, in the given order.
/// @param order  int64 [N] on the data's device
/// @note  puts the student into evaluation mode meanwhile
inline double teacher_accuracy(Pair& pair, const examples::Dataset& data,
                               const examples::Feeding& feeding, const at::Tensor& order,
                               int64_t batch_size) {
  const bool was_training = pair.is_training();
  pair.eval();
  at::Tensor right = at::zeros({}, data.labels.options());
  for (int64_t begin = 0; begin < data.size(); begin += batch_size) {
    // A last batch of one image has no variance to normalise by, so it takes earlier images along.
    const int64_t first = std::min(begin, std::max<int64_t>(0, data.size() - batch_size));
    const at::Tensor chosen = order.slice(0, first, first + batch_size);
    const at::Tensor logits =
        pair.teacher_logits(feeding, data.images.index_select(0, chosen)).slice(0, begin - first);
    right += logits.argmax(1).eq(data.labels.index_select(0, chosen).slice(0, begin - first)).sum();
  }
  pair.train(was_training);
  return static_cast<double>(right.item<int64_t>()) / static_cast<double>(data.size());
}

/// The images sorted by class, stably: in this order a batch holds one class.
inline at::Tensor order_by_class(const examples::Dataset& data) {
  return std::get<1>(data.labels.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false));
}

/// The images at random, from a seed.
inline at::Tensor shuffled_order(const examples::Dataset& data, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randperm(data.size(), generator, at::TensorOptions(at::kLong))
      .to(data.labels.device());
}
