// SPDX-License-Identifier: Apache-2.0

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>
#include <lawn/subnetwork/select_by_name.h>

#include "tests/support/own_optimizer.h"
#include "tests/support/refusal.h"
#include "tests/support/rows.h"
#include "tests/support/saved.h"

namespace {

using lawn::Granularity;
using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::testing::expect_refusal;
using lawn::testing::load;
using lawn::testing::Problem;
using lawn::testing::saved;
using torch::optim::Adam;
using torch::optim::AdamOptions;

/// A network of two linear layers under LAWN<Adam>, some steps on.
struct Session {
  explicit Session(int64_t hidden = 8, LAWNOptions options = LAWNOptions().free_steps(2),
                   int64_t steps = 4)
      : model(torch::nn::Linear(6, hidden), torch::nn::ReLU(), torch::nn::Linear(hidden, 3)),
        optimizer(Adam(model->parameters(), AdamOptions(0.01)), lawn::select_all_weights(*model),
                  std::move(options)) {
    torch::manual_seed(1);
    for (int64_t t = 0; t < steps; ++t) {
      optimizer.zero_grad();
      model->forward(torch::randn({16, 6})).square().mean().backward();
      optimizer.step();
    }
  }

  torch::nn::Sequential model;
  LAWN<Adam> optimizer;
};

/// Everything that a load may change, to see that a refused one did not. (The bytes of a checkpoint
/// hold the addresses of the parameters, so they compare within one process alone.)
std::string everything(const Session& run) { return saved(run.optimizer) + saved(run.model); }

TEST(Checkpoint, HoldsPhaseStepsAndRadii) {
  const Session run;
  Session other(8, LAWNOptions().free_steps(2), 0);
  load(other.optimizer, saved(run.optimizer));
  EXPECT_EQ(other.optimizer.steps(), 4);
  EXPECT_EQ(other.optimizer.phase(), lawn::Phase::kConstrained);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(other.optimizer.report().layers[i].radius, run.optimizer.report().layers[i].radius);
  }
}

TEST(Checkpoint, HoldsInitialRadiiThroughTheFreePhase) {
  const auto options = LAWNOptions().free_steps(100).radius(lawn::Radius::kInitial);
  const Session run(8, options);
  Session other(8, options, 0);  // initialised otherwise
  load(other.optimizer, saved(run.optimizer));
  EXPECT_EQ(other.optimizer.phase(), lawn::Phase::kFree);
  EXPECT_EQ(other.optimizer.report().layers[0].radius, run.optimizer.report().layers[0].radius);
}

TEST(Checkpoint, OfAFreePhaseWithoutRadiiLeavesTheInitialOnes) {
  const Session run(8, LAWNOptions().free_steps(100));
  Session other(8, LAWNOptions().free_steps(100).radius(lawn::Radius::kInitial), 0);
  const auto radius = other.optimizer.report().layers[0].radius;
  ASSERT_TRUE(radius.has_value());
  load(other.optimizer, saved(run.optimizer));
  EXPECT_EQ(other.optimizer.report().layers[0].radius, radius);
  other.optimizer.constrain();
  EXPECT_NEAR(other.optimizer.report().layers[0].norm, *radius, 1e-5);
}

TEST(Checkpoint, HoldsRadiiOfOutputUnits) {
  const auto options = LAWNOptions().granularity(Granularity::kOutputUnit);
  const Session run(8, options);
  Session other(8, options, 0);
  load(other.model, saved(run.model));
  load(other.optimizer, saved(run.optimizer));
  EXPECT_LE(other.optimizer.report().layers[0].norm_error.value(), 1e-6);
}

TEST(Checkpoint, OfAUsedOptimizerLeavesNothingOfItsOldState) {
  Session fresh(8, LAWNOptions(), 0);
  const auto bytes = saved(fresh.optimizer);
  Session used;
  EXPECT_EQ(used.optimizer.state().size(), 4U);
  load(used.optimizer, bytes);
  EXPECT_TRUE(used.optimizer.state().empty());
  EXPECT_EQ(used.optimizer.steps(), 0);
}

