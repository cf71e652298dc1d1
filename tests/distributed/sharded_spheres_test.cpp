// SPDX-License-Identifier: Apache-2.0
#include <lawn/distributed/sharded_spheres.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/distributed/counting.h"
#include "tests/distributed/ranks.h"
#include "tests/support/refusal.h"
#include "tests/support/saved.h"
#include "tests/support/tolerance.h"

namespace {

using namespace lawn;

using lawn::testing::Counting;
using lawn::testing::refusal;
using lawn::testing::tolerance;
using torch::Tensor;

/// A parameter of a made-up network, and the elements at which its parts begin.
struct Whole {
  std::string name;
  std::vector<int64_t> shape;
  int64_t unit_dim = 0;
  Role role = Role::kWeight;
};

const std::vector<Whole> kWholes = {
    {"conv", {6, 3, 3, 3}}, {"transposed", {4, 5, 2, 3}, 1},
    {"tiny", {1, 3}},  // without elements on a fourth rank
    {"linear", {7, 11}},    {"bias", {7}, 0, Role::kBias},
};

/// Rank r of n holds the elements up to this of `numel`: uneven parts, some of them empty.
int64_t border(int64_t r, int64_t n, int64_t numel, std::size_t which) {
  if (r == 0) return 0;
  if (r == n) return numel;
  if (which == 3 && n > 2) return r < n - 1 ? 0 : numel / 3;  // nothing on most ranks
  return numel * r / n + (numel > 20 ? 1 : 0);
}

Subnetwork selection_of(const std::vector<Tensor>& tensors) {
  std::vector<SubnetworkParameter> parameters;
  for (std::size_t i = 0; i < kWholes.size(); ++i) {
    SubnetworkParameter parameter;
    parameter.name = kWholes[i].name;
    parameter.tensor = tensors[i];
    parameter.role = kWholes[i].role;
    parameter.unit_dim = kWholes[i].unit_dim;
    parameter.inside = true;
    parameters.push_back(parameter);
  }
  return Subnetwork(parameters);
}

Subnetwork select_of_one(const Tensor& tensor) {
  SubnetworkParameter parameter;
  parameter.name = "w";
  parameter.tensor = tensor;
  parameter.inside = true;
  return Subnetwork({parameter});
}

/// Gradient of a step: with a part along the weight, as a gradient without projection has.
Tensor gradient_of(const Tensor& weight, int64_t step, std::size_t which) {
  torch::manual_seed(static_cast<uint64_t>(100 * step + static_cast<int64_t>(which)));
  return (torch::randn(weight.sizes(), torch::kDouble).to(weight.scalar_type()) +
          0.3 * weight.detach());
}

struct Case {
  const char* name;
  at::ScalarType dtype;
  double tolerance;
  Granularity granularity = Granularity::kLayer;
  bool biases = false;
  StateAtSwitch state = StateAtSwitch::kKeep;
  Radius radius = Radius::kCaptured;
  double radius_scale = 1;
};

class Sharded : public lawn::testing::Ranks {
 protected:
  /// Weights of the whole network, the same on all ranks.
  static std::vector<Tensor> make_wholes(at::ScalarType dtype) {
    torch::manual_seed(5);
    std::vector<Tensor> wholes;
    for (const auto& whole : kWholes) {
      wholes.push_back(torch::randn(whole.shape, torch::kDouble).to(dtype).set_requires_grad(true));
    }
    return wholes;
  }

  Tensor my_range(const Tensor& whole, std::size_t which) const {
    const int64_t begin = border(rank64(), size64(), whole.numel(), which);
    const int64_t end = border(rank64() + 1, size64(), whole.numel(), which);
    return whole.detach().reshape({-1}).narrow(0, begin, end - begin);
  }

  std::vector<Shard> make_shards(const std::vector<Tensor>& wholes) const {
    std::vector<Shard> shards;
    for (std::size_t i = 0; i < wholes.size(); ++i) {
      shards.push_back({kWholes[i].name, my_range(wholes[i], i).clone().set_requires_grad(true),
                        kWholes[i].shape, border(rank64(), size64(), wholes[i].numel(), i)});
    }
    return shards;
  }

  static std::vector<Tensor> parts_of(const std::vector<Shard>& shards) {
    std::vector<Tensor> parts;
    for (const auto& shard : shards) parts.push_back(shard.part);
    return parts;
  }

