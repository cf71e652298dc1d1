// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adagrad.h>
#include <ATen/ops/full_like.h>
#include <c10/util/ArrayRef.h>
#include <torch/optim/adagrad.h>
#include <torch/version.h>

#include <lawn/optim/fused/groups.h>
#include <lawn/parameters/held_once.h>
#include <lawn/sphere/flatten.h>

namespace lawn {

namespace detail::optim {

struct FusedAdagradPolicy {
  using Options = torch::optim::AdagradOptions;
  using State = torch::optim::AdagradParamState;
  using Entry = FusedEntry<State>;
  static constexpr const char* kWho = "lawn::FusedAdagrad";
  static constexpr bool kReducedOnCPU = true;
  static constexpr bool kOnGPU = TORCH_VERSION_MINOR >= 10;
  static constexpr bool kFolds = false;
  static constexpr bool kSparse = true;
  static constexpr bool kStateByConstructor = true;
  static constexpr bool kCounts = true;

  static bool keeps_state(const Options& /*options*/) { return true; }

  static bool fits(const State& state, const at::Tensor& parameter, const Options& /*options*/) {
    return sphere::beside(parameter, state.sum());
  }

  static const at::Tensor& moment(const State& state) { return state.sum(); }

  /// Needed for a parameter of a group that was added after the construction.
  static std::unique_ptr<State> make_state(const at::Tensor& parameter, const Options& options) {
    auto state = std::make_unique<State>();
    state->sum(at::full_like(parameter, options.initial_accumulator_value()));
    return state;
  }

  static bool begins_in_place(const Options& /*options*/) { return true; }

  static void begin_in_place(State& state, const Options& options) {
    state.step(0);
    if (state.sum().defined()) state.sum().fill_(options.initial_accumulator_value());
  }

  static void count_step(State& state) { state.step(state.step() + 1); }

  template <class Rate>
  static void update(c10::ArrayRef<Entry> list, const Options& options, const Rate& lr) {
    at::_fused_adagrad_(column(list, [](const Entry& entry) { return entry.parameter; }),
                        column(list, [](const Entry& entry) { return entry.gradient; }),
                        column(list, [](const Entry& entry) { return entry.state->sum(); }),
                        step_counts(list), rate(lr), options.lr_decay(), options.weight_decay(),
                        options.eps(), /*maximize=*/false);
  }

 private:
#if TORCH_VERSION_MINOR >= 8
  template <class Rate>
  static const Rate& rate(const Rate& lr) {
    return lr;
  }
#else  // the fused function takes a number alone, and steps parameters on a CPU alone
  static double rate(double lr) { return lr; }
  static double rate(const at::Tensor& lr) { return lr.item<double>(); }
#endif
};

}  // namespace detail::optim

/// torch::optim::Adagrad with one pass over memory: each group is stepped by one call of
/// `at::_fused_adagrad_` for each device and dtype, instead of some five ATen calls for each
/// parameter. On a CPU the step takes less than half of Adagrad's time for the weights of ResNet-18
/// and ResNet-20.
///
///   g' = g + lambda w                                 weight_decay lambda
///   s <- s + g'^2
///   w <- w - lr / (1 + (t - 1) lr_decay) g' / (sqrt(s) + eps)
///
/// It is-a torch::optim::Adagrad, with its constructors, options and state: schedulers work, and
/// checkpoints go either way. Unlike Adagrad itself, it takes groups after its construction.
/// Numbers are Adagrad's up to rounding (half and bfloat16 are computed in float32, where Adagrad
/// itself rounds after each operation).
///
/// The fused step takes float64, float32, half and bfloat16 on CPU and CUDA, dense without gaps in
/// any order of dimensions, each parameter held once. Everything else, including sparse gradients
/// without weight decay, takes Adagrad's own step, and so does everything on a GPU before LibTorch
/// 2.10. `step()` leaves the gradients as they are and does not wait for the device.
/// `make_capturable()` readies it for CUDA graphs.
///
/// @source  Duchi, Hazan, Singer 2011, "Adaptive subgradient methods for online learning and
///          stochastic optimization"
class FusedAdagrad
    : public detail::optim::Fused<torch::optim::Adagrad, detail::optim::FusedAdagradPolicy> {
 public:
  /// Constructed as Adagrad is. A parameter that is held twice is refused before Adagrad makes its
  /// state.
  explicit FusedAdagrad(const std::vector<torch::optim::OptimizerParamGroup>& groups,
                        torch::optim::AdagradOptions defaults = {})
      : Fused(each_once(groups), std::move(defaults)) {}
  /// The same for one group.
  explicit FusedAdagrad(std::vector<at::Tensor> parameters,
                        torch::optim::AdagradOptions defaults = {})
      : FusedAdagrad({torch::optim::OptimizerParamGroup(std::move(parameters))},
                     std::move(defaults)) {}

 private:
  /// Names a parameter that comes twice, which Adagrad's constructor refuses without naming it.
  static const std::vector<torch::optim::OptimizerParamGroup>& each_once(
      const std::vector<torch::optim::OptimizerParamGroup>& groups) {
    detail::parameters::HeldOnce(detail::optim::FusedAdagradPolicy::kWho, groups);
    return groups;
  }
};

template <>
inline constexpr bool detail::folded::kIsCapturable<FusedAdagrad> = true;

}  // namespace lawn
