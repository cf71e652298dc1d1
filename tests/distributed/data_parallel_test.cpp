// SPDX-License-Identifier: Apache-2.0
#include <lawn/distributed/data_parallel.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/capture/device_reads.h"
#include "tests/distributed/ranks.h"
#include "tests/support/refusal.h"
#include "tests/support/tolerance.h"

namespace {

using namespace lawn;

using lawn::testing::close;
using lawn::testing::refusal;
using lawn::testing::tolerance;
using torch::Tensor;

constexpr int64_t kFeatures = 6, kClasses = 4;

/// Small buckets: several of them, also with these small models.
DataParallelOptions small_buckets() {
  return DataParallelOptions().bucket_bytes(600).first_bucket_bytes(200);
}

torch::nn::Sequential make_model(int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  return torch::nn::Sequential(torch::nn::Linear(kFeatures, 16), torch::nn::ReLU(),
                               torch::nn::Linear(16, 16), torch::nn::ReLU(),
                               torch::nn::Linear(16, kClasses));
}

Tensor loss_of(torch::nn::Sequential& model, const Tensor& x, const Tensor& y) {
  return torch::nn::functional::cross_entropy(model->forward(x), y);
}

/// The samples of a step; the same on every rank.
struct Batch {
  explicit Batch(int64_t step, int64_t samples) {
    torch::manual_seed(static_cast<uint64_t>(1000 + step));
    x = torch::randn({samples, kFeatures});
    y = torch::randint(kClasses, {samples});
  }
  Tensor x, y;
};

template <class Opt>
LAWN<Opt> lawn_around(Opt&& optimizer, torch::nn::Sequential& model) {
  return LAWN<Opt>(std::move(optimizer),
                   final_homogeneous_subnetwork(model->forward(Batch(0, 2).x), *model),
                   LAWNOptions().free_steps(20));
}

class ParallelTraining : public lawn::testing::Ranks {
 protected:
  /// Rank r's part of `all` samples: the first ranks have one more where it does not divide.
  std::pair<int64_t, int64_t> part(int64_t all) const {
    const int64_t each = all / size64(), more = all % size64();
    const int64_t begin = rank64() * each + std::min(rank64(), more);
    return {begin, each + (rank64() < more ? 1 : 0)};
  }

  /// Trains on all ranks, and this rank also alone on the joint batches; expects the same weights.
  template <class MakeOptimizer>
  void expect_like_one_process(const MakeOptimizer& make_optimizer,
                               const std::vector<int64_t>& samples) {
    auto model = make_model(rank64());  // different weights, until rank 0's are broadcast
    auto twin = make_model(0);
    DataParallel parallel(*model, ranks, small_buckets());
    auto optimizer = make_optimizer(model);
    auto twin_optimizer = make_optimizer(twin);
    for (int64_t step = 0; step < 50; ++step) {
      const Batch batch(step, samples[static_cast<std::size_t>(step) % samples.size()]);
      const auto [begin, count] = part(batch.x.size(0));
      optimizer.zero_grad();
      if (count == 0) {
        parallel.backward_without_batch();
      } else {
        parallel.backward(
            loss_of(model, batch.x.narrow(0, begin, count), batch.y.narrow(0, begin, count)),
            count);
      }
      optimizer.step();
      twin_optimizer.zero_grad();
      loss_of(twin, batch.x, batch.y).backward();
      twin_optimizer.step();
    }
    const auto got = model->parameters(), expected = twin->parameters();
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_LT((got[i] - expected[i]).abs().max().template item<double>(),
                tolerance(torch::kFloat).step)
          << "parameter " << i;
      expect_same_everywhere(got[i], "parameter " + std::to_string(i));
    }
  }
};

TEST_F(ParallelTraining, GivesTheWeightsOfOneProcessAcrossTheSwitchOfLAWNAroundSGD) {
  expect_like_one_process(
      [](auto& model) {
        return lawn_around(
            torch::optim::SGD(model->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9)),
            model);
      },
      {24});
}