  static LAWNOptions options_of(const Case& c) {
    auto lawn = LAWNOptions()
                    .free_steps(20)
                    .granularity(c.granularity)
                    .biases(c.biases)
                    .state_at_switch(c.state)
                    .radius_scale(c.radius_scale);
    lawn.radius(c.radius);
    if (c.radius == Radius::kGiven) {
      lawn.radii(std::vector<double>(c.biases ? 5 : 4, 2.5));
    }
    return lawn;
  }

  /// 50 steps across the switch, sharded and as a whole; expects the same weights.
  template <class MakeOptimizer>
  std::vector<Tensor> expect_like_whole(const Case& c, const MakeOptimizer& make) {
    SCOPED_TRACE(c.name);
    const auto wholes = make_wholes(c.dtype);
    const auto shards = make_shards(wholes);
    LAWN twin(make(wholes), selection_of(wholes), options_of(c));
    Counting counted(ranks);
    LAWN optimizer(make(parts_of(shards)), selection_of(parts_of(shards)),
                   options_of(c).spheres(std::make_shared<ShardedSpheres>(counted, shards)));
    int64_t spheres = 0;
    for (const auto& layer : twin.report().layers) spheres += layer.spheres;
    for (int64_t step = 0; step < 50; ++step) {
      for (std::size_t i = 0; i < wholes.size(); ++i) {
        const auto gradient = gradient_of(wholes[i], step, i);
        wholes[i].mutable_grad() = gradient;
        shards[i].part.mutable_grad() = my_range(gradient, i).clone();
        // Nobody has a gradient of this layer in this step.
        if (step % 7 == 3 && i == 1) wholes[i].mutable_grad().reset();
        if (step % 7 == 3 && i == 1) shards[i].part.mutable_grad().reset();
        // A rank without elements may lack its gradient, too.
        if (shards[i].part.numel() == 0 && step % 2 == 0) shards[i].part.mutable_grad().reset();
      }
      counted.sums.clear();
      counted.gathers = 0;
      twin.step();
      optimizer.step();
      if (step < 20) {
        EXPECT_TRUE(counted.sums.empty()) << "step " << step;
      }
      if (step > 20) {
        EXPECT_EQ(counted.sums, (std::vector<int64_t>{2 * spheres + 2, spheres}))
            << "step " << step;
      }
      EXPECT_EQ(counted.gathers, 0) << "step " << step;
      if (step == 20 || step == 49) {
        for (std::size_t i = 0; i < wholes.size(); ++i) {
          const auto expected = my_range(wholes[i], i);
          const auto error = (shards[i].part - expected).abs().to(torch::kDouble);
          if (error.numel() == 0) continue;
          EXPECT_LT(error.max().template item<double>(), c.tolerance)
              << kWholes[i].name << ", step " << step;
        }
      }
    }
    expect_same_report(twin.report(), optimizer.report(), c);
    return parts_of(shards);
  }

