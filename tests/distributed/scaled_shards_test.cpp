// SPDX-License-Identifier: Apache-2.0
//
// GradScaler and clip_grad_norm_ over parameters that are sharded over ranks: what one rank sees of
// the gradients decides for all.
#include <lawn/clip_grad_norm.h>
#include <lawn/distributed/parameter_shards.h>
#include <lawn/distributed/sharded_spheres.h>
#include <lawn/grad_scaler.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/distributed/data_parallel.h>
#include <lawn/distributed/shard_ranks.h>
#include <lawn/lawn.h>

#include "tests/capture/device_reads.h"
#include "tests/distributed/counting.h"
#include "tests/distributed/ranks.h"
#include "tests/support/refusal.h"
#include "tests/support/saved.h"
#include "tests/support/tolerance.h"

namespace {

using namespace lawn;

using lawn::detail::distributed::ShardMark;
using lawn::testing::Counting;
using lawn::testing::device_reads;
using lawn::testing::expect_refusal;
using lawn::testing::refusal;
using lawn::testing::saved;
using lawn::testing::tolerance;
using torch::Tensor;

constexpr int64_t kFeatures = 6, kClasses = 3, kSamples = 24;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

torch::nn::Sequential make_model() {
  torch::manual_seed(3);
  return torch::nn::Sequential(torch::nn::Linear(kFeatures, 16), torch::nn::ReLU(),
                               torch::nn::Linear(16, 16), torch::nn::ReLU(),
                               torch::nn::Linear(16, kClasses));
}

/// Parameters of several sizes as a whole, the same on all ranks, and this rank's parts of all
/// except the last, which each rank holds as a whole.
struct Cut {
  Cut(Collective& ranks, at::ScalarType dtype, bool all_on_the_last = false) {
    torch::manual_seed(8);
    const std::vector<std::vector<int64_t>> shapes = {{5, 7}, {1}, {40}, {9}};
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      wholes.push_back(torch::randn(shapes[i], torch::kDouble).to(dtype).set_requires_grad(true));
      const int64_t numel = wholes[i].numel();
      const int64_t last = ranks.size() - 1, rank = ranks.rank();
      const auto border = [&](int64_t r) {
        if (all_on_the_last) return r <= last ? int64_t{0} : numel;
        return numel * r / ranks.size();
      };
      const bool whole = i + 1 == shapes.size();
      begins.push_back(whole ? 0 : border(rank));
      ends.push_back(whole ? numel : border(rank + 1));
      parts.push_back(part_of(wholes[i], i).clone().set_requires_grad(true));
      if (whole) continue;
      shards.push_back({"w" + std::to_string(i), parts[i], shapes[i], begins[i]});
    }
  }

  Tensor part_of(const Tensor& whole, std::size_t i) const {
    return whole.detach().reshape({-1}).narrow(0, begins[i], ends[i] - begins[i]);
  }

  /// Gives wholes and parts the same gradients; parts without elements have none.
  void give_gradients(int64_t step, double scale = 1) {
    for (std::size_t i = 0; i < wholes.size(); ++i) {
      torch::manual_seed(static_cast<uint64_t>(100 * step) + i);
      const auto gradient =
          (torch::randn(wholes[i].sizes(), torch::kDouble) * scale).to(wholes[i].scalar_type());
      wholes[i].mutable_grad() = gradient;
      if (i >= parts.size()) continue;
      parts[i].mutable_grad() =
          parts[i].numel() == 0 ? Tensor() : part_of(gradient, i).view(parts[i].sizes()).clone();
    }
  }

  void expect_parts_of(const std::vector<Tensor>& got, const std::vector<Tensor>& wanted,
                       double relative, const std::string& where) const {
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (!got[i].defined() || got[i].numel() == 0) continue;
      const auto expected = part_of(wanted[i], i);
      EXPECT_TRUE(torch::allclose(got[i].detach(), expected.view(got[i].sizes()), relative,
                                  relative * 1e-3))
          << where << ", parameter " << i << ": " << got[i] << " for " << expected;
    }
  }

  static std::vector<Tensor> gradients(const std::vector<Tensor>& parameters) {
    std::vector<Tensor> all;
    for (const auto& parameter : parameters) all.push_back(parameter.grad());
    return all;
  }

  std::vector<Tensor> wholes, parts;
  std::vector<int64_t> begins, ends;
  std::vector<Shard> shards;
};

