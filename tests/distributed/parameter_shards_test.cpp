// SPDX-License-Identifier: Apache-2.0
#include <lawn/distributed/parameter_shards.h>

#include <cstdint>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/checkpoint.h>
#include <lawn/distributed/data_parallel.h>
#include <lawn/lawn.h>
#include <lawn/subnetwork/torchscript.h>

#include "tests/distributed/ranks.h"
#include "tests/support/networks.h"
#include "tests/support/refusal.h"
#include "tests/support/scripts.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tolerance.h"

namespace {

using namespace lawn;

using lawn::testing::refusal;
using lawn::testing::tolerance;

constexpr int64_t kFeatures = 6, kClasses = 3;

torch::nn::Sequential make_model(int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  return torch::nn::Sequential(torch::nn::Linear(kFeatures, 16), torch::nn::ReLU(),
                               torch::nn::Linear(16, 16), torch::nn::ReLU(),
                               torch::nn::Linear(16, kClasses));
}

using Shards = lawn::testing::Ranks;

/// Bytes of a share that are gathered at once, while it lives.
class MostOfAShare {
 public:
  explicit MostOfAShare(int64_t bytes) { most_ = bytes; }
  ~MostOfAShare() { most_ = before_; }
  MostOfAShare(const MostOfAShare&) = delete;
  MostOfAShare& operator=(const MostOfAShare&) = delete;

 private:
  int64_t& most_ = lawn::detail::distributed::most_bytes_of_a_share;
  int64_t before_ = most_;
};

TEST_F(Shards, TrainAsOneProcessThatHoldsTheWhole) {
  for (const int64_t bytes : {int64_t{1} << 30, int64_t{200}, int64_t{1}}) {
    const MostOfAShare most(bytes);
    constexpr int64_t kSamples = 24;
    auto model = make_model(rank64()), twin = make_model(0);
    DataParallel parallel(*model, ranks);
    ParameterShards shards(*model, ranks);
    const auto select = [](auto& of) {
      return final_homogeneous_subnetwork(of->forward(torch::ones({2, kFeatures})), *of);
    };
    const auto options = LAWNOptions().free_steps(20);
    const auto adam = torch::optim::AdamOptions(1e-3).eps(1e-3);
    LAWN optimizer(torch::optim::Adam(shards.parameters(), adam), shards.select(select(model)),
                   LAWNOptions(options).spheres(shards.spheres()));
    LAWN expected(torch::optim::Adam(twin->parameters(), adam), select(twin), options);
    const int64_t begin = kSamples * rank64() / size64();
    const int64_t count = kSamples * (rank64() + 1) / size64() - begin;
    for (int64_t step = 0; step < 50; ++step) {
      torch::manual_seed(static_cast<uint64_t>(step));
      const auto x = torch::randn({kSamples, kFeatures}), y = torch::randint(kClasses, {kSamples});
      const auto loss = [](auto& of, const auto& inputs, const auto& labels) {
        return torch::nn::functional::cross_entropy(of->forward(inputs), labels);
      };
      model->zero_grad();
      parallel.backward(loss(model, x.narrow(0, begin, count), y.narrow(0, begin, count)), count);
      shards.take_gradients();
      optimizer.step();
      shards.gather();
      twin->zero_grad();
      loss(twin, x, y).backward();
      expected.step();
    }
    EXPECT_EQ(optimizer.phase(), Phase::kConstrained);
    const auto got = model->parameters(), wanted = twin->parameters();
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_LT((got[i] - wanted[i]).abs().max().item<double>(), tolerance(torch::kFloat).step)
          << i;
      expect_same_everywhere(got[i], "parameter " + std::to_string(i));
    }
  }
}

