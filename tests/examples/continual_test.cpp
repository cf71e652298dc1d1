// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "examples/apps/continual/course.h"
#include "examples/apps/continual/dead_units.h"
#include "examples/apps/continual/learner.h"
#include "examples/apps/support/generated.h"
#include "examples/apps/support/trainer.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"

namespace {

using lawn::testing::expect_refusal;

constexpr int64_t kImages = 60;

class Continual : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(0);
    pool.train = {at::randn({kImages, 1, 4, 4}), at::arange(kImages) % 10};
    pool.test = {at::randn({20, 1, 4, 4}), at::arange(20) % 10};
  }

  TaskData pool;
};

TEST_F(Continual, RandomLabelsAreNewInEachTaskAndThoseOfTheirSeed) {
  const RandomLabels stream(pool, 10, 7);
  const RandomLabels same(pool, 10, 7);
  const RandomLabels other(pool, 10, 8);
  const at::Tensor first = stream.task(0).train.labels;
  EXPECT_FALSE(at::equal(first, stream.task(1).train.labels));
  EXPECT_FALSE(at::equal(first, other.task(0).train.labels));
  EXPECT_TRUE(at::equal(stream.task(5).train.labels, same.task(5).train.labels));
  EXPECT_TRUE(at::equal(stream.task(3).train.inputs, pool.train.inputs));
  at::Tensor counts = at::zeros({10}, at::kLong);
  for (int64_t task = 0; task < 100; ++task) counts += at::bincount(stream.task(task).train.labels);
  // 6,000 draws: 600 of each label, with a standard deviation of 23.
  EXPECT_LT((counts - 600).abs().max().item<int64_t>(), 120);
}

TEST_F(Continual, PermutedInputsHaveOneOrderOfPixelsInATask) {
  const PermutedInputs stream(pool, 10, 7);
  pool.train.inputs[0] = at::arange(16).view({1, 4, 4});
  const TaskData task = PermutedInputs(pool, 10, 7).task(1);
  const at::Tensor order = task.train.inputs[0].flatten().to(at::kLong);
  EXPECT_TRUE(at::equal(std::get<0>(order.sort()), at::arange(16)));
  EXPECT_TRUE(
      at::equal(task.train.inputs.flatten(1), pool.train.inputs.flatten(1).index_select(1, order)));
  EXPECT_TRUE(
      at::equal(task.test.inputs.flatten(1), pool.test.inputs.flatten(1).index_select(1, order)));
  EXPECT_TRUE(at::equal(task.train.labels, pool.train.labels));
  EXPECT_FALSE(at::equal(stream.task(0).test.inputs, task.test.inputs));
}

TEST_F(Continual, ClassPairsComeAllOnceBeforeOneComesAgain) {
  const ClassPairs stream(pool, 10, 7);
  EXPECT_EQ(stream.outputs(), 2);
  EXPECT_EQ(stream.size(), 12);
  for (const int64_t round : {0, 45}) {
    std::set<std::set<int64_t>> pairs;
    for (int64_t task = round; task < round + 45; ++task) {
      const auto [first, second] = stream.pair(task);
      pairs.insert({first, second});
    }
    EXPECT_EQ(pairs.size(), 45U);
  }
  const auto [first, second] = stream.pair(3);
  const TaskData task = stream.task(3);
  const at::Tensor chosen =
      at::logical_or(pool.train.labels.eq(first), pool.train.labels.eq(second));
  EXPECT_TRUE(at::equal(task.train.inputs, pool.train.inputs.index({chosen})));
  EXPECT_TRUE(
      at::equal(task.train.labels, pool.train.labels.index({chosen}).eq(second).to(at::kLong)));
}

TEST_F(Continual, GrowingClassesKeepThoseThatCameBefore) {
  const GrowingClasses stream(pool, 10, 7, 3);
  EXPECT_EQ(stream.tasks(), 4);
  std::set<int64_t> known;
  for (int64_t number = 0; number < 4; ++number) {
    std::set<int64_t> now;
    const at::Tensor labels = stream.task(number).train.labels;
    for (int64_t i = 0; i < labels.size(0); ++i) now.insert(labels[i].item<int64_t>());
    EXPECT_EQ(now.size(), std::min<size_t>(10, 3 * (static_cast<size_t>(number) + 1)));
    for (const int64_t label : known) EXPECT_EQ(now.count(label), 1U);
    known = now;
  }
}