TEST_F(ParallelTraining, GivesTheWeightsOfOneProcessAcrossTheSwitchOfLAWNAroundAdam) {
  // A large eps: where a gradient is next to zero Adam's step is its sign, which rounding decides.
  expect_like_one_process(
      [](auto& model) {
        return lawn_around(
            torch::optim::Adam(model->parameters(), torch::optim::AdamOptions(1e-3).eps(1e-3)),
            model);
      },
      {24});
}

TEST_F(ParallelTraining, WeighsUnevenAndEmptyPartsByTheirSamples) {
  expect_like_one_process(
      [](auto& model) { return lawn_around(torch::optim::SGD(model->parameters(), 0.05), model); },
      {24, 7, 5, 1});
}

TEST_F(ParallelTraining, WeighsThemWhereRecordsAreCheckedWhenTheBackwardPassIsOver) {
  lawn::detail::distributed::checks_late = true;  // as on a GPU
  expect_like_one_process(
      [](auto& model) { return lawn_around(torch::optim::SGD(model->parameters(), 0.05), model); },
      {24, 7, 5, 1});
  lawn::detail::distributed::checks_late = false;
}

TEST_F(ParallelTraining, ReadsNoNumberInABackwardPassWhoseRecordsAreCheckedLater) {
  auto model = make_model(0);
  model->push_back(torch::nn::BatchNorm1d(kClasses));  // with buffers to average
  DataParallel parallel(*model, ranks, small_buckets());
  lawn::detail::distributed::checks_late = true;  // as on a GPU
  const Batch batch(0, 3);
  const auto loss = loss_of(model, batch.x, batch.y);
  EXPECT_EQ(lawn::testing::device_reads([&] { parallel.backward(loss, 3); }), 0);
  lawn::detail::distributed::checks_late = false;
}

TEST_F(ParallelTraining, AccumulatesGradientsOfPartsOfAnySize) {
  auto model = make_model(0), twin = make_model(0);
  DataParallel parallel(*model, ranks, small_buckets());
  for (int64_t step = 0; step < 4; ++step) {
    // Rank r has r + 1 parts, of 3, 4, ... samples.
    const int64_t parts = size64() * (size64() + 1) / 2;
    int64_t all = 0;
    for (int64_t p = 0; p < parts; ++p) all += 3 + p;
    const Batch batch(step, all);
    model->zero_grad();
    twin->zero_grad();
    loss_of(twin, batch.x, batch.y).backward();
    int64_t begin = 0, p = 0;
    for (int64_t owner = 0; owner < size64(); ++owner) {
      for (int64_t k = 0; k <= owner; ++k, ++p) {
        const int64_t count = 3 + p;
        if (owner == rank64()) {
          const auto loss =
              loss_of(model, batch.x.narrow(0, begin, count), batch.y.narrow(0, begin, count));
          // Also a rank whose last part was an accumulated one.
          if (k < owner || owner == 1) {
            parallel.accumulate(loss, count);
          } else {
            parallel.backward(loss, count);
          }
        }
        begin += count;
      }
    }
    if (rank() == 1) parallel.backward_without_batch();
    for (std::size_t i = 0; i < model->parameters().size(); ++i) {
      const auto got = model->parameters()[i].grad(), expected = twin->parameters()[i].grad();
      EXPECT_TRUE(close(got, expected)) << "step " << step << ", " << i;
      expect_same_everywhere(got, "gradient " + std::to_string(i));
    }
  }
}