class ScaledShards : public lawn::testing::Ranks {
 protected:
  /// Trains with LAWN around Adam, scaled and clipped, with `ParameterShards` and as one process:
  /// in steps 2, 6 and so on one rank's part of the gradient is not finite.
  void expect_like_one_process(int bad_rank, float bad, int64_t free_steps) {
    SCOPED_TRACE("rank " + std::to_string(bad_rank));
    auto model = make_model(), twin = make_model();
    DataParallel parallel(*model, ranks);
    ParameterShards shards(*model, ranks);
    const auto select = [](auto& of) {
      return final_homogeneous_subnetwork(of->forward(torch::ones({2, kFeatures})), *of);
    };
    const auto options = LAWNOptions().free_steps(free_steps);
    const auto adam = torch::optim::AdamOptions(1e-2).eps(1e-3);
    const auto scaling = GradScalerOptions().init_scale(1024).growth_interval(3);
    LAWN optimizer(torch::optim::Adam(shards.parameters(), adam), shards.select(select(model)),
                   LAWNOptions(options).spheres(shards.spheres()));
    LAWN expected(torch::optim::Adam(twin->parameters(), adam), select(twin), options);
    GradScaler scaler(scaling), twins_scaler(scaling);
    const auto loss = [](auto& of, const Tensor& x, const Tensor& y) {
      return torch::nn::functional::cross_entropy(of->forward(x), y);
    };
    const int64_t begin = kSamples * rank64() / size64();
    const int64_t count = kSamples * (rank64() + 1) / size64() - begin;
    for (int64_t step = 0; step < 16; ++step) {
      torch::manual_seed(static_cast<uint64_t>(step));
      const auto x = torch::randn({kSamples, kFeatures}), y = torch::randint(kClasses, {kSamples});
      model->zero_grad();
      const auto mine = loss(model, x.narrow(0, begin, count), y.narrow(0, begin, count));
      parallel.backward(scaler.scale(mine), count);
      shards.take_gradients();
      twin->zero_grad();
      twins_scaler.scale(loss(twin, x, y)).backward();
      const bool overflow = step % 4 == 2;
      if (overflow) {
        for (const auto& part : shards.parameters()) {
          if (rank() == bad_rank && part.numel() > 0) part.grad()[0] = bad;
        }
        twin->parameters()[0].mutable_grad()[0][0] = bad;
      }
      if (step % 2 == 1) {  // in every other step the scaler unscales by itself
        scaler.unscale_(optimizer);
        twins_scaler.unscale_(expected);
        const auto norm = clip_grad_norm_(shards.parameters(), 0.1);
        const auto wanted = clip_grad_norm_(twin->parameters(), 0.1);
        EXPECT_NEAR(norm.item<double>(), wanted.item<double>(),
                    tolerance(torch::kFloat).step * wanted.item<double>());
        expect_same_everywhere(norm, "norm");
      }
      EXPECT_EQ(scaler.step(optimizer), !overflow) << "step " << step;
      EXPECT_EQ(twins_scaler.step(expected), !overflow) << "step " << step;
      scaler.update();
      twins_scaler.update();
      shards.gather();
      EXPECT_EQ(scaler.get_scale(), twins_scaler.get_scale()) << "step " << step;
      EXPECT_EQ(optimizer.steps(), expected.steps());
    }
    EXPECT_EQ(optimizer.phase(), Phase::kConstrained);
    const auto got = model->parameters(), wanted = twin->parameters();
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_LT((got[i] - wanted[i]).abs().max().item<double>(),
                tolerance(torch::kFloat).trajectory)
          << i;
      expect_same_everywhere(got[i], "parameter " + std::to_string(i));
    }
  }
};

TEST_F(ScaledShards, SkipAsOneProcessDoesWhicheverRankSeesTheBadGradient) {
  for (int bad_rank = 0; bad_rank < size(); ++bad_rank) {
    expect_like_one_process(bad_rank, kInfinity, 5);
  }
  expect_like_one_process(size() - 1, static_cast<float>(kNaN), 0);
}