  /// That the report is that of the whole, on every rank.
  static void expect_same_report(const Report& expected, const Report& got, const Case& c) {
    ASSERT_EQ(got.layers.size(), expected.layers.size());
    for (std::size_t i = 0; i < got.layers.size(); ++i) {
      const auto& a = expected.layers[i];
      const auto& b = got.layers[i];
      EXPECT_EQ(a.name, b.name);
      EXPECT_EQ(a.spheres, b.spheres);
      EXPECT_NEAR(a.norm, b.norm, 100 * c.tolerance) << a.name;
      EXPECT_NEAR(a.radius.value(), b.radius.value(), 100 * c.tolerance) << a.name;
      EXPECT_LT(b.norm_error.value(), 100 * c.tolerance) << a.name;
    }
  }
};

auto adam() {
  // A large eps: where a gradient is next to zero Adam's step is its sign, which rounding decides.
  return [](const std::vector<Tensor>& parameters) {
    return torch::optim::Adam(parameters,
                              torch::optim::AdamOptions(1e-2).eps(1e-3).weight_decay(1e-2));
  };
}

auto sgd() {
  return [](const std::vector<Tensor>& parameters) {
    return torch::optim::SGD(parameters,
                             torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(1e-2));
  };
}

TEST(ShardParts, AreTheElementsOfTheUnitsTheySay) {
  const std::vector<int64_t> shape = {3, 4, 2};
  const auto units = [&](int64_t unit_dim) {
    if (unit_dim == sphere::kWholeTensor) return torch::zeros({24}, torch::kLong);
    std::vector<int64_t> along(3, 1);
    along[static_cast<std::size_t>(unit_dim)] = shape[static_cast<std::size_t>(unit_dim)];
    return torch::arange(shape[static_cast<std::size_t>(unit_dim)])
        .view(along)
        .expand(shape)
        .reshape({-1});
  };
  for (int64_t unit_dim = sphere::kWholeTensor; unit_dim < 3; ++unit_dim) {
    const auto expected = units(unit_dim);
    for (int64_t begin = 0; begin <= 24; ++begin) {
      for (int64_t end = begin; end <= 24; ++end) {
        const Shard shard{"w", {}, shape, begin};
        sphere::Layer layer;
        layer.weight = torch::zeros({end - begin});
        layer.unit_dim = unit_dim;
        std::vector<sphere::Part> parts;
        lawn::detail::distributed::append_parts(parts, shard, layer, 100);
        std::vector<int64_t> got;
        for (const auto& part : parts) {
          ASSERT_EQ(part.begin, static_cast<int64_t>(got.size()));
          ASSERT_EQ(part.place, 100 + part.first_radius);
          for (int64_t i = 0; i < part.spheres * part.numel; ++i) {
            got.push_back(part.first_radius + i / part.numel);
          }
        }
        EXPECT_TRUE(
            torch::equal(torch::tensor(got, torch::kLong), expected.narrow(0, begin, end - begin)))
            << "unit_dim " << unit_dim << ", [" << begin << ", " << end << ")";
      }
    }
  }
  // Runs that follow one another are one part: two ends and what lies between.
  sphere::Layer layer;
  layer.weight = torch::zeros({900});
  layer.unit_dim = 0;
  std::vector<sphere::Part> parts;
  lawn::detail::distributed::append_parts(parts, {"w", {}, {100, 10}, 5}, layer, 0);
  EXPECT_EQ(parts.size(), 3U);
}

TEST_F(Sharded, StepsAsTheWholeInDouble) {
  expect_like_whole({"adam", torch::kDouble, 1e-12}, adam());
  expect_like_whole({"sgd", torch::kDouble, 1e-12}, sgd());
  expect_like_whole({"units", torch::kDouble, 1e-12, Granularity::kOutputUnit}, adam());
  expect_like_whole({"units and biases", torch::kDouble, 1e-12, Granularity::kOutputUnit, true},
                    sgd());
}

TEST_F(Sharded, ScalesRadiiAsTheWhole) {
  for (const auto granularity : {Granularity::kLayer, Granularity::kOutputUnit}) {
    expect_like_whole({"scaled", torch::kDouble, 1e-12, granularity, false, StateAtSwitch::kKeep,
                       Radius::kCaptured, 0.5},
                      adam());
  }
  expect_like_whole({"scaled initial", torch::kDouble, 1e-12, Granularity::kLayer, false,
                     StateAtSwitch::kKeep, Radius::kInitial, 0.5},
                    adam());
}

TEST_F(Sharded, StepsAsTheWholeInFloat) {
  expect_like_whole({"adam", torch::kFloat, 1e-5}, adam());
  expect_like_whole({"sgd", torch::kFloat, 1e-5}, sgd());
  expect_like_whole({"units", torch::kFloat, 1e-5, Granularity::kOutputUnit}, adam());
}

TEST_F(Sharded, StepsAsTheWholeInHalfPrecision) {
  // Weights of about 2 have steps of 2^-7: one that is rounded the other way is that far off.
  expect_like_whole({"sgd", torch::kBFloat16, 0.1}, sgd());
}

TEST_F(Sharded, ProjectsAndResetsTheStateAtTheSwitch) {
  expect_like_whole(
      {"project", torch::kDouble, 1e-12, Granularity::kLayer, false, StateAtSwitch::kProject},
      sgd());
  expect_like_whole({"project Adam", torch::kDouble, 1e-12, Granularity::kOutputUnit, false,
                     StateAtSwitch::kProject},
                    adam());
  expect_like_whole(
      {"reset", torch::kDouble, 1e-12, Granularity::kLayer, false, StateAtSwitch::kReset}, adam());
}

TEST_F(Sharded, ProjectsTheStateThoughRanksWithoutElementsHaveNone) {
  const std::vector<int64_t> shape = {3, 5};
  const bool mine = rank() == size() - 1;
  const auto whole = torch::arange(1.0, 16.0, torch::kDouble).view(shape).requires_grad_(true);
  const auto part =
      (mine ? whole.detach().clone() : torch::empty({0}, torch::kDouble)).requires_grad_(true);
  const auto make = [&](const Tensor& tensor, const std::shared_ptr<Spheres>& spheres) {
    return LAWN(
        sgd()({tensor}), select_of_one(tensor),
        LAWNOptions().free_steps(2).state_at_switch(StateAtSwitch::kProject).spheres(spheres));
  };
  auto twin = make(whole, nullptr);
  auto optimizer = make(
      part, std::make_shared<ShardedSpheres>(ranks, std::vector<Shard>{{"w", part, shape, 0}}));
  for (int64_t step = 0; step < 4; ++step) {
    whole.mutable_grad() = gradient_of(whole, step, 0);
    if (mine) part.mutable_grad() = whole.grad().clone();
    twin.step();
    optimizer.step();
  }
  if (mine) {
    EXPECT_LT((part - whole).abs().max().item<double>(), tolerance(torch::kDouble).step);
  }
}

TEST_F(Sharded, TakesInitialAndGivenRadii) {
  expect_like_whole({"initial", torch::kDouble, 1e-12, Granularity::kLayer, false,
                     StateAtSwitch::kKeep, Radius::kInitial},
                    sgd());
  expect_like_whole({"given", torch::kDouble, 1e-12, Granularity::kOutputUnit, false,
                     StateAtSwitch::kKeep, Radius::kGiven},
                    sgd());
}

TEST_F(Sharded, LeavesAFusedOptimizerUnfolded) {
  expect_like_whole({"fused", torch::kDouble, 1e-12}, [](const std::vector<Tensor>& parameters) {
    return FusedAdam(parameters, torch::optim::AdamOptions(1e-2).eps(1e-3));
  });
}

TEST_F(Sharded, HasTheSameBitsInEveryRunAndTheSameRadiiOnEveryRank) {
  const Case c{"adam", torch::kFloat, 1e-5, Granularity::kOutputUnit};
  const auto first = expect_like_whole(c, adam()), second = expect_like_whole(c, adam());
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(torch::equal(first[i], second[i]));
  const auto shards = make_shards(make_wholes(torch::kFloat));
  LAWN optimizer(sgd()(parts_of(shards)), selection_of(parts_of(shards)),
                 LAWNOptions().spheres(std::make_shared<ShardedSpheres>(ranks, shards)));
  optimizer.constrain();
  for (const auto& layer : optimizer.report().layers) {
    expect_same_everywhere(torch::tensor(layer.radius.value(), torch::kDouble), layer.name);
  }
}

TEST_F(Sharded, ReportsOfTheWholeOnEveryRank) {
  const auto wholes = make_wholes(torch::kDouble);
  const auto shards = make_shards(wholes);
  const auto tensors = parts_of(shards);
  for (std::size_t i = 0; i + 1 < wholes.size(); ++i) {
    wholes[i].mutable_grad() = gradient_of(wholes[i], 0, i);
    tensors[i].mutable_grad() = my_range(wholes[i].grad(), i).clone();
  }
  for (const auto granularity : {Granularity::kLayer, Granularity::kOutputUnit}) {
    const auto options = LAWNOptions().granularity(granularity).biases(true);
    LAWN twin(sgd()(wholes), selection_of(wholes), options);
    LAWN optimizer(sgd()(tensors), selection_of(tensors),
                   LAWNOptions(options).spheres(std::make_shared<ShardedSpheres>(ranks, shards)));
    twin.constrain();
    optimizer.constrain();
    const auto expected = twin.report().layers, got = optimizer.report().layers;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(expected[i].radius.value(), got[i].radius.value(),
                  tolerance(torch::kDouble).step);
      EXPECT_EQ(expected[i].cosine.has_value(), got[i].cosine.has_value());
      EXPECT_NEAR(expected[i].cosine.value_or(0), got[i].cosine.value_or(0),
                  tolerance(torch::kDouble).step);
      EXPECT_EQ(expected[i].note, got[i].note);
    }
  }
}