TEST(CheckpointRefused, OfOtherShapesChangesNothing) {
  const Session wide(16);
  Session run;
  const auto before = everything(run);
  expect_refusal([&] { load(run.optimizer, saved(wide.optimizer)); }, "nothing was changed");
  EXPECT_EQ(everything(run), before);

  Session unused(8, LAWNOptions(), 0);  // no state that could give the shapes away
  const Session unused_wide(16, LAWNOptions(), 0);
  expect_refusal([&] { load(unused.optimizer, saved(unused_wide.optimizer)); },
                 "expected a checkpoint of parameters with the groups and shapes");
}

TEST(CheckpointRefused, OfAPlainOptimizerOfAnotherModelChangesNothing) {
  Problem problem;
  torch::nn::Linear other(6, 8);
  torch::nn::Sequential wide(torch::nn::Linear(6, 16), torch::nn::ReLU(), torch::nn::Linear(16, 3));
  Session run;
  const auto before = everything(run);
  Adam of_fewer(other->parameters(), AdamOptions(0.5));
  expect_refusal([&] { load(run.optimizer, saved(of_fewer)); },
                 "expected a checkpoint with 4 parameters in group 0, got one with 2");
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(wide->parameters());
  groups.emplace_back(other->parameters());
  Adam of_groups(groups, AdamOptions(0.5));
  expect_refusal([&] { load(run.optimizer, saved(of_groups)); },
                 "expected a checkpoint of 1 parameter group(s), got one of 2");
  Adam of_wide(wide->parameters(), AdamOptions(0.5));
  wide->forward(torch::ones({1, 6})).sum().backward();
  of_wide.step();
  expect_refusal([&] { load(run.optimizer, saved(of_wide)); },
                 "expected exp_avg of parameter 0 in group 0 to have the parameter's shape [8, 6], "
                 "got [16, 6]");
  EXPECT_EQ(everything(run), before);
}

TEST(CheckpointRefused, OfAnotherSelectionNamesBoth) {
  Session run;
  torch::nn::Sequential model(torch::nn::Linear(6, 8), torch::nn::ReLU(), torch::nn::Linear(8, 3));
  LAWN head(Adam(model->parameters(), AdamOptions(0.01)),
            lawn::select_by_name(*model, "2\\.weight"));
  const auto before = everything(run);
  const auto message = lawn::testing::refusal([&] { load(run.optimizer, saved(head)); });
  EXPECT_NE(message.find("weights [0.weight, 2.weight], got one of [2.weight]"), std::string::npos)
      << message;
  EXPECT_EQ(everything(run), before);
}

TEST(CheckpointRefused, OfAnotherGranularityNamesTheLayer) {
  const Session units(8, LAWNOptions().granularity(Granularity::kOutputUnit));
  Session run;
  const auto before = everything(run);
  expect_refusal([&] { load(run.optimizer, saved(units.optimizer)); },
                 "expected the radius of 0.weight to have shape [], got [8]");
  EXPECT_EQ(everything(run), before);
}

TEST(CheckpointRefused, ThatIsCutOff) {
  const Session source;
  Session run;
  const auto before = everything(run);
  const auto whole = saved(source.optimizer);
  for (const size_t keep : {whole.size() / 2, whole.size() - 40, size_t{0}}) {
    EXPECT_ANY_THROW(load(run.optimizer, whole.substr(0, keep))) << keep;
    EXPECT_EQ(everything(run), before) << keep;
  }
}

TEST(CheckpointRefused, OfAModelInsteadOfAnOptimizer) {
  Session run;
  const auto before = everything(run);
  EXPECT_ANY_THROW(load(run.optimizer, saved(run.model)));
  EXPECT_EQ(everything(run), before);
}

/// An optimizer whose own `load` fails when half of its work is done.
struct Failing : Adam {
  using Adam::Adam;
  void load(torch::serialize::InputArchive& archive) override {
    Adam::load(archive);
    static_cast<AdamOptions&>(param_groups()[0].options()).lr(123);
    throw std::runtime_error("half-way");
  }
};