TEST_F(ScaledShards, SkipTogetherWhereRanksHaveNoElementsAndNoGradients) {
  Cut cut(ranks, torch::kFloat, /*all_on_the_last=*/true);
  cut.parts.pop_back();  // so that most ranks have no gradient at all
  const ShardedSpheres spheres(ranks, cut.shards);
  torch::optim::SGD sgd(cut.parts, 0.1);
  GradScaler scaler(GradScalerOptions().init_scale(8).growth_interval(2));
  scaler.scale(torch::ones({}));
  const bool holds = rank() == size() - 1;
  const std::vector<double> scales = {8, 4, 4, 8, 4};
  for (int64_t step = 0; step < 5; ++step) {
    cut.give_gradients(step);
    const bool overflow = step == 1 || step == 4;
    if (holds && overflow) cut.parts[2].mutable_grad()[7] = kInfinity;
    if (!holds) {
      EXPECT_FALSE(cut.parts[0].grad().defined());
    }
    EXPECT_EQ(scaler.step(sgd), !overflow) << "step " << step;
    scaler.update();
    EXPECT_EQ(scaler.get_scale(), scales[static_cast<std::size_t>(step)]) << "step " << step;
  }
  // Nobody has a gradient.
  sgd.zero_grad();
  expect_refusal([&] { scaler.step(sgd); },
                 "expected gradients, got an optimizer whose parameters have none");
  cut.give_gradients(5);
  EXPECT_TRUE(scaler.step(sgd));
  scaler.update();
}

TEST_F(ScaledShards, KnowOfEachOtherThoughTheScaleIsTheUsersOwn) {
  Cut cut(ranks, torch::kDouble);
  const ShardedSpheres spheres(ranks, cut.shards);
  torch::optim::SGD first(std::vector<Tensor>{cut.parts[0], cut.parts[1]}, 0.1);
  torch::optim::SGD second(std::vector<Tensor>{cut.parts[2], cut.parts[3]}, 0.1);
  GradScaler scaler(GradScalerOptions().init_scale(8));
  scaler.scale(torch::ones({}));
  cut.give_gradients(0);
  if (rank() == 0) cut.parts[2].mutable_grad().fill_(kInfinity);
  EXPECT_TRUE(scaler.step(first));
  // In 1 of 4 parts of 40 elements: the part is never empty.
  EXPECT_FALSE(scaler.step(second));
  scaler.update();
  EXPECT_EQ(scaler.get_scale(), 4);
  scaler.update(16);
  EXPECT_EQ(scaler.get_scale(), 16);
}

TEST_F(ScaledShards, CostOneSumAnIterationAndOneWaitOfTheHost) {
  Cut cut(ranks, torch::kFloat);
  Counting counted(ranks);
  const ShardedSpheres spheres(counted, cut.shards);
  torch::optim::SGD sgd(cut.parts, 0.1);
  GradScaler scaler;
  scaler.scale(torch::ones({}));
  cut.give_gradients(0);
  counted.gathers = 0;
  EXPECT_EQ(device_reads([&] { scaler.unscale_(sgd); }), 0);
  EXPECT_EQ(counted.sums, std::vector<int64_t>{2});
  EXPECT_EQ(device_reads([&] { clip_grad_norm_(cut.parts, 1); }), 0);
  EXPECT_EQ(counted.sums, (std::vector<int64_t>{2, size64()}));
  EXPECT_TRUE(scaler.step(sgd));
  scaler.update();
  EXPECT_EQ(counted.sums.size(), 2U);
  EXPECT_EQ(counted.gathers, 0);
}