TEST_F(Sharded, CountsParametersWithoutAShardAsWhole) {
  const auto wholes = make_wholes(torch::kDouble), mixed = make_wholes(torch::kDouble);
  auto shards = make_shards(mixed);
  auto tensors = parts_of(shards);
  tensors[0] = mixed[0];
  shards.erase(shards.begin());
  LAWN twin(sgd()(wholes), selection_of(wholes));
  LAWN optimizer(sgd()(tensors), selection_of(tensors),
                 LAWNOptions().spheres(std::make_shared<ShardedSpheres>(ranks, shards)));
  for (int64_t step = 0; step < 5; ++step) {
    for (std::size_t i = 0; i < wholes.size(); ++i) {
      wholes[i].mutable_grad() = gradient_of(wholes[i], step, i);
      tensors[i].mutable_grad() =
          i == 0 ? wholes[i].grad().clone() : my_range(wholes[i].grad(), i).clone();
    }
    twin.step();
    optimizer.step();
  }
  EXPECT_TRUE(torch::allclose(tensors[0], wholes[0], 1e-12, 1e-12));
  EXPECT_TRUE(torch::allclose(tensors[3], my_range(wholes[3], 3), 1e-12, 1e-12));
}

TEST_F(Sharded, WorksOnGradientsThatAreNotContiguous) {
  const auto wholes = make_wholes(torch::kDouble);
  auto part = my_range(wholes[0], 0).clone().set_requires_grad(true);
  auto twin = my_range(wholes[0], 0).clone().set_requires_grad(true);
  const int64_t begin = border(rank64(), size64(), wholes[0].numel(), 0);
  const auto make = [&](const Tensor& tensor) {
    return LAWN(torch::optim::SGD({tensor}, 0.1), select_of_one(tensor),
                LAWNOptions().spheres(std::make_shared<ShardedSpheres>(
                    ranks, std::vector<Shard>{{"conv", tensor, kWholes[0].shape, begin}})));
  };
  auto optimizer = make(part), expected = make(twin);
  const auto gradient = my_range(gradient_of(wholes[0], 0, 0), 0).clone();
  twin.mutable_grad() = gradient.clone();
  part.mutable_grad() = torch::stack({gradient, gradient}, 1).select(1, 0);
  ASSERT_FALSE(part.grad().is_contiguous());
  optimizer.step();
  expected.step();
  EXPECT_TRUE(torch::equal(part, twin));
}