TEST_F(Shards, TrainATorchScriptModuleAsOneProcessThatHoldsTheWhole) {
  constexpr int64_t kEach = 4;
  const std::string forward =
      "  return torch.linear(torch.relu(torch.linear(x, self.hidden.weight)), self.head.weight)\n";
  const auto make = [&](int64_t seed) {
    torch::manual_seed(static_cast<uint64_t>(seed));
    const auto net = lawn::testing::parts();
    net->add("hidden", lawn::testing::dense(kFeatures, 16));
    net->add("head", lawn::testing::dense(16, kClasses));
    return lawn::testing::script(*net, forward);
  };
  auto model = make(rank64()), twin = make(0);
  DataParallel parallel(model, ranks);
  ParameterShards shards(model, ranks);
  const auto select = [](const torch::jit::Module& of) {
    return final_homogeneous_subnetwork(of, {torch::ones({2, kFeatures})});
  };
  const auto options = LAWNOptions().free_steps(3);
  LAWN optimizer(torch::optim::SGD(shards.parameters(), 0.1), shards.select(select(model)),
                 LAWNOptions(options).spheres(shards.spheres()));
  LAWN expected(torch::optim::SGD(unique_parameters(twin), 0.1), select(twin), options);
  const auto loss = [](torch::jit::Module& of, const torch::Tensor& x, const torch::Tensor& y) {
    return torch::nn::functional::cross_entropy(of.forward({x}).toTensor(), y);
  };
  for (int step = 0; step < 10; ++step) {
    torch::manual_seed(static_cast<uint64_t>(step));
    const auto x = torch::randn({kEach * size64(), kFeatures});
    const auto y = torch::randint(kClasses, {kEach * size64()});
    const auto mine = [&](const torch::Tensor& all) {
      return all.narrow(0, kEach * rank64(), kEach);
    };
    for (auto& parameter : unique_parameters(model)) parameter.mutable_grad().reset();
    parallel.backward(loss(model, mine(x), mine(y)), kEach);
    shards.take_gradients();
    optimizer.step();
    shards.gather();
    expected.zero_grad();
    loss(twin, x, y).backward();
    expected.step();
  }
  const auto got = unique_parameters(model), wanted = unique_parameters(twin);
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_LT((got[i] - wanted[i]).abs().max().item<double>(), tolerance(torch::kFloat).step) << i;
    expect_same_everywhere(got[i], "parameter " + std::to_string(i));
  }
}

TEST_F(Shards, HoldPartsOfAnNthOfTheWeights) {
  auto model = make_model(0);
  ParameterShards shards(*model, ranks);
  int64_t mine = 0, all = 0;
  for (const auto& part : shards.parameters()) mine += part.numel();
  for (const auto& parameter : model->parameters()) all += parameter.numel();
  EXPECT_LE(mine, (all + size64() - 1) / size64());
  const auto sum = torch::full({}, mine, torch::kLong);
  ranks.sum_(sum);
  EXPECT_EQ(sum.item<int64_t>(), all);
}

TEST_F(Shards, GatherSeveralDtypesAndLeaveFrozenParametersAlone) {
  struct Mixed : torch::nn::Module {
    Mixed() {
      torch::manual_seed(1);
      single = register_parameter("single", torch::randn({5, 3}));
      twice = register_parameter("twice", torch::randn({2, 2}, torch::kDouble));
      small = register_parameter("small", torch::randn({1}));
      frozen = register_parameter("frozen", torch::randn({3}), false);
    }
    torch::Tensor single, twice, small, frozen;
  } model;
  ParameterShards shards(model, ranks);
  ASSERT_EQ(shards.parameters().size(), 3U);
  const auto frozen = model.frozen.clone();
  {
    const torch::NoGradGuard no_grad;
    for (auto part : shards.parameters()) part.fill_(static_cast<double>(rank() + 1));
  }
  shards.gather();
  EXPECT_TRUE(torch::equal(model.frozen, frozen));
  // 20 elements of float32 lie in one memory, 4 of float64 in another; each rank has an even part.
  const auto expect_parts = [&](const std::vector<torch::Tensor>& wholes) {
    std::vector<torch::Tensor> flat;
    for (const auto& whole : wholes) flat.push_back(whole.detach().view({-1}));
    const auto got = torch::cat(flat).to(torch::kLong);
    const int64_t each = (got.numel() + size64() - 1) / size64();
    EXPECT_TRUE(torch::equal(got, torch::arange(got.numel()).floor_divide(each) + 1));
  };
  expect_parts({model.single, model.small});
  expect_parts({model.twice});
}

