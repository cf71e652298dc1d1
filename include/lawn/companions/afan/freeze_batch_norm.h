// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/functional/instancenorm.h>  // of which 2.4 lacks the include below
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/instancenorm.h>

namespace lawn {

/// While it lives, forward passes in training mode do not change the running statistics of batch
/// and instance norms, including the counts of batches. The norms go on normalising by the
/// statistics of the batch.
///
///   {
///     const lawn::FreezeBatchNormStatistics frozen(*model);
///     model->forward(perturbed);
///   }
///
/// It works on LibTorch's own layers, by hiding their running statistics from them. While it lives,
/// do not put the layers into evaluation mode, and do not clone or move the module. Layers that are
/// in evaluation mode are left alone, since they update nothing. Guards nest.
/// @note  must not be used on one module from several threads; does not wait for the device
class FreezeBatchNormStatistics {
 public:
  /// @param module  must outlive the guard
  explicit FreezeBatchNormStatistics(torch::nn::Module& module) {
    namespace nn = torch::nn;
    module.apply([this](nn::Module& layer) {
      if (!layer.is_training()) return;
      hide<nn::BatchNorm1dImpl, nn::BatchNorm2dImpl, nn::BatchNorm3dImpl, nn::InstanceNorm1dImpl,
           nn::InstanceNorm2dImpl, nn::InstanceNorm3dImpl>(layer);
    });
  }
  FreezeBatchNormStatistics(const FreezeBatchNormStatistics&) = delete;
  FreezeBatchNormStatistics& operator=(const FreezeBatchNormStatistics&) = delete;

  ~FreezeBatchNormStatistics() {
    // Backwards: a layer that is in the module twice was hidden twice, and empty the second time.
    for (auto hidden = hidden_.rbegin(); hidden != hidden_.rend(); ++hidden) {
      *hidden->place = std::move(hidden->tensor);
    }
  }

 private:
  struct Hidden {
    at::Tensor* place;
    at::Tensor tensor;
  };

  template <class... Layers>
  void hide(torch::nn::Module& module) {
    (hide_one(dynamic_cast<Layers*>(&module)), ...);
  }

  /// Hides only the layer's members: its list of buffers keeps the tensors, and so do checkpoints.
  template <class Layer>
  void hide_one(Layer* layer) {
    if (layer == nullptr) return;
    for (at::Tensor* place :
         {&layer->running_mean, &layer->running_var, &layer->num_batches_tracked}) {
      hidden_.push_back({place, std::exchange(*place, at::Tensor())});
    }
  }

  std::vector<Hidden> hidden_;
};

}  // namespace lawn