TEST_F(Sharded, KeepsAGradientThatIsNotFiniteToItsLayer) {
  const auto shards = make_shards(make_wholes(torch::kDouble));
  const auto tensors = parts_of(shards);
  LAWN optimizer(torch::optim::SGD(tensors, 0.1), selection_of(tensors),
                 LAWNOptions().spheres(std::make_shared<ShardedSpheres>(ranks, shards)));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    tensors[i].mutable_grad() = torch::ones_like(tensors[i]);
  }
  if (tensors[3].numel() > 0 && rank() == size() - 1) {
    tensors[3].mutable_grad()[0] = std::numeric_limits<double>::quiet_NaN();
  }
  optimizer.step();
  EXPECT_TRUE(torch::isfinite(tensors[0]).all().item<bool>());
  EXPECT_TRUE(torch::isfinite(tensors[1]).all().item<bool>());
  const auto report = optimizer.report();
  EXPECT_LT(report.layers[0].norm_error.value(), tolerance(torch::kDouble).step);
  EXPECT_NE(report.layers[3].note.find("weight is not finite"), std::string::npos)
      << report.layers[3].note;
}

TEST_F(Sharded, GoesOnFromACheckpointToTheSameBits) {
  const auto run = [&](bool interrupted) {
    const auto shards = make_shards(make_wholes(torch::kFloat));
    const auto tensors = parts_of(shards);
    const auto make = [&] {
      return LAWN(
          sgd()(tensors), selection_of(tensors),
          LAWNOptions().free_steps(3).spheres(std::make_shared<ShardedSpheres>(ranks, shards)));
    };
    auto optimizer = std::make_unique<LAWN<torch::optim::SGD>>(make());
    for (int64_t step = 0; step < 8; ++step) {
      if (interrupted && (step == 2 || step == 5)) {
        const auto bytes = lawn::testing::saved(*optimizer);
        optimizer = std::make_unique<LAWN<torch::optim::SGD>>(make());
        lawn::testing::load(*optimizer, bytes);
      }
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        tensors[i].mutable_grad() =
            my_range(gradient_of(torch::zeros(kWholes[i].shape), step, i), i).clone();
      }
      optimizer->step();
    }
    return tensors;
  };
  const auto a = run(false), b = run(true);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(torch::equal(a[i], b[i])) << i;
}

TEST_F(Sharded, RefusesAZeroWeightOnEveryRankAndChangesNothing) {
  auto wholes = make_wholes(torch::kDouble);
  wholes[3].detach().zero_();
  const auto shards = make_shards(wholes);
  const auto tensors = parts_of(shards);
  LAWN optimizer(sgd()(tensors), selection_of(tensors),
                 LAWNOptions().spheres(std::make_shared<ShardedSpheres>(ranks, shards)));
  const auto before = tensors[0].clone();
  EXPECT_NE(refusal([&] { optimizer.step(); }).find("expected linear to have a finite norm > 0"),
            std::string::npos);
  EXPECT_TRUE(torch::equal(before, tensors[0]));
}