TEST_F(ScaledShards, AreClippedByTheNormOfTheWholeInEveryOrder) {
  for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kBFloat16}) {
    for (const bool all_on_the_last : {false, true}) {
      Cut cut(ranks, dtype, all_on_the_last);
      const ShardedSpheres spheres(ranks, cut.shards);
      for (const double p : {1.0, 2.0, 3.0, 0.5, std::numeric_limits<double>::infinity()}) {
        for (const double size : {1.0, 1e-12, 1e12}) {
          for (const double max_norm : {0.25, 1e30, double{kInfinity}}) {
            const auto where = c10::str(dtype, ", p ", p, ", size ", size, ", limit ", max_norm);
            cut.give_gradients(1, size);
            const auto expected = clip_grad_norm_(cut.wholes, max_norm, p);
            const auto got = clip_grad_norm_(cut.parts, max_norm, p);
            EXPECT_EQ(got.scalar_type(), expected.scalar_type());
            EXPECT_NEAR(got.item<double>() / expected.item<double>(), 1,
                        10 * tolerance(dtype == torch::kDouble ? dtype : torch::kFloat).step)
                << where;
            expect_same_everywhere(got, where);
            cut.expect_parts_of(Cut::gradients(cut.parts), Cut::gradients(cut.wholes),
                                10 * tolerance(dtype).step, where);
          }
        }
      }
    }
  }
}

TEST_F(ScaledShards, AreClippedWhereRanksHaveNoElementsAndNoGradients) {
  Cut cut(ranks, torch::kFloat, /*all_on_the_last=*/true);
  cut.wholes.pop_back();  // so that most ranks have no gradient at all
  cut.parts.pop_back();
  const ShardedSpheres spheres(ranks, cut.shards);
  cut.give_gradients(0);
  const auto expected = clip_grad_norm_(cut.wholes, 0.5);
  const auto got = clip_grad_norm_(cut.parts, 0.5);
  EXPECT_NEAR(got.item<double>(), expected.item<double>(), tolerance(torch::kFloat).step);
  expect_same_everywhere(got, "norm");
  cut.expect_parts_of(Cut::gradients(cut.parts), Cut::gradients(cut.wholes), 1e-5, "the last");
}

TEST_F(ScaledShards, AreClippedWhereOneRankHasABadGradient) {
  for (const double bad : {double{kInfinity}, kNaN}) {
    Cut cut(ranks, torch::kFloat);
    const ShardedSpheres spheres(ranks, cut.shards);
    cut.give_gradients(0);
    if (rank() == size() - 1) cut.parts[2].mutable_grad()[0] = bad;
    const auto before = cut.parts[3].grad().clone();
    const auto message = refusal([&] { clip_grad_norm_(cut.parts, 1, 2, true); });
    EXPECT_NE(message.find("expected a finite norm of order 2 of the gradients, got"),
              std::string::npos)
        << message;
    EXPECT_TRUE(torch::equal(cut.parts[3].grad(), before));
    const auto total = clip_grad_norm_(cut.parts, 1).item<double>();
    EXPECT_EQ(std::isnan(total), std::isnan(bad));
    EXPECT_FALSE(std::isfinite(total));
    const auto after = cut.parts[3].grad();  // on every rank as the docstring says
    EXPECT_TRUE(std::isnan(bad) ? after.isnan().all().item<bool>()
                                : (after == 0).all().item<bool>())
        << after;
  }
}

TEST_F(ScaledShards, AreClippedThoughOnlySomeHaveGradientsOrNone) {
  Cut cut(ranks, torch::kDouble);
  const ShardedSpheres spheres(ranks, cut.shards);
  cut.give_gradients(2);
  for (auto* all : {&cut.wholes, &cut.parts}) {
    (*all)[0].mutable_grad() = Tensor();
    (*all)[3].mutable_grad() = Tensor();
  }
  const auto expected = clip_grad_norm_(cut.wholes, 0.5);
  const auto got = clip_grad_norm_(cut.parts, 0.5);
  EXPECT_NEAR(got.item<double>(), expected.item<double>(), tolerance(torch::kDouble).step);
  cut.expect_parts_of(Cut::gradients(cut.parts), Cut::gradients(cut.wholes), 1e-12, "some");
  for (auto& part : cut.parts) part.mutable_grad() = Tensor();
  const auto zero = clip_grad_norm_(cut.parts, 0.5);
  EXPECT_EQ(zero.item<double>(), 0);
  EXPECT_EQ(zero.scalar_type(), torch::kDouble);
}

// --- The mark that says of a tensor which ranks hold the rest of it ------------------------------