struct RowwiseState : torch::optim::OptimizerCloneableParamState<RowwiseState> {
  torch::Tensor sum;
  void serialize(torch::serialize::OutputArchive& archive) const override {
    archive.write("sum", sum, /*is_buffer=*/true);
  }
  void serialize(torch::serialize::InputArchive& archive) override {
    archive.read("sum", sum, /*is_buffer=*/true);
  }
};

/// A user's optimizer, whose state has a name of Adagrad's and a number for each row.
class RowwiseAdagrad : public lawn::testing::SignMomentum {
 public:
  using SignMomentum::SignMomentum;
  torch::Tensor step(LossClosure /*closure*/ = nullptr) override {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : param_groups_[0].params()) {
      auto& state = state_[parameter.unsafeGetTensorImpl()];
      if (!state) state = std::make_unique<RowwiseState>();
      auto& sum = static_cast<RowwiseState&>(*state).sum;
      const auto squares = parameter.grad().square().view({parameter.size(0), -1}).mean(1);
      sum = sum.defined() ? sum + squares : squares;
    }
    return {};
  }
  void save(torch::serialize::OutputArchive& archive) const override {
    torch::optim::serialize<RowwiseState, lawn::testing::SignMomentumOptions>(archive, *this);
  }
  void load(torch::serialize::InputArchive& archive) override {
    torch::optim::serialize<RowwiseState, lawn::testing::SignMomentumOptions>(archive, *this);
  }
};

TEST(Checkpoint, OfAnOptimizerOfTheUsersOwnMayHaveStateOfAnyShape) {
  Problem problem;
  LAWN optimizer(RowwiseAdagrad(problem.groups()), problem.weights());
  problem.backward(0);
  optimizer.step();
  const auto bytes = saved(optimizer);
  LAWN other(RowwiseAdagrad(problem.groups()), problem.weights());
  load(other, bytes);
  EXPECT_EQ(other.state().size(), optimizer.state().size());
  EXPECT_EQ(other.steps(), 1);
}

TEST(CheckpointRefused, ByTheBaseOptimizerHalfWayIsUndone) {
  Problem problem;
  LAWN optimizer(Failing(problem.model->parameters(), AdamOptions(0.01)), problem.weights());
  problem.backward(0);
  optimizer.step();
  const auto bytes = saved(optimizer);
  problem.backward(1);
  optimizer.step();
  const auto* options = &optimizer.param_groups()[0].options();
  expect_refusal([&] { load(optimizer, bytes); }, "got a damaged one: half-way");
  EXPECT_EQ(&optimizer.param_groups()[0].options(), options) << "others may refer to them";
  EXPECT_EQ(optimizer.steps(), 2);
  EXPECT_EQ(optimizer.param_groups()[0].options().get_lr(), 0.01);
  for (const auto& parameter : problem.model->parameters()) {
    const auto& state = static_cast<const torch::optim::AdamParamState&>(
        *optimizer.state().at(parameter.unsafeGetTensorImpl()));
    EXPECT_EQ(state.step(), 2);
  }
}

TEST(CheckpointRefused, OfAnOptimizerThatKeepsStateAndWritesNone) {
  using lawn::testing::UnsavedSignMomentum;
  Problem problem;
  LAWN optimizer(UnsavedSignMomentum(problem.groups()), problem.weights());
  const auto fresh = saved(optimizer);  // there is nothing to lose yet
  problem.backward(0);
  optimizer.step();
  const auto size = optimizer.state().size();
  ASSERT_GT(size, 0U);
  expect_refusal([&] { saved(optimizer); }, "whose save() writes nothing");
  EXPECT_EQ(optimizer.state().size(), size);
  load(optimizer, fresh);
  EXPECT_EQ(optimizer.state().size(), size) << "what cannot be read is not dropped";
  EXPECT_EQ(optimizer.steps(), 0);
}

}  // namespace
