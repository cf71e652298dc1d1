// SPDX-License-Identifier: Apache-2.0

#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/decorator.h>

#include "tests/support/refusal.h"
#include "tests/support/warnings.h"

namespace {

using Log = std::vector<std::string>;

/// Writes down when it is called; its number is its state.
struct LoggingRule {
  static constexpr const char* kWho = "test::Logging";
  std::string name;
  Log* log;
  int64_t number = 0;

  void before_step(torch::optim::Optimizer& /*optimizer*/) { log->push_back(name + " before"); }
  void after_step(torch::optim::Optimizer& /*optimizer*/) { log->push_back(name + " after"); }
  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("number", c10::IValue(number));
  }
  void load(torch::serialize::InputArchive& archive, const torch::optim::Optimizer& /*optimizer*/) {
    c10::IValue value;
    archive.read("number", value);
    number = value.toInt();
  }
};

template <class Opt>
struct Logging : lawn::Decorator<Opt, LoggingRule> {
  Logging(Opt&& optimizer, std::string name, Log& log)
      : lawn::Decorator<Opt, LoggingRule>(std::move(optimizer),
                                          LoggingRule{std::move(name), &log}) {}
  int64_t& number() { return this->rule_.number; }
};

/// Evaluates its closure twice a step and writes its own part down.
struct Twice : torch::optim::SGD {
  Twice(std::vector<torch::Tensor> parameters, Log& log)
      : SGD(std::move(parameters), torch::optim::SGDOptions(0.1)), log_(&log) {}
  torch::Tensor step(LossClosure closure = nullptr) override {
    torch::Tensor loss;
    if (closure) {
      closure();
      loss = closure();
    }
    log_->push_back("update");
    return loss;
  }

 private:
  Log* log_;
};

torch::Tensor weight() { return torch::ones({2}, torch::requires_grad()); }

TEST(Decorator, SurroundsTheUpdateOuterRuleFirstAndLast) {
  Log log;
  Logging<Logging<Twice>> optimizer(Logging<Twice>(Twice({weight()}, log), "inner", log), "outer",
                                    log);
  optimizer.step();
  const Log expected = {"outer before", "inner before", "update", "inner after", "outer after"};
  EXPECT_EQ(log, expected);
}

TEST(Decorator, ShowsTheGradientsOfEveryEvaluationToEveryRule) {
  Log log;
  Logging<Logging<Twice>> optimizer(Logging<Twice>(Twice({weight()}, log), "inner", log), "outer",
                                    log);
  const auto loss = optimizer.step([&] {
    log.push_back("closure");
    return torch::tensor(3.0);
  });
  const Log expected = {"closure", "outer before", "inner before",
                        "closure", "outer before", "inner before",
                        "update",  "inner after",  "outer after"};
  EXPECT_EQ(log, expected);
  EXPECT_EQ(loss.item<double>(), 3.0);
}

TEST(Decorator, KeepsTheGroupsThatWereMovedIn) {
  Log log;
  Twice base({weight()}, log);
  const auto* options = &base.param_groups().front().options();
  Logging<Twice> optimizer(std::move(base), "rule", log);
  EXPECT_EQ(&optimizer.param_groups().front().options(), options)
      << "no copy: copies cut schedulers off";
}

TEST(Decorator, SavesEachRuleInItsPlace) {
  Log log;
  using Both = Logging<Logging<Twice>>;
  const auto make = [&] {
    return Both(Logging<Twice>(Twice({weight()}, log), "inner", log), "outer", log);
  };
  auto first = make();
  first.number() = 1;
  static_cast<Logging<Twice>&>(first).number() = 2;
  std::stringstream file;
  torch::save(first, file);
  auto second = make();
  torch::load(second, file);
  EXPECT_EQ(second.number(), 1);
  EXPECT_EQ(static_cast<Logging<Twice>&>(second).number(), 2);
}

TEST(Decorator, WarnsOfACheckpointWithoutItself) {
  Log log;
  Logging<Twice> inner(Twice({weight()}, log), "inner", log);
  inner.number() = 7;
  std::stringstream file;
  torch::save(inner, file);
  Logging<Logging<Twice>> both(Logging<Twice>(Twice({weight()}, log), "inner", log), "outer", log);
  both.number() = 3;
  const lawn::testing::CapturedWarnings warnings;
  torch::load(both, file);
  EXPECT_NE(
      warnings.text().find("test::Logging: the checkpoint was written by an optimizer without"),
      std::string::npos);
  EXPECT_EQ(both.number(), 3);
  EXPECT_EQ(static_cast<Logging<Twice>&>(both).number(), 7);
}

}  // namespace