TEST_F(ScaledShards, KnowTheirRanksThroughAllThatKeepsATensorTheSame) {
  Cut cut(ranks, torch::kFloat);
  const auto& part = cut.parts[2];
  part.mutable_grad() = torch::ones_like(part);
  const ShardedSpheres spheres(ranks, cut.shards);
  const auto ranks_of = [](const Tensor& tensor) -> Collective* {
    const auto* mark = ShardMark::of(tensor);
    return mark == nullptr ? nullptr : mark->ranks();
  };
  EXPECT_EQ(ranks_of(part), &ranks);
  EXPECT_EQ(ranks_of(cut.parts[3]), nullptr) << "held as a whole";
  part.set_data(torch::zeros_like(part));
  EXPECT_EQ(ranks_of(part), &ranks);
  part.set_data(part.detach());
  EXPECT_EQ(ranks_of(part), &ranks);
  part.requires_grad_(false);
  part.requires_grad_(true);
  EXPECT_EQ(ranks_of(part), &ranks);
  SubnetworkParameter whole;
  whole.tensor = cut.parts[3];
  whole.inside = true;
  LAWN optimizer(torch::optim::SGD(cut.parts, 0.1), Subnetwork({whole}));
  LAWN moved(std::move(optimizer));
  EXPECT_EQ(ranks_of(moved.param_groups()[0].params()[2]), &ranks);
  // What is another tensor has no ranks.
  EXPECT_EQ(ranks_of(part.detach()), nullptr);
  EXPECT_EQ(ranks_of(part.clone()), nullptr);
  EXPECT_EQ(ranks_of(torch::zeros_like(part)), nullptr);
  EXPECT_EQ(ranks_of(part + 1), nullptr);
  EXPECT_EQ(ranks_of(part.view({-1})), nullptr);
  EXPECT_EQ(ranks_of(part.grad()), nullptr);
}

TEST_F(ScaledShards, AreSavedAsOtherTensorsAre) {
  Cut cut(ranks, torch::kFloat);
  const auto unmarked = saved(cut.parts[2]);
  const ShardedSpheres spheres(ranks, cut.shards);
  const auto marked = saved(cut.parts[2]);
  EXPECT_EQ(marked, unmarked);
  Tensor loaded;
  lawn::testing::load(loaded, marked);
  EXPECT_TRUE(torch::equal(loaded, cut.parts[2]));
  EXPECT_EQ(ShardMark::of(loaded), nullptr);
}

TEST_F(ScaledShards, AreOfThoseWhoCutThemLastAndRefusedWhenAllHaveEnded) {
  Cut cut(ranks, torch::kFloat);
  Counting counted(ranks);
  auto first = std::make_unique<ShardedSpheres>(ranks, cut.shards);
  auto second = std::make_unique<ShardedSpheres>(counted, cut.shards);
  cut.give_gradients(0);
  counted.sums.clear();
  clip_grad_norm_(cut.parts, 1);
  EXPECT_EQ(counted.sums.size(), 1U);
  second.reset();
  clip_grad_norm_(cut.parts, 1);
  EXPECT_EQ(counted.sums.size(), 1U);
  first.reset();
  const std::string message =
      ": expected the lawn::ParameterShards or lawn::ShardedSpheres of every shard, got a shard of "
      "shape [";
  expect_refusal([&] { clip_grad_norm_(cut.parts, 1); }, "lawn::clip_grad_norm_" + message);
  torch::optim::SGD sgd(cut.parts, 0.1);
  GradScaler scaler;
  scaler.scale(torch::ones({}));
  const auto before = cut.parts[3].grad().clone();
  expect_refusal([&] { scaler.unscale_(sgd); }, "lawn::GradScaler" + message);
  EXPECT_TRUE(torch::equal(cut.parts[3].grad(), before));
  std::vector<Tensor> clones;
  for (const auto& part : cut.parts) clones.push_back(part.detach().clone());
  EXPECT_NO_THROW(clip_grad_norm_(clones, 1));
}

TEST_F(ScaledShards, OfTwoGroupsAreRefusedInOneCall) {
  Cut one(ranks, torch::kFloat), other(ranks, torch::kFloat);
  Counting counted(ranks);
  const ShardedSpheres first(ranks, one.shards), second(counted, other.shards);
  expect_refusal(
      [&] {
        clip_grad_norm_({one.parts[0], other.parts[0]}, 1);
      },
      "lawn::clip_grad_norm_: expected shards over the same ranks, got parameters that "
      "are sharded over two groups");
}