TEST_F(ParallelTraining, ForgetsSamplesWhoseGradientsWereDropped) {
  auto model = make_model(0), twin = make_model(0);
  DataParallel parallel(*model, ranks, small_buckets());
  for (int64_t step = 0; step < 3; ++step) {
    const Batch dropped(10 * step + rank64(), 3 + rank64());
    parallel.accumulate(loss_of(model, dropped.x, dropped.y), 3 + rank64());
    model->zero_grad();  // as after a loss that is not finite
    const Batch batch(10 * step + 9, 5 * size64());
    const auto x = batch.x.narrow(0, 5 * rank64(), 5), y = batch.y.narrow(0, 5 * rank64(), 5);
    if (step == 1 && size() > 1) {  // the last rank has nothing left
      const int64_t all = 5 * (size64() - 1);
      twin->zero_grad();
      loss_of(twin, batch.x.narrow(0, 0, all), batch.y.narrow(0, 0, all)).backward();
      if (rank() == size() - 1) {
        parallel.backward_without_batch();
      } else {
        parallel.backward(loss_of(model, x, y), 5);
      }
    } else {
      twin->zero_grad();
      loss_of(twin, batch.x, batch.y).backward();
      if (step == 2) {  // dropped, and accumulated again
        parallel.accumulate(loss_of(model, x.narrow(0, 0, 2), y.narrow(0, 0, 2)), 2);
        parallel.backward(loss_of(model, x.narrow(0, 2, 3), y.narrow(0, 2, 3)), 3);
      } else {
        parallel.backward(loss_of(model, x, y), 5);
      }
    }
    for (std::size_t i = 0; i < model->parameters().size(); ++i) {
      EXPECT_TRUE(close(model->parameters()[i].grad(), twin->parameters()[i].grad()))
          << "step " << step << ", " << i;
    }
    model->zero_grad();
  }
}

TEST_F(ParallelTraining, BroadcastsParametersAndBuffersAtTheStart) {
  const auto make = [](int64_t seed) {
    torch::manual_seed(static_cast<uint64_t>(seed));
    torch::nn::Sequential model(torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4));
    model[1]->as<torch::nn::BatchNorm1d>()->running_mean.fill_(static_cast<double>(seed));
    model->parameters()[1].requires_grad_(false);
    return model;
  };
  auto model = make(rank64()), expected = make(0);
  const DataParallel parallel(*model, ranks);
  for (const auto& item : model->named_parameters()) {
    EXPECT_TRUE(torch::equal(item.value(), expected->named_parameters()[item.key()])) << item.key();
  }
  for (const auto& item : model->named_buffers()) {
    EXPECT_TRUE(torch::equal(item.value(), expected->named_buffers()[item.key()])) << item.key();
  }
}

TEST_F(ParallelTraining, AveragesBatchNormsBuffersBySamples) {
  torch::nn::Sequential model(torch::nn::Linear(kFeatures, 5), torch::nn::BatchNorm1d(5),
                              torch::nn::Linear(5, kClasses));
  DataParallel parallel(*model, ranks);
  auto twin = std::dynamic_pointer_cast<torch::nn::SequentialImpl>(model->clone());
  // Rank r has 4 (r + 1) samples; the last of several ranks none.
  const auto count_of = [&](int64_t r) {
    return size64() > 1 && r == size64() - 1 ? int64_t{0} : 4 * (r + 1);
  };
  int64_t all = 0;
  for (int64_t r = 0; r < size64(); ++r) all += count_of(r);
  const Batch batch(0, all);
  Tensor mean = torch::zeros({5}), var = torch::zeros({5});
  int64_t begin = 0;
  for (int64_t r = 0; r < size64(); ++r) {
    const int64_t count = count_of(r);
    if (count == 0) continue;
    auto copy = std::dynamic_pointer_cast<torch::nn::SequentialImpl>(twin->clone());
    const auto x = batch.x.narrow(0, begin, count);
    copy->forward(x);
    const auto buffers = copy->named_buffers();
    mean += buffers["1.running_mean"] * (static_cast<double>(count) / static_cast<double>(all));
    var += buffers["1.running_var"] * (static_cast<double>(count) / static_cast<double>(all));
    if (r == rank64()) {
      parallel.backward(loss_of(model, x, batch.y.narrow(0, begin, count)), count);
    }
    begin += count;
  }
  if (count_of(rank64()) == 0) parallel.backward_without_batch();
  const auto buffers = model->named_buffers();
  EXPECT_TRUE(close(buffers["1.running_mean"], mean));
  EXPECT_TRUE(close(buffers["1.running_var"], var));
  EXPECT_EQ(buffers["1.num_batches_tracked"].item<int64_t>(), 1);
  for (const auto& item : buffers) expect_same_everywhere(item.value(), item.key());
}

