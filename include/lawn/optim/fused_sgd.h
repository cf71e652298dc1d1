// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/ArrayRef.h>
#include <torch/optim/sgd.h>

#include <lawn/optim/fused/groups.h>
#include <lawn/sphere/flatten.h>

namespace lawn {

namespace detail::optim {

struct FusedSGDPolicy {
  using Options = torch::optim::SGDOptions;
  using State = torch::optim::SGDParamState;
  using Entry = FusedEntry<State>;
  static constexpr const char* kWho = "lawn::FusedSGD";
  // LibTorch 2.11's vector loop for them computes the momentum and never writes the parameter.
  static constexpr bool kReducedOnCPU = false;
  static constexpr bool kOnGPU = true;
  static constexpr bool kFolds = true;
  static constexpr bool kSparse = true;
  static constexpr bool kStateByConstructor = false;
  static constexpr bool kCounts = false;

  static bool keeps_state(const Options& options) { return options.momentum() != 0; }

  static bool fits(const State& state, const at::Tensor& parameter, const Options& options) {
    return options.momentum() == 0 || sphere::beside(parameter, state.momentum_buffer());
  }

  static const at::Tensor& moment(const State& state) { return state.momentum_buffer(); }

  static std::unique_ptr<State> make_state(const at::Tensor& parameter,
                                           const Options& /*options*/) {
    auto state = std::make_unique<State>();
    state->momentum_buffer(at::zeros_like(parameter));
    return state;
  }

  /// m <- mu 0 + (1 - dampening) g' is the first step's m <- g' without dampening alone.
  static bool begins_in_place(const Options& options) { return options.dampening() == 0; }

  static void begin_in_place(State& state, const Options& /*options*/) {
    if (state.momentum_buffer().defined()) state.momentum_buffer().zero_();
  }

  static void count_step(State& /*state*/) {}

  template <class Rate>
  static void update(c10::ArrayRef<Entry> list, const Options& options, const Rate& lr) {
    std::vector<at::Tensor> momenta;
    if (keeps_state(options)) {
      momenta = column(list, [](const Entry& entry) { return entry.state->momentum_buffer(); });
    }
    at::_fused_sgd_(column(list, [](const Entry& entry) { return entry.parameter; }),
                    column(list, [](const Entry& entry) { return entry.gradient; }), momenta,
                    options.weight_decay(), options.momentum(), lr, options.dampening(),
                    options.nesterov(), /*maximize=*/false, /*is_first_step=*/list.front().first);
  }

  static bool folds(const Options& /*options*/) { return true; }

  static bool same_step(const Entry& a, const Entry& b) { return a.first == b.first; }

  static void set_moments(const Entry& entry, folded::FlatLayer& layer) {
    if (entry.state != nullptr) layer.first_moment = entry.state->momentum_buffer().data_ptr();
  }

  static folded::SGD folded_step(const Entry& entry, const Options& options) {
    return {options.lr(), options.momentum(), options.dampening(), options.nesterov(), entry.first};
  }

  static folded::DeviceSGD device_step(const Entry& entry, const Options& options) {
    return {options.momentum(), options.dampening(), options.nesterov(), entry.first, {}};
  }
};

}  // namespace detail::optim

/// torch::optim::SGD with one pass over memory: each group is stepped by one call of
/// `at::_fused_sgd_` for each device and dtype, instead of up to four ATen calls for each
/// parameter. On a CPU that takes two thirds of the time of SGD with momentum for the weights of
/// ResNet-18 and ResNet-20.
///
///   g' = g + lambda w                                 weight_decay lambda
///   m <- mu m + (1 - dampening) g'                    momentum mu; m <- g' at the first step
///   w <- w - lr (g' + mu m if nesterov, else m)
///
/// It is-a torch::optim::SGD, with its constructors, options and state: schedulers work, and
/// checkpoints go either way. Numbers are SGD's to rounding.
///
/// Fused: float64 and float32 on CPU and CUDA, half and bfloat16 on CUDA (the fused function of the
/// CPU does not move them), dense without gaps in any order of dimensions, each parameter held
/// once. All else, sparse gradients without weight decay among it, takes SGD's own step. `step()`
/// leaves the gradients as they are and does not wait for the device. `make_capturable()` readies
/// it for CUDA graphs.
///
/// @source  Sutskever, Martens, Dahl, Hinton 2013, "On the importance of initialization and
///          momentum in deep learning"
class FusedSGD : public detail::optim::Fused<torch::optim::SGD, detail::optim::FusedSGDPolicy> {
 public:
  using Fused::Fused;
};

template <>
inline constexpr bool detail::folded::kFoldsInto<FusedSGD> = true;
template <>
inline constexpr bool detail::folded::kIsCapturable<FusedSGD> = true;

}  // namespace lawn