TEST_F(ScaledShards, LeaveGradientsAndHooksOfTheUsersAlone) {
  Cut cut(ranks, torch::kFloat), twin(ranks, torch::kFloat);
  int before = 0, after = 0;
  cut.parts[2].register_hook([&](const Tensor& gradient) {
    ++before;
    return 2 * gradient;
  });
  const ShardedSpheres spheres(ranks, cut.shards);
  cut.parts[2].register_hook([&](const Tensor& gradient) {
    ++after;
    return gradient + 1;
  });
  for (std::size_t i = 0; i < cut.parts.size(); ++i) {
    (cut.parts[i].square().sum() * 3).backward();
    (twin.parts[i].square().sum() * 3).backward();
    const auto wanted = i == 2 ? 2 * twin.parts[i].grad() + 1 : twin.parts[i].grad();
    EXPECT_TRUE(torch::equal(cut.parts[i].grad(), wanted)) << i;
  }
  EXPECT_EQ(before, 1);
  EXPECT_EQ(after, 1);
}

// --- Ranks that do not come, or fail -------------------------------------------------------------

class ScaledShardsFaults : public lawn::testing::Ranks {
 protected:
  void SetUp() override {
    if (size() < 2) GTEST_SKIP() << "it takes two ranks for one to miss the other";
    ranks.gather("");  // all begin together
    group.emplace(MpiOptions().timeout(std::chrono::milliseconds(1000)).answer_time(kAnswer));
    cut.emplace(*group, torch::kFloat);
    spheres.emplace(*group, cut->shards);
    cut->give_gradients(0);
  }
  void TearDown() override {
    spheres.reset();
    group.reset();
  }

  /// Rank 1 comes when the others have given up, and hears of it.
  template <class Action>
  void expect_named(const Action& action) {
    if (rank() == 1) ranks.gather("");
    const auto message = refusal(action);
    if (rank() != 1) ranks.gather("");
    const auto part = rank() == 1 ? "rank 1 came last" : "no message from rank 1 for ";
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }

  static constexpr std::chrono::milliseconds kAnswer{600};
  std::optional<MpiGroup> group;
  std::optional<Cut> cut;
  std::optional<ShardedSpheres> spheres;
};

TEST_F(ScaledShardsFaults, ARankThatDoesNotClipIsNamedAndNothingIsScaled) {
  const auto before = cut->parts[3].grad().clone();
  expect_named([&] { clip_grad_norm_(cut->parts, 0.1); });
  EXPECT_TRUE(torch::equal(cut->parts[3].grad(), before));
}

TEST_F(ScaledShardsFaults, ARankThatDoesNotStepIsNamed) {
  torch::optim::SGD sgd(cut->parts, 0.1);
  GradScaler scaler;
  scaler.scale(torch::ones({}));
  const auto before = cut->parts[3].detach().clone();
  expect_named([&] { scaler.step(sgd); });
  EXPECT_TRUE(torch::equal(cut->parts[3], before));
}

TEST_F(ScaledShardsFaults, ARankThatRefusesItsGradientsTellsTheOthers) {
  torch::optim::SGD sgd(cut->parts, 0.1);
  GradScaler scaler;
  scaler.scale(torch::ones({}));
  if (rank() == 1) cut->parts[2].mutable_grad() = cut->parts[2].grad().to(torch::kHalf);
  const auto message = refusal([&] { scaler.step(sgd); });
  EXPECT_NE(message.find("lawn::GradScaler: attempting to unscale FP16 gradients"),
            std::string::npos)
      << message;
  if (rank() != 1) {
    EXPECT_NE(message.find("rank 1 failed: "), std::string::npos) << message;
  }
}

TEST_F(ScaledShardsFaults, ARankThatHasScaledNoLossTellsTheOthers) {
  torch::optim::SGD sgd(cut->parts, 0.1);
  GradScaler scaler;
  if (rank() != 1) scaler.scale(torch::ones({}));
  const auto message = refusal([&] { scaler.unscale_(sgd); });
  EXPECT_NE(message.find("lawn::GradScaler: expected scale(loss) before unscale_"),
            std::string::npos)
      << message;
}

}  // namespace
