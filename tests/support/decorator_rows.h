// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/mimicnorm/centered.h>
#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/masked.h>
#include <lawn/companions/unification/admm.h>
#include <lawn/lawn.h>

#include "tests/support/rows.h"

/// The decorators of the conformance table, each around optimizers of every kind: by element and by
/// layer, plain and fused, with and without a closure, and one that lawn does not know. A new
/// decorator is one struct here, and its name in `DecoratorRows`.
namespace lawn::testing {

/// What a row says:
///   Decorated<Opt>                              the class
///   wrap(Opt&&, const Subnetwork& weights)      an optimizer that acts on all of `weights`
struct LAWNRow {
  template <class Opt>
  using Decorated = lawn::LAWN<Opt>;
  template <class Opt>
  static Decorated<Opt> wrap(Opt&& optimizer, const Subnetwork& weights) {
    return Decorated<Opt>(std::move(optimizer), weights);
  }
};

struct MaskedRow {
  template <class Opt>
  using Decorated = lawn::Masked<Opt>;
  template <class Opt>
  static Decorated<Opt> wrap(Opt&& optimizer, const Subnetwork& weights) {
    return Decorated<Opt>(std::move(optimizer),
                          magnitude_masks(weights, MagnitudeOptions().amount(0.25)));
  }
};

struct CenteredRow {
  template <class Opt>
  using Decorated = lawn::Centered<Opt>;
  template <class Opt>
  static Decorated<Opt> wrap(Opt&& optimizer, const Subnetwork& weights) {
    return Decorated<Opt>(std::move(optimizer), weights);
  }
};

struct AdmmRow {
  template <class Opt>
  using Decorated = lawn::Admm<Opt>;
  template <class Opt>
  static Decorated<Opt> wrap(Opt&& optimizer, const Subnetwork& weights) {
    return Decorated<Opt>(std::move(optimizer), weights, Projection::unify_blocks({2, 2}, 0.5));
  }
};

/// A decorator around the optimizer of a row of `Rows`.
template <class Decorator, class Row>
struct DecoratorRow {
  using Opt = typename Row::Opt;
  using Decorated = typename Decorator::template Decorated<Opt>;
  static Decorated make(const Groups& groups, const Subnetwork& weights) {
    return Decorator::wrap(Row::make(groups), weights);
  }
};

template <class... Row>
struct DecoratorRowsOf {
  template <class Decorator>
  using Around = ::testing::Types<DecoratorRow<Decorator, Row>...>;
};

using BaseRows =
    DecoratorRowsOf<MomentumSGD, FusedDecayedAdamW, FusedDecayedAdam, LARS, LBFGS, Own>;

}  // namespace lawn::testing