TEST_F(ParallelTraining, LeavesConstantBuffersAsTheyAreBitForBit) {
  torch::nn::Sequential model(torch::nn::Linear(kFeatures, kClasses));
  torch::manual_seed(4);
  std::vector<std::pair<std::string, Tensor>> constants = {
      {"mask", torch::full({3, 3}, -std::numeric_limits<float>::infinity()).triu(1)},
      {"frequencies", torch::polar(torch::rand({5}) + 1, torch::randn({5}))},
      {"wide", torch::view_as_complex(torch::randn({4, 2}, torch::kDouble))},
      {"positions", torch::randn({40}) / 3},
      {"scale", torch::randn({7}).to(torch::kBFloat16)}};
  for (const auto& [name, value] : constants) model->register_buffer(name, value.clone());
  DataParallel parallel(*model, ranks);
  for (int64_t step = 0; step < 20; ++step) {
    const int64_t without = size64() > 1 ? step % size64() : -1;  // has nothing left
    if (rank64() == without) {
      parallel.backward_without_batch();
    } else {
      const Batch batch(step, 3 + 2 * rank64());
      parallel.backward(loss_of(model, batch.x, batch.y), batch.x.size(0));
    }
    model->zero_grad();
  }
  for (const auto& [name, value] : constants) {
    const auto buffer = model->named_buffers(/*recurse=*/false)[name];
    if (name == "wide") {  // the sum is in float64, too
      EXPECT_TRUE(close(torch::view_as_real(buffer), torch::view_as_real(value)));
    } else {
      EXPECT_TRUE(torch::equal(buffer, value)) << name << ": " << buffer;
    }
  }
}

TEST_F(ParallelTraining, BroadcastsAndAveragesBuffersMadeByExpand) {
  torch::nn::Sequential model(torch::nn::Linear(kFeatures, kClasses));
  model->register_buffer("rate", torch::full({4, 1}, rank() + 1.0).expand({4, 3}));
  model->register_buffer("wave", torch::polar(torch::full({2}, rank() + 1.0, at::kDouble),
                                              torch::ones({2}, at::kDouble))
                                     .expand({3, 2}));
  model->register_buffer("steps", (torch::arange(5) + rank()).expand({3, 5}));
  DataParallel parallel(*model, ranks);
  const auto buffer = [&](const char* name) { return model->named_buffers()[name]; };
  const auto ones = torch::ones({2}, at::kDouble);
  const auto wave = torch::polar(ones, ones).expand({3, 2});
  EXPECT_TRUE(torch::equal(buffer("rate"), torch::ones({4, 3})));
  EXPECT_TRUE(torch::equal(buffer("wave"), wave));
  EXPECT_TRUE(torch::equal(buffer("steps"), torch::arange(5).expand({3, 5})));

  buffer("rate").narrow(1, 0, 1).fill_(rank() + 1.0);
  buffer("wave").narrow(0, 0, 1).mul_(rank() + 1.0);
  buffer("steps").narrow(0, 0, 1).add_(rank());
  const Batch batch(rank64(), 8);
  parallel.backward(loss_of(model, batch.x, batch.y), 8);
  const double mean = (size() + 1) / 2.0;
  EXPECT_TRUE(close(buffer("rate"), torch::full({4, 3}, mean)));
  EXPECT_TRUE(close(torch::view_as_real(buffer("wave")), torch::view_as_real(wave) * mean));
  EXPECT_TRUE(torch::equal(buffer("steps"), (torch::arange(5) + (size() - 1)).expand({3, 5})));
  for (const auto& item : model->named_buffers()) expect_same_everywhere(item.value(), item.key());
}

TEST_F(ParallelTraining, LeavesLocalBuffersAlone) {
  torch::nn::Sequential model(torch::nn::BatchNorm1d(kFeatures), torch::nn::Linear(kFeatures, 4));
  DataParallel parallel(*model, ranks, DataParallelOptions().buffers(BufferPolicy::kLocal));
  const Batch batch(rank64(), 8);
  const auto loss = loss_of(model, batch.x, batch.y);
  const auto before = model->named_buffers()["0.running_mean"].clone();
  parallel.backward(loss, 8);
  EXPECT_TRUE(torch::equal(before, model->named_buffers()["0.running_mean"]));
}

