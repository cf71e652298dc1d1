// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/betas.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <string>
#include <tuple>

#include "examples/apps/support/decorated_stepper.h"
#include "examples/apps/support/optimizers.h"
#include "lawn/companions/mimicnorm/centered.h"
#include "lawn/optim/lamb_options.h"
#include "tests/support/refusal.h"

namespace {

using examples::Betas;
using lawn::testing::expect_refusal;

TEST(ParseBetas, ReadsTwoNumbersAndLeavesAnEmptyTextToTheOptimizer) {
  EXPECT_EQ(examples::parse_betas("0.9,0.95"), Betas(0.9, 0.95));
  EXPECT_EQ(examples::parse_betas("0,1e-3"), Betas(0, 1e-3));
  EXPECT_EQ(examples::parse_betas_if_any("0.9,0.95"), Betas(0.9, 0.95));
  EXPECT_EQ(examples::parse_betas_if_any(""), std::nullopt);
}

TEST(ParseBetas, RefusesAnythingElseAndSaysWhatItExpected) {
  for (const std::string text :
       {"", "0.9", "0.9,", ",0.95", "0.9,0.95,0.99", "0.9;0.95", "0.9 0.95", "0.9,1", "1,0.9",
        "-0.1,0.9", "0.9,nan", "inf,0.9", "0.9,0.95x", "a,b", "1e999,0.9"}) {
    expect_refusal(
        [&] { examples::parse_betas(text); },
        "--betas: expected two numbers from 0 to below 1, as in 0.9,0.999; got '" + text + "'");
  }
}

TEST(CheckBetas, RefusesAnOptimizerThatHasNone) {
  for (const std::string name : {"sgd", "fused-sgd", "lars"}) {
    expect_refusal([&] { examples::check_betas(Betas(0.9, 0.95), name); },
                   "--betas: expected an optimizer with two betas, one of adam adamw fused-adam "
                   "fused-adamw lamb; got " +
                       name + ": leave --betas out");
    EXPECT_NO_THROW(examples::check_betas(std::nullopt, name));
  }
  for (const std::string& name : examples::kAdaptiveOptimizers) {
    EXPECT_NO_THROW(examples::check_betas(Betas(0.9, 0.95), name));
  }
}

template <class Options>
Betas betas_of(examples::Stepper& stepper) {
  return static_cast<const Options&>(stepper.optimizer().param_groups().front().options()).betas();
}

Betas betas_in(const std::string& name, examples::Stepper& stepper) {
  if (name == "lamb") return betas_of<lawn::LAMBOptions>(stepper);
  const bool decoupled = name == "adamw" || name == "fused-adamw";
  return decoupled ? betas_of<torch::optim::AdamWOptions>(stepper)
                   : betas_of<torch::optim::AdamOptions>(stepper);
}

TEST(Betas, ReachEachOptimizerPlainAndWithLAWN) {
  const auto weight = torch::ones({3, 2}, torch::requires_grad());
  for (const std::string& name : examples::kAdaptiveOptimizers) {
    for (const bool with_lawn : {false, true}) {
      examples::StepperOptions options;
      options.optimizer = name;
      options.lawn = with_lawn;
      options.total_steps = 10;
      const auto make = [&] {
        return examples::make_stepper({weight}, lawn::select({weight}), options);
      };
      EXPECT_EQ(betas_in(name, *make()), Betas(0.9, 0.999)) << name;
      options.betas = Betas(0.8, 0.95);
      EXPECT_EQ(betas_in(name, *make()), Betas(0.8, 0.95)) << name;
    }
  }
}

TEST(Betas, ReachADecoratedOptimizerAndAreRefusedForSgd) {
  const auto weight = torch::ones({3, 2}, torch::requires_grad());
  examples::StepperOptions options;
  options.total_steps = 10;
  options.betas = Betas(0.8, 0.95);
  const auto make = [&](const std::string& name) {
    options.optimizer = name;
    return examples::make_decorated_stepper<lawn::Centered>({weight}, options,
                                                            lawn::select({weight}));
  };
  for (const std::string name : {"adam", "adamw"}) {
    EXPECT_EQ(betas_in(name, *make(name)), Betas(0.8, 0.95));
  }
  expect_refusal([&] { make("sgd"); }, "--betas: expected an optimizer with two betas");
  options.optimizer = "lars";
  expect_refusal([&] { examples::make_stepper({weight}, lawn::select({weight}), options); },
                 "got lars: leave --betas out");
}

}  // namespace