TEST_F(Continual, AWarmStartIsOnHalfOfTheImages) {
  const WarmStart stream(pool, 10, 7);
  EXPECT_EQ(stream.task(0).train.size(), kImages / 2);
  EXPECT_TRUE(at::equal(stream.task(1).train.inputs, pool.train.inputs));
  EXPECT_TRUE(at::equal(stream.task(0).test.inputs, pool.test.inputs));
}

TEST_F(Continual, ATaskPassesItsImagesAsOftenAsItHasEpochs) {
  torch::manual_seed(0);
  const auto stream = std::make_shared<WarmStart>(pool, 10, 7);
  const auto network = examples::MLP(examples::MLPOptions{16, {8}, 10}).ptr();
  StreamTask task(network, stream, network->parameters(), {2, 10, 20, 7});
  EXPECT_EQ(task.size(), 2 * kImages);
  at::Generator unused = at::make_generator<at::CPUGeneratorImpl>(0);
  // Of the half, each image four times; of the whole, twice.
  for (int64_t number = 0; number < 2; ++number) {
    task.enter_epoch(number, true);
    task.begin_epoch(unused);
    double right = 0;
    double loss = 0;
    for (int64_t begin = 0; begin < task.size(); begin += 10) {
      const auto batch = task.batch(begin, begin + 10, unused);
      loss += batch.sums[0].item<double>();
      right += batch.sums[1].item<double>();
    }
    const Examples all = stream->task(number).train;
    const at::Tensor logits = network->forward(all.inputs);
    const double passes = static_cast<double>(task.size()) / static_cast<double>(all.size());
    EXPECT_DOUBLE_EQ(right, passes * logits.argmax(1).eq(all.labels).sum().item<double>());
    EXPECT_NEAR(loss,
                static_cast<double>(task.size()) *
                    at::cross_entropy_loss(logits, all.labels).item<double>(),
                1e-3);
  }
}

TEST_F(Continual, RefusesABatchLargerThanATask) {
  const auto network = examples::MLP(examples::MLPOptions{16, {8}, 10}).ptr();
  expect_refusal(
      [&] {
        StreamTask(network, std::make_shared<ClassPairs>(pool, 10, 7), network->parameters(),
                   {1, 64, 20, 7});
      },
      "--batch-size 64: a task has only 12 images");
}

TEST_F(Continual, ClassPairsAreAsLongAsTheTwoLargestClasses) {
  pool.train.labels = pool.train.labels.clamp_max(8);  // twelve images are of class 8
  EXPECT_EQ(ClassPairs(pool, 10, 7).size(), 18);
}

TEST_F(Continual, RefusesATaskWithoutImages) {
  const auto network = examples::MLP(examples::MLPOptions{16, {8}, 10}).ptr();
  const auto stream_of = [&](Examples TaskData::*half) {
    TaskData lacking = pool;  // all are of the class 0, which is not the seed's first
    (lacking.*half).labels = at::zeros_like((lacking.*half).labels);
    return std::make_shared<GrowingClasses>(lacking, 10, 7, 1);
  };
  for (const auto& [half, name] :
       {std::pair(&TaskData::train, "training"), std::pair(&TaskData::test, "test")}) {
    StreamTask task(network, stream_of(half), network->parameters(), {1, 4, 20, 7});
    task.enter_epoch(0, true);
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(0);
    expect_refusal([&] { task.begin_epoch(generator); },
                   std::string("task 1: none of its ") + name + " images is among those chosen");
  }
}