TEST_F(ParallelTraining, AveragesGradientsInHalfPrecision) {
  auto model = make_model(0), twin = make_model(0);
  model->to(at::kBFloat16);
  twin->to(at::kBFloat16);
  DataParallel parallel(*model, ranks, small_buckets());
  const Batch batch(0, 8 * size64());
  parallel.backward(loss_of(model, batch.x.narrow(0, 8 * rank64(), 8).to(at::kBFloat16),
                            batch.y.narrow(0, 8 * rank64(), 8)),
                    8);
  loss_of(twin, batch.x.to(at::kBFloat16), batch.y).backward();
  for (std::size_t i = 0; i < model->parameters().size(); ++i) {
    const auto got = model->parameters()[i].grad().to(at::kFloat);
    const auto expected = twin->parameters()[i].grad().to(at::kFloat);
    EXPECT_LT((got - expected).abs().max().item<double>(),
              3e-2 * expected.abs().max().item<double>() + 1e-3);
  }
}

/// Two heads, of which a rank may use one.
struct TwoHeads : torch::nn::Module {
  TwoHeads() {
    torch::manual_seed(3);
    body = register_module("body", torch::nn::Linear(kFeatures, 8));
    first = register_module("first", torch::nn::Linear(8, kClasses));
    second = register_module("second", torch::nn::Linear(8, kClasses));
  }
  Tensor loss(const Batch& batch, bool use_first) {
    const auto features = torch::relu(body(batch.x));
    return torch::nn::functional::cross_entropy(use_first ? first(features) : second(features),
                                                batch.y);
  }
  torch::nn::Linear body{nullptr}, first{nullptr}, second{nullptr};
};

TEST_F(ParallelTraining, AveragesWhatOnlySomeRanksUseWhereThatIsAllowed) {
  TwoHeads model, twin;
  DataParallel parallel(model, ranks, small_buckets().find_unused_parameters(true));
  for (int64_t step = 0; step < 3; ++step) {
    model.zero_grad();
    twin.zero_grad();
    parallel.backward(model.loss(Batch(10 * step + rank64(), 4), rank() % 2 == 0), 4);
    Tensor sum = torch::zeros({});
    for (int64_t r = 0; r < size64(); ++r) {
      sum = sum + twin.loss(Batch(10 * step + r, 4), r % 2 == 0);
    }
    (sum / size()).backward();
    for (const auto& item : twin.named_parameters()) {
      const auto got = model.named_parameters()[item.key()].grad();
      if (size() == 1 && item.key().rfind("second", 0) == 0) {
        EXPECT_FALSE(got.defined()) << item.key();
      } else {
        EXPECT_TRUE(close(got, item.value().grad())) << item.key();
      }
    }
  }
}

TEST_F(ParallelTraining, CountsTiedWeightsOnce) {
  struct Tied : torch::nn::Module {
    Tied() {
      torch::manual_seed(2);
      weight = register_parameter("in", torch::randn({kFeatures, kFeatures}));
      register_parameter("out", weight);
    }
    Tensor weight;
  } model;
  DataParallel parallel(model, ranks);
  const Batch batch(rank64(), 4);
  parallel.backward(batch.x.mm(model.weight).mm(model.weight).square().mean(), 4);
  expect_same_everywhere(model.weight.grad(), "the tied weight's gradient");
}

TEST_F(ParallelTraining, RefusesAnotherModelOnEveryRankAndNamesIt) {
  if (size() < 3) GTEST_SKIP() << "a majority takes three ranks";
  const auto model = rank() == 1 ? torch::nn::Sequential(torch::nn::Linear(3, 5))
                                 : torch::nn::Sequential(torch::nn::Linear(3, 4));
  const auto before = model->parameters()[0].clone();
  const auto message = refusal([&] { DataParallel(*model, ranks); });
  EXPECT_NE(message.find("rank 1: expected 'parameter 0.weight Float [4, 3]', got 'parameter "
                         "0.weight Float [5, 3]'"),
            std::string::npos)
      << message;
  EXPECT_TRUE(torch::equal(model->parameters()[0], before));
}

