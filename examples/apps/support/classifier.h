// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/autocast_mode.h>
#include <torch/nn/module.h>

namespace examples {

/// A network from images to logits: what a trainer needs to know of it.
class Classifier : public torch::nn::Module {
 public:
  /// @param images  float [N, channels, height, width]
  /// @return        logits [N, classes]
  virtual at::Tensor forward(const at::Tensor& images) = 0;
};

/// Turns autocast on while it lives: convolutions and matrix products compute in `precision`,
/// parameters stay as they are. With float32 it does nothing.
class Autocast {
 public:
  Autocast(at::Device device, at::ScalarType precision)
      : type_(device.type()), on_(precision != at::kFloat) {
    if (!on_) return;
    previous_ = at::autocast::get_autocast_dtype(type_);
    was_on_ = at::autocast::is_autocast_enabled(type_);
    at::autocast::set_autocast_dtype(type_, precision);
    at::autocast::set_autocast_enabled(type_, true);
  }
  ~Autocast() {
    if (!on_) return;
    at::autocast::clear_cache();  // casts of weights that the next step changes
    at::autocast::set_autocast_enabled(type_, was_on_);
    at::autocast::set_autocast_dtype(type_, previous_);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  at::DeviceType type_;
  bool on_;
  bool was_on_ = false;
  at::ScalarType previous_ = at::kFloat;
};

/// Lays the kernels of convolutions out channels-last, in which they run faster here (ResNet-20 by
/// a third on a CPU). Call it before an optimizer makes its state.
inline void to_channels_last(torch::nn::Module& module) {
  for (at::Tensor& parameter : module.parameters()) {
    if (parameter.dim() == 4) {
      parameter.set_data(parameter.detach().contiguous(at::MemoryFormat::ChannelsLast));
    }
  }
}

}  // namespace examples
