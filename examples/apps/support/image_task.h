// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>

#include <string>
#include <utility>

#include "examples/apps/support/dataset.h"
#include "examples/apps/support/metrics.h"
#include "examples/apps/support/task.h"

namespace examples {

/// What tasks on images share: an epoch is one over the training images, in an order drawn anew.
class ImageTask : public Task {
 public:
  at::Device device() const override { return feeding_.device; }
  std::string unit() const override { return "images"; }
  int64_t size() const override { return data_.train.size(); }

  void begin_epoch(at::Generator& generator) override {
    // Beside the data: an index on the host for each batch would make the host wait for the device.
    order_ = at::randperm(data_.train.size(), generator, at::TensorOptions(at::kLong))
                 .to(feeding_.device);
  }

 protected:
  /// @param data  on feeding.device
  ImageTask(Split data, Feeding feeding) : data_(std::move(data)), feeding_(std::move(feeding)) {}

  const Split& data() const { return data_; }
  const Feeding& feeding() const { return feeding_; }

  /// Which training images are the samples [begin, end) of the epoch.
  at::Tensor chosen(int64_t begin, int64_t end) const { return order_.slice(0, begin, end); }

 private:
  Split data_;
  Feeding feeding_;
  at::Tensor order_;  ///< of the images in this epoch
};

}  // namespace examples