TEST_F(Continual, L2InitAddsTheDistanceFromTheInitialWeightsToTheGradient) {
  at::Tensor weight = at::randn({3, 2}, at::kDouble);
  const at::Tensor initial = weight.clone();
  weight.requires_grad_();
  at::Tensor unused = at::randn({2}, at::kDouble).requires_grad_();
  L2Init optimizer(torch::optim::SGD({weight, unused}, torch::optim::SGDOptions(0.5)),
                   {weight, unused}, 0.25);
  {
    const at::NoGradGuard no_grad;
    weight.add_(1.5);
  }
  const at::Tensor gradient = at::randn({3, 2}, at::kDouble);
  weight.mutable_grad() = gradient.clone();
  const at::Tensor expected =
      weight.detach() - 0.5 * (gradient + 0.25 * (weight.detach() - initial));
  optimizer.step();
  EXPECT_TRUE(at::allclose(weight.detach(), expected, 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(weight.grad(), gradient + 0.375, 1e-12, 1e-12));
}

TEST_F(Continual, L2InitAroundLAWNKeepsTheNorm) {
  torch::nn::Linear layer(torch::nn::LinearOptions(6, 4).bias(false));
  lawn::LAWN constrained(torch::optim::SGD(layer->parameters(), torch::optim::SGDOptions(0.1)),
                         lawn::select_all_weights(*layer));
  L2Init optimizer(std::move(constrained), layer->parameters(), 0.5);
  const double radius = layer->weight.norm().item<double>();
  for (int step = 0; step < 20; ++step) {
    optimizer.zero_grad();
    layer(at::randn({8, 6})).square().sum().backward();
    optimizer.step();
  }
  EXPECT_NEAR(layer->weight.norm().item<double>(), radius, 1e-5 * radius);
}

TEST_F(Continual, ShrinkAndPerturbMixesEachParameterWithANewOne) {
  torch::nn::Linear old(3, 2);
  torch::nn::Linear fresh(3, 2);
  const at::Tensor weight = old->weight.detach() * 0.6 + fresh->weight.detach() * 0.1;
  const at::Tensor bias = old->bias.detach() * 0.6 + fresh->bias.detach() * 0.1;
  shrink_and_perturb_(*old, *fresh, 0.6, 0.1);
  EXPECT_TRUE(at::allclose(old->weight, weight));
  EXPECT_TRUE(at::allclose(old->bias, bias));
}

TEST_F(Continual, StartingAnewTakesParametersAndStatistics) {
  torch::nn::BatchNorm2d old(3);
  torch::nn::BatchNorm2d fresh(3);
  old(at::randn({4, 3, 2, 2}));
  {
    const at::NoGradGuard no_grad;
    old->weight.fill_(std::nan(""));
  }
  start_anew_(*old, *fresh);
  EXPECT_TRUE(at::equal(old->weight, fresh->weight));
  EXPECT_TRUE(at::equal(old->running_mean, at::zeros({3})));
}

TEST_F(Continual, DeadUnitsAreThoseThatNoExampleReaches) {
  const auto network = examples::MLP(examples::MLPOptions{16, {4, 5}, 10}).ptr();
  {
    const at::NoGradGuard no_grad;
    for (auto& item : network->named_parameters()) {
      if (item.key() == "hidden1.bias") item.value().fill_(100);
      if (item.key() == "hidden2.weight") item.value().abs_();
      if (item.key() == "hidden1.bias") item.value()[2] = -1e4;
      if (item.key() == "hidden2.bias") item.value().slice(0, 0, 2).fill_(-1e4);
    }
  }
  DeadUnits dead;
  network->forward(pool.train.inputs);
  EXPECT_DOUBLE_EQ(dead.share(), 3.0 / 9);
}

TEST_F(Continual, AUnitIsAliveIfAnyPlaceOfAnyBatchReachesIt) {
  DeadUnits dead;
  for (int batch = 0; batch < 3; ++batch) {
    at::Tensor x = -at::ones({2, 4, 3, 3});
    x[1][batch][2][0] = 1;  // one place of another channel in each batch
    dead.next_batch();
    at::relu(x);
  }
  EXPECT_DOUBLE_EQ(dead.share(), 0.25);
}

TEST_F(Continual, WhatIsComputedWhileNobodyListensDoesNotCount) {
  at::relu(-at::ones({1, 2}));
  DeadUnits outer;
  {
    DeadUnits inner;
    at::relu(-at::ones({1, 2}));
    EXPECT_DOUBLE_EQ(inner.share(), 1);
  }
  EXPECT_DOUBLE_EQ(outer.share(), 0);
  at::relu(at::tensor({1.0F, -1.0F}).view({1, 2}));
  EXPECT_DOUBLE_EQ(outer.share(), 0.5);
}

TEST_F(Continual, TurningIsTheMeanAngleOverTensorsAndSteps) {
  at::Tensor a = at::tensor({3.0, 0.0});
  at::Tensor b = at::tensor({0.0, 2.0});
  Turning turning({a, b});
  const auto turn = [&](double angle_of_a, double angle_of_b) {
    a.copy_(at::tensor({std::cos(angle_of_a), std::sin(angle_of_a)}));
    b.copy_(at::tensor({std::sin(angle_of_b), std::cos(angle_of_b)}) * 7);
  };
  turning.before_step();
  turn(0.2, 1e-6);
  turning.after_step();
  EXPECT_NEAR(turning.mean(), (0.2 + 1e-6) / 2, 1e-12);
  turn(0.5, 0.5);
  turning.after_step();  // a step that is not looked at
  turning.before_step();
  turn(0.9, 0.5);
  turning.after_step();
  EXPECT_NEAR(turning.mean(), ((0.2 + 1e-6) / 2 + 0.2) / 2, 1e-12);
  turning.clear();
  EXPECT_EQ(turning.mean(), 0);
}

TEST_F(Continual, ACourseIsTheMeanAndThoseOfTheTenths) {
  std::vector<double> by_task;
  for (int task = 0; task < 21; ++task) by_task.push_back(task);
  const Course went = course(by_task);
  EXPECT_DOUBLE_EQ(went.mean, 10);
  EXPECT_DOUBLE_EQ(went.first, 1);  // of 0, 1 and 2
  EXPECT_DOUBLE_EQ(went.last, 19);
  EXPECT_DOUBLE_EQ(course({4, 6}).first, 4);
  expect_refusal([] { course(std::vector<double>{}); }, "expected the figures of a task at least");
}

TEST_F(Continual, AResNetWithoutNormIsHomogeneousInAllItsConvolutions) {
  auto network = examples::resnet20(1, 2, /*batch_norm=*/false);
  EXPECT_TRUE(network->buffers().empty());
  const auto found =
      lawn::final_homogeneous_subnetwork(network->forward(at::randn({2, 1, 8, 8})), *network);
  int64_t convolutions = 0;
  for (const at::Tensor& weight : found.parameters()) convolutions += weight.dim() == 4 ? 1 : 0;
  EXPECT_EQ(convolutions, 19);
}

TEST_F(Continual, BehindALayerNormOnlyTheHeadIsConstrained) {
  auto network = examples::MLP(examples::MLPOptions{16, {8, 8}, 10, true});
  const auto found =
      lawn::final_homogeneous_subnetwork(network->forward(pool.train.inputs), *network);
  EXPECT_EQ(found.names(), std::vector<std::string>{"head.weight"});
}

TEST_F(Continual, RefusesUnknownNames) {
  expect_refusal([&] { make_stream("tides", pool, 10, 0, 2); },
                 "unknown stream 'tides'; expected one of random-labels");
  torch::nn::Linear layer(4, 2);
  expect_refusal(
      [&] { make_method("hope", layer->parameters(), lawn::select_all_weights(*layer), {}); },
      "unknown method 'hope'; expected one of adam");
}

/// A method on a small stream, and the Trainer of it.
struct Job {
  Job(const std::string& method, const examples::Split& data, Options options,
      const examples::TrainerOptions& training)
      : learner(std::move(options), data, {examples::channel_statistics(data.train)}, method),
        trainer(learner.task(), learner.stepper(), learner.measured(), training, {}) {}

  void train_to(int64_t step) {
    std::ostringstream out;
    examples::Progress progress(out, "", 1, 0, false, "images");
    trainer.run(progress, [&] { return trainer.steps() >= step; });
  }

  Learner learner;
  examples::Trainer trainer;
};

TEST_F(Continual, EachMethodGoesOnInTheMiddleOfATaskToTheSameBits) {
  examples::GeneratedOptions drawn;
  drawn.train_size = 40;
  drawn.test_size = 10;
  drawn.channels = 1;
  drawn.image_size = 8;
  const examples::Split data = examples::generate_images(drawn);
  Options options;
  options.epochs = 3;
  options.epochs_per_task = 4;
  options.batch_size = 8;
  options.reset_state = true;
  const TemporaryFolder folder;
  examples::TrainerOptions training;
  training.epochs = 3;
  training.batch_size = 8;
  training.checkpoint = folder.path() / "run.pt";
  std::set<uint64_t> ends;
  for (const std::string& method : kMethods) {
    Job whole(method, data, options, training);
    whole.train_to(60);
    ASSERT_TRUE(whole.trainer.finished());
    Job first(method, data, options, training);
    first.train_to(33);  // 20 steps a task: in the middle of the second, after a look at the angle
    Job second(method, data, options, training);
    second.trainer.load(training.checkpoint);
    second.train_to(60);
    const auto fingerprint = [](Job& job) {
      return examples::fingerprint(job.learner.task().network().parameters());
    };
    EXPECT_EQ(fingerprint(second), fingerprint(whole)) << method;
    for (const char* column : {"online_accuracy", "task_loss", "dead_units", "angle"}) {
      const auto figures = [&](Job& job) { return course(job.trainer.history(), column).mean; };
      EXPECT_EQ(figures(second), figures(whole)) << method << ": " << column;
    }
    ends.insert(fingerprint(whole));
  }
  EXPECT_EQ(ends.size(), kMethods.size()) << "two methods end with the same weights";
}

}  // namespace