TEST_F(Shards, LeaveTheModelsValuesAsTheyWere) {
  auto model = make_model(0), twin = make_model(0);
  const auto parameters = model->parameters();
  const ParameterShards shards(*model, ranks);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_TRUE(torch::equal(model->parameters()[i], twin->parameters()[i]));
    EXPECT_TRUE(model->parameters()[i].is_same(parameters[i]));  // whom optimizers know
  }
}

TEST_F(Shards, TakeNoGradientWhereThereIsNone) {
  auto model = make_model(0);
  ParameterShards shards(*model, ranks);
  model->parameters()[0].mutable_grad() = torch::ones({16, kFeatures});
  shards.take_gradients();
  EXPECT_TRUE(shards.parameters()[0].grad().defined());
  EXPECT_EQ(shards.parameters()[0].grad().numel(), shards.parameters()[0].numel());
  EXPECT_FALSE(shards.parameters()[1].grad().defined());
  model->zero_grad();
  shards.take_gradients();
  EXPECT_FALSE(shards.parameters()[0].grad().defined());
}

TEST_F(Shards, RefuseAModelWhoseParametersWereMovedSince) {
  std::stringstream file;
  torch::save(make_model(5), file);
  const auto bytes = file.str();
  const auto load = [&](torch::nn::Sequential& model) {
    std::stringstream again(bytes);
    torch::load(model, again);
  };
  const auto to_double = [](torch::nn::Sequential& model) { model->to(torch::kDouble); };
  const auto one_weight = [](torch::nn::Sequential& model) {
    auto weight = model->parameters()[2];
    weight.set_data(weight.detach().clone());
  };
  const auto refuse = [&](const auto& move, const std::string& name) {
    MpiGroup first(options()), second(options());
    auto model = make_model(0), other = make_model(0);
    ParameterShards taking(*model, first), gathering(*other, second);
    taking.take_gradients();  // as long as nothing moves
    gathering.gather();
    move(model);
    move(other);
    const std::string expected =
        "lawn::ParameterShards: expected " + name + " where the constructor moved it, at 0x";
    const auto taken = refusal([&] { taking.take_gradients(); });
    EXPECT_NE(taken.find(expected), std::string::npos) << taken;
    EXPECT_NE(taken.find("load it before the shards are made, or by lawn::Checkpoint"),
              std::string::npos)
        << taken;
    const auto gathered = refusal([&] { gathering.gather(); });
    EXPECT_NE(gathered.find(expected), std::string::npos) << gathered;
  };
  refuse(load, "0.weight");
  refuse(to_double, "0.weight");
  refuse(one_weight, "2.weight");
}

TEST_F(Shards, TakeWhatACheckpointLoads) {
  const TemporaryFolder folder;
  const auto file = (folder.path() / "model").string();
  auto model = make_model(0), saved = make_model(5);
  Checkpoint().add("model", *saved).save(file);
  ParameterShards shards(*model, ranks);
  Checkpoint().add("model", *model).load(file);
  shards.take_gradients();
  shards.gather();
  for (std::size_t i = 0; i < saved->parameters().size(); ++i) {
    EXPECT_TRUE(torch::equal(model->parameters()[i], saved->parameters()[i])) << i;
  }
}

TEST_F(Shards, RefuseParametersThatAreNotContiguousAndModelsWithoutAny) {
  MpiGroup one(options()), two(options());
  torch::nn::Conv2d conv(torch::nn::Conv2dOptions(4, 4, 3));
  if (rank() == 0) {
    conv->weight.set_data(conv->weight.detach().contiguous(at::MemoryFormat::ChannelsLast));
  }
  // On every rank, also where the weight is contiguous.
  const auto message = refusal([&] { ParameterShards(*conv, one); });
  EXPECT_NE(message.find("expected contiguous parameters, got weight"), std::string::npos)
      << message;
  const auto none = refusal([&] { ParameterShards(*torch::nn::ReLU(), two); });
  EXPECT_NE(none.find("expected a model with parameters that require gradients"), std::string::npos)
      << none;
}

}  // namespace