TEST_F(Sharded, NamesElementsOnNoRankAndOnTwo) {
  const auto message_of = [&](int64_t begin, int64_t end) {
    MpiGroup group(options());
    const auto part = torch::zeros({end - begin}, torch::kDouble);
    return refusal([&] { ShardedSpheres(group, {{"w", part, {4, 3}, begin}}); });
  };
  const int64_t last = size64() - 1;
  if (size() == 1) {
    EXPECT_NE(message_of(0, 10).find("every element of w on one rank, got [10, 12) on none"),
              std::string::npos);
    return;
  }
  // The last rank begins one too late, then one too early.
  const auto begin = rank64() == 0 ? 0 : rank64() == last ? 7 : 6;
  const auto end = rank64() == last ? 12 : 6;
  EXPECT_NE(message_of(begin, end).find("every element of w on one rank, got [6, 7) on none"),
            std::string::npos);
  const auto message = message_of(rank64() == last ? 5 : begin, end);
  EXPECT_NE(message.find("got [5, 6) on rank 0 and rank " + std::to_string(last)),
            std::string::npos)
      << message;
}

TEST_F(Sharded, NamesTheRankWithOtherShardsOrOptions) {
  if (size() < 3) GTEST_SKIP() << "a majority takes three ranks";
  auto shards = make_shards(make_wholes(torch::kDouble));
  auto other = shards;
  if (rank() == 1) other[0].name = "another";
  EXPECT_NE(refusal([&] {
              ShardedSpheres(ranks, other);
            }).find("rank 1: expected 'shard of conv Double [6, 3, 3, 3]', got 'shard of another"),
            std::string::npos);
  const auto tensors = parts_of(shards);
  const auto spheres = std::make_shared<ShardedSpheres>(ranks, shards);
  const auto message = refusal([&] {
    LAWN(sgd()(tensors), selection_of(tensors),
         LAWNOptions().free_steps(rank() == 2 ? 5 : 4).spheres(spheres));
  });
  EXPECT_NE(message.find("rank 2: expected 'free_steps 4', got 'free_steps 5'"), std::string::npos)
      << message;
}

TEST_F(Sharded, TellsTheOthersOfABadShard) {
  MpiGroup group(options());
  const auto part = rank() == 0 ? torch::zeros({4, 3}).t() : torch::zeros({0});
  const auto message = refusal([&] { ShardedSpheres(group, {{"w", part, {4, 3}, 0}}); });
  EXPECT_NE(message.find("expected a dense, contiguous shard of w"), std::string::npos) << message;
}

TEST_F(Sharded, NamesTheRankThatGoesOnFromAnotherStep) {
  if (size() < 3) GTEST_SKIP() << "a majority takes three ranks";
  const auto shards = make_shards(make_wholes(torch::kDouble));
  const auto tensors = parts_of(shards);
  LAWN optimizer(sgd()(tensors), selection_of(tensors),
                 LAWNOptions().spheres(std::make_shared<ShardedSpheres>(ranks, shards)));
  optimizer.step();
  const auto checkpoint = lawn::testing::saved(optimizer);
  optimizer.step();
  if (rank() == 1) lawn::testing::load(optimizer, checkpoint);
  const auto message = refusal([&] { optimizer.step(); });
  EXPECT_NE(message.find("got rank 1 in step 1, ranks 0"), std::string::npos) << message;
}

TEST_F(Sharded, RefusesWhatNeedsWeightsInOneProcess) {
  const auto shards = make_shards(make_wholes(torch::kDouble));
  const auto tensors = parts_of(shards);
  const auto spheres = std::make_shared<ShardedSpheres>(ranks, shards);
  lawn::testing::expect_refusal(
      [&] {
        LAWN(sgd()(tensors), selection_of(tensors),
             LAWNOptions().angular_steps(true).spheres(spheres));
      },
      "angular_steps(true) needs weights that lie in this process as a whole");
  LAWN fused(FusedSGD(tensors, 0.1), selection_of(tensors), LAWNOptions().spheres(spheres));
  lawn::testing::expect_refusal([&] { fused.make_capturable(); },
                                "expected weights that lie in this process as a whole, got shards");
}

}  // namespace