TEST_F(ParallelTraining, RefusesOtherOptionsAndNamesTheRank) {
  if (size() < 3) GTEST_SKIP() << "a majority takes three ranks";
  auto model = make_model(0);
  const auto options = DataParallelOptions().run(rank() == 2 ? "lr 0.2" : "lr 0.1");
  const auto message = refusal([&] { DataParallel(*model, ranks, options); });
  EXPECT_NE(message.find("rank 2: expected 'lr 0.1', got 'lr 0.2'"), std::string::npos) << message;
}

TEST_F(ParallelTraining, ChecksItsArguments) {
  auto model = make_model(0);
  // Each fails the group: others would wait for this rank's step.
  const auto expect = [&](const auto& action, const std::string& part) {
    MpiGroup group(options());
    const auto message = refusal([&] { action(group); });
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect([&](auto& group) { DataParallel(*model, group, DataParallelOptions().bucket_bytes(0)); },
         "lawn::DataParallel: bucket_bytes must be > 0, got 0");
  expect([&](auto& group) { DataParallel(*model, group).backward(torch::ones({2}), 2); },
         "expected a loss of no dimension that requires a gradient, got one of shape [2]");
  expect(
      [&](auto& group) {
        const Batch batch(0, 2);
        DataParallel(*model, group).backward(loss_of(model, batch.x, batch.y), 0);
      },
      "expected samples > 0, got 0");
}

TEST_F(ParallelTraining, SaysWhichParametersHaveNoGradient) {
  TwoHeads model;
  MpiGroup group(options());
  DataParallel parallel(model, group);
  const auto message = refusal([&] { parallel.backward(model.loss(Batch(0, 4), true), 4); });
  EXPECT_NE(message.find("got none for second.weight, second.bias"), std::string::npos) << message;
}

TEST_F(ParallelTraining, GoesOnWithoutAFrozenParameterWhereARankHasNoBatch) {
  auto model = make_model(0);
  DataParallel parallel(*model, ranks, DataParallelOptions().find_unused_parameters(true));
  auto frozen = model->parameters().front();
  frozen.set_requires_grad(false);
  const auto before = frozen.clone();
  if (size64() > 1 && rank64() == size64() - 1) {
    parallel.backward_without_batch();
  } else {
    const Batch batch(rank64(), 4);
    parallel.backward(loss_of(model, batch.x, batch.y), 4);
  }
  EXPECT_FALSE(frozen.grad().defined());
  EXPECT_TRUE(torch::equal(frozen, before));
  expect_same_everywhere(model->parameters().back().grad(), "gradient of the last bias");
}

TEST_F(ParallelTraining, SaysThatItIsToBeConstructedAnewAfterFreezingOrUnfreezing) {
  const auto parallel_backward = [&](DataParallel& parallel, torch::nn::Sequential& model) {
    const Batch batch(0, 8);
    parallel.backward(loss_of(model, batch.x, batch.y), 8);
  };
  MpiGroup first(options()), second(options());
  {
    auto model = make_model(0);
    DataParallel parallel(*model, first);
    parallel_backward(parallel, model);
    model->parameters()[0].requires_grad_(false);
    model->parameters()[1].requires_grad_(false);
    const auto message = refusal([&] { parallel_backward(parallel, model); });
    EXPECT_NE(message.find("got 0.weight, 0.bias frozen since; construct it anew"),
              std::string::npos)
        << message;
  }
  {
    auto model = make_model(0);
    model->parameters()[2].requires_grad_(false);
    DataParallel parallel(*model, second);
    parallel_backward(parallel, model);
    model->parameters()[2].requires_grad_(true);
    model->parameters()[5].requires_grad_(false);
    const auto message = refusal([&] { parallel_backward(parallel, model); });
    EXPECT_NE(message.find("got 4.bias frozen since, 2.weight unfrozen since; construct it anew"),
              std::string::npos)
        << message;
  }
  auto model = make_model(0);
  DataParallel parallel(*model, ranks, small_buckets().find_unused_parameters(true));
  model->parameters()[0].requires_grad_(false);
  parallel_backward(parallel, model);  // where parameters may be without a gradient, also this one
  expect_same_everywhere(model->parameters()[2].grad(), "2.weight");
}

}  // namespace
