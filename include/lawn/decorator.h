// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/optimizer_state.h>
#include <lawn/finite_math.h>
#include <lawn/parameters/held_once.h>

namespace lawn {

namespace detail {
template <class Opt, class = void>
struct DecoratorDepth : std::integral_constant<int, 0> {};
template <class Opt>
struct DecoratorDepth<Opt, std::void_t<decltype(Opt::kDecorators)>>
    : std::integral_constant<int, Opt::kDecorators> {};

/// Whether an optimizer has `check_step()`, which throws beforehand what its step would refuse.
template <class Opt, class = void>
constexpr bool kChecksSteps = false;
template <class Opt>
constexpr bool kChecksSteps<Opt, std::void_t<decltype(std::declval<Opt&>().check_step())>> = true;

/// Whether a rule has `check`, which is optional; `kHasBeginStep` likewise.
template <class Rule, class = void>
constexpr bool kHasCheck = false;
template <class Rule>
constexpr bool kHasCheck<Rule, std::void_t<decltype(std::declval<Rule&>().check(
                                   std::declval<const torch::optim::Optimizer&>()))>> = true;
template <class Rule, class = void>
constexpr bool kHasBeginStep = false;
template <class Rule>
constexpr bool kHasBeginStep<Rule, std::void_t<decltype(std::declval<Rule&>().begin_step())>> =
    true;
}  // namespace detail

/// An optimizer that is-a `Opt` and lets `Rule` act around each of its steps.
///
///   with a closure:    evaluation: closure(), check_step(), rule.before_step(optimizer)
///                      as often as Opt asks
///   without:           check_step(), rule.before_step(optimizer)
///   then:              Opt's update, rule.after_step(optimizer)
///
/// `before_step` runs when the gradients are computed and the weights have not moved since;
/// `after_step` runs when the weights have moved. Decorators nest: the outer rule sees the
/// gradients first and the weights last. `check_step` refuses whatever one of them would refuse,
/// before the first of them changes anything.
///
/// @tparam Opt   any class derived from torch::optim::Optimizer that can be moved. If it has a
///               function `check_step()` that throws what its step would refuse, that is called
///               beforehand
/// @tparam Rule  copyable, with
///   static constexpr const char* kWho                    in messages and checkpoints
///   void before_step(torch::optim::Optimizer&)
///   void after_step(torch::optim::Optimizer&)
///   void save(torch::serialize::OutputArchive&) const
///   void load(torch::serialize::InputArchive&, const torch::optim::Optimizer&)
///                                                         replaces tensors, never writes into them
///   and, if it needs them,
///   void begin_step()                                     once, before the first evaluation
///   void check(const torch::optim::Optimizer&)            throws for what before_step cannot do;
///                                                         weights: `HeldWeights::check`
template <class Opt, class Rule>
class Decorator : public Opt {
  static_assert(std::is_base_of_v<torch::optim::Optimizer, Opt>,
                "lawn: a decorator wraps a class derived from torch::optim::Optimizer");

 public:
  /// Number of decorators from the plain optimizer up to and including this one.
  static constexpr int kDecorators = detail::DecoratorDepth<Opt>::value + 1;

  /// One step of the base optimizer, with the rule around it.
  /// @return what the base optimizer returns: the loss of the closure, or an undefined tensor
  /// @throws c10::Error as `check_step` does, and around L-BFGS without a closure; nothing is
  ///         changed
  at::Tensor step(torch::optim::Optimizer::LossClosure closure = nullptr) override {
    if constexpr (std::is_base_of_v<torch::optim::LBFGS, Opt>) {
      TORCH_CHECK(closure != nullptr, Rule::kWho,
                  ": expected a closure, which L-BFGS evaluates, got none; nothing was changed");
    }
    if constexpr (detail::kHasBeginStep<Rule>) rule_.begin_step();
    at::Tensor loss;
    if (closure) {
      loss = Opt::step([this, &closure] {
        auto evaluated = closure();
        check_step();
        rule_.before_step(*this);
        return evaluated;
      });
    } else {
      check_step();
      rule_.before_step(*this);
      loss = Opt::step(nullptr);
    }
    rule_.after_step(*this);
    return loss;
  }

  /// Refuses what a step with the present gradients would refuse: what the rules refuse, and what
  /// an `Opt` with a `check_step()` refuses. `step()` calls it.
  /// @throws c10::Error; nothing is changed
  void check_step() {
    if constexpr (detail::kHasCheck<Rule>) rule_.check(*this);
    if constexpr (detail::kChecksSteps<Opt>) Opt::check_step();
  }

  /// Adds a group as `Opt` does.
  /// @throws c10::Error also for a tensor that the optimizer would then hold twice, naming both
  ///         places; the groups stay as they were
  void add_param_group(const torch::optim::OptimizerParamGroup& group) {
    detail::parameters::refuse_held(Rule::kWho, this->param_groups(), group);
    Opt::add_param_group(group);
  }

  /// Writes what `Opt` writes, in its layout, and the rule's state beside it: a plain `Opt` can
  /// load the same checkpoint.
  /// @throws c10::Error if `Opt` has state and no `save` of its own: LibTorch's base class writes
  ///         nothing
  void save(torch::serialize::OutputArchive& archive) const override {
    if constexpr (detail::archive::kWritesNothing<Opt>) {
      detail::archive::refuse_unwritten_state(Rule::kWho, *this);
    }
    Opt::save(archive);
    if constexpr (kDecorators == 1) {
      archive.write(detail::archive::kParametersKey,
                    c10::IValue(detail::archive::describe_parameters(*this)));
    }
    torch::serialize::OutputArchive state(archive.compilation_unit());
    state.write("name", c10::IValue(std::string(Rule::kWho)));
    rule_.save(state);
    archive.write(key(), state);
  }

  /// Reads what `save` wrote, or what a plain `Opt` wrote (with a warning; the rule then keeps its
  /// state). A checkpoint of other parameters or another decorator is refused before anything
  /// changes. An `Opt` that writes nothing keeps its state.
  /// @throws c10::Error
  void load(torch::serialize::InputArchive& archive) override {
    detail::archive::refuse_other_parameters(Rule::kWho, archive, *this);
    Rule loaded = rule_;
    torch::serialize::InputArchive state;
    if (archive.try_read(key(), state)) {
      const auto name = detail::archive::read_text(Rule::kWho, state, "name");
      TORCH_CHECK(name == Rule::kWho, Rule::kWho, ": expected a checkpoint of ", Rule::kWho,
                  " in place ", kDecorators, " of the decorators, got one of ", name,
                  ": nest them as they were saved; nothing was changed");
      loaded.load(state, *this);
    } else {
      TORCH_WARN(Rule::kWho,
                 ": the checkpoint was written by an optimizer without this decorator; the base "
                 "optimizer's state is loaded, the decorator's own stays as it is");
    }
    detail::archive::load_or_restore(Rule::kWho, *this, archive, [&] { Opt::load(archive); });
    rule_ = std::move(loaded);
  }

 protected:
  /// @param optimizer  moved in, with its groups, options and state
  /// @param rule       acts around each step
  Decorator(Opt&& optimizer, Rule rule) : Opt(std::move(optimizer)), rule_(std::move(rule)) {}

  /// The rule that acts around each step.
  Rule rule_;

 private:
  static std::string key() { return "lawn/decorator/" + std::to_string(kDecorators); }
};

}  // namespace lawn
