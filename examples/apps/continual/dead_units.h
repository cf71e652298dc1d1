// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/record_function.h>

#include <cstddef>
#include <cstdint>
#include <vector>

/// Finds the units that are dead on a sample: a unit is dead if its ReLU outputs zero for every
/// example. A unit is an output of a linear layer, or a channel of a convolution at all places
/// together.
///
/// While the object lives, it observes the calls of at::relu() by this thread, in their order, so
/// that networks need no code for it.
class DeadUnits {
 public:
  DeadUnits() : outer_(current()) {
    current() = this;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(nullptr, &relu_ended)
                                             .needsOutputs(true)
                                             .scopes({at::RecordScope::FUNCTION}));
  }
  ~DeadUnits() {
    at::removeCallback(handle_);
    current() = outer_;
  }
  DeadUnits(const DeadUnits&) = delete;
  DeadUnits& operator=(const DeadUnits&) = delete;

  /// Says that the next call is that of the network's first ReLU, on further examples.
  void next_batch() { layer_ = 0; }

  /// Share of the units of all layers; waits for the device.
  double share() const {
    int64_t units = 0;
    int64_t alive = 0;
    for (const at::Tensor& layer : alive_) {
      units += layer.numel();
      alive += layer.sum().item<int64_t>();
    }
    return units == 0 ? 0 : 1 - static_cast<double>(alive) / static_cast<double>(units);
  }

 private:
  static DeadUnits*& current() {
    thread_local DeadUnits* listening = nullptr;
    return listening;
  }

  static void relu_ended(const at::RecordFunction& function, at::ObserverContext* /*context*/) {
    if (current() == nullptr || function.name() != std::string("aten::relu")) return;
    const auto outputs = function.outputs();
    if (outputs.size() == 1 && outputs[0].isTensor()) current()->add(outputs[0].toTensor());
  }

  void add(const at::Tensor& output) {
    const at::NoGradGuard no_grad;
    std::vector<int64_t> others = {0};
    for (int64_t dim = 2; dim < output.dim(); ++dim) others.push_back(dim);
    const at::Tensor alive = output.detach().amax(others).gt(0);
    if (layer_ == alive_.size()) {
      alive_.push_back(alive);
    } else {
      alive_[layer_] = at::logical_or(alive_[layer_], alive);
    }
    ++layer_;
  }

  DeadUnits* outer_;
  at::CallbackHandle handle_ = 0;
  std::vector<at::Tensor> alive_;  ///< bool [units] of each layer
  std::size_t layer_ = 0;          ///< of the next call
};
