// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <lawn/checkpoint.h>
#include <lawn/companions/eman.h>
#include <lawn/lawn.h>
#include <lawn/subnetwork/select_by_name.h>

#include "tests/support/refusal.h"
#include "tests/support/saved.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/warnings.h"

namespace {

using lawn::Checkpoint;
using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::testing::expect_refusal;
using lawn::testing::refusal;
using lawn::testing::saved;

torch::nn::Sequential network(int64_t hidden = 8) {
  return torch::nn::Sequential(torch::nn::Linear(6, hidden), torch::nn::BatchNorm1d(hidden),
                               torch::nn::ReLU(), torch::nn::Dropout(0.5),
                               torch::nn::Linear(hidden, 3));
}

/// Builds optimizer and schedule of a run, each of its own kind.
struct LAWNAndItsSchedule {
  using Optimizer = LAWN<lawn::FusedAdam>;
  using Schedule = lawn::LAWNSchedule;
  static Optimizer optimizer(torch::nn::Sequential& model) {
    return Optimizer(lawn::FusedAdam(model->parameters(), torch::optim::AdamOptions(0.01)),
                     lawn::select_all_weights(*model), LAWNOptions().free_steps(4));
  }
  static Schedule schedule(Optimizer& optimizer) {
    return Schedule(optimizer, lawn::LAWNScheduleOptions().total_steps(20).warmup_steps(2));
  }
};

struct AdamAndWarmupDecay {
  using Optimizer = torch::optim::Adam;
  using Schedule = lawn::WarmupDecay;
  static Optimizer optimizer(torch::nn::Sequential& model) {
    return Optimizer(model->parameters(), torch::optim::AdamOptions(0.01));
  }
  static Schedule schedule(Optimizer& optimizer) {
    return Schedule(optimizer, lawn::WarmupDecayOptions().total_steps(20).warmup_steps(8));
  }
};

struct SGDAndStepLR {
  using Optimizer = torch::optim::SGD;
  using Schedule = torch::optim::StepLR;
  static Optimizer optimizer(torch::nn::Sequential& model) {
    return Optimizer(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  }
  static Schedule schedule(Optimizer& optimizer) { return Schedule(optimizer, 3, 0.5); }
};

/// All that a run consists of, and its checkpoint.
template <class Kind>
struct Training {
  explicit Training(uint64_t seed, int64_t hidden = 8) : model(made(seed, hidden)) {
    checkpoint.require("dropout", 0.5)
        .add("model", model)
        .add("optimizer", optimizer)
        .add("schedule", schedule)
        .add("scaler", scaler)
        .add("step", step)
        .add("best", best)
        .add("log", log)
        .add("losses", losses)
        .add("shuffle", shuffle)
        .add_random_state();
  }

  static torch::nn::Sequential made(uint64_t seed, int64_t hidden) {
    torch::manual_seed(seed);
    return network(hidden);
  }

  void train_to(int64_t end) {
    for (; step < end; ++step) {
      optimizer.zero_grad();
      const auto x = at::rand({16, 6}, shuffle);
      const auto loss = model->forward(x).square().mean();
      scaler.scale(loss).backward();
      if (scaler.step(optimizer)) schedule.step();
      scaler.update();
      best = std::min(best, loss.template item<double>());
      losses = torch::cat({losses, loss.detach().reshape({1})});
      log += std::to_string(step) + ' ';
    }
  }

  double rate() const { return optimizer.param_groups().front().options().get_lr(); }

  torch::nn::Sequential model;
  typename Kind::Optimizer optimizer = Kind::optimizer(model);
  typename Kind::Schedule schedule = Kind::schedule(optimizer);
  lawn::GradScaler scaler{lawn::GradScalerOptions().growth_interval(3)};
  int64_t step = 0;
  double best = 1e9;
  std::string log;
  at::Tensor losses = torch::empty({0});
  at::Generator shuffle = at::make_generator<at::CPUGeneratorImpl>(uint64_t{5});
  Checkpoint checkpoint;
};

/// Trains a new run of the same seed to the step at which `run` is, and then both on, from one
/// state of the default generator.
template <class Kind>
void expect_same_course(Training<Kind>& run, uint64_t seed) {
  const int64_t end = run.step + 4;
  Training<Kind> twin(seed);
  twin.train_to(run.step);
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const auto state = generator.get_state();
  twin.train_to(end);
  generator.set_state(state);
  run.train_to(end);
  EXPECT_TRUE(saved(run.model) == saved(twin.model));
  EXPECT_EQ(run.rate(), twin.rate());
}

template <class Kind>
class Resumed : public testing::Test {
 protected:
  TemporaryFolder temporary_;
  const std::filesystem::path path_ = temporary_.path() / "run.pt";
};
using Kinds = testing::Types<LAWNAndItsSchedule, AdamAndWarmupDecay, SGDAndStepLR>;
TYPED_TEST_SUITE(Resumed, Kinds);

TYPED_TEST(Resumed, GoesOnToTheSameBits) {
  Training<TypeParam> whole(1);
  whole.train_to(12);
  for (const int64_t stop : {0, 3, 4, 5, 9}) {
    {
      Training<TypeParam> first(1);
      first.train_to(stop);
      first.checkpoint.save(this->path_);
    }
    Training<TypeParam> second(77);  // made otherwise, and already used
    second.train_to(2);
    second.checkpoint.load(this->path_);
    EXPECT_EQ(second.step, stop);
    second.train_to(12);
    EXPECT_TRUE(saved(second.model) == saved(whole.model)) << stop;
    EXPECT_TRUE(torch::equal(second.losses, whole.losses)) << stop;
    EXPECT_EQ(second.rate(), whole.rate()) << stop;
    EXPECT_EQ(second.best, whole.best) << stop;
    EXPECT_EQ(second.log, whole.log) << stop;
    EXPECT_EQ(second.scaler.get_scale(), whole.scaler.get_scale()) << stop;
  }
}

TYPED_TEST(Resumed, IsRefusedAsAWholeForAnotherNetwork) {
  Training<TypeParam> wide(1, 16);
  wide.train_to(5);
  wide.checkpoint.save(this->path_);
  Training<TypeParam> run(1);
  run.train_to(3);
  const auto before = saved(run.model) + saved(run.optimizer);
  const std::string text = refusal([&] { run.checkpoint.load(this->path_); });
  for (const char* part :
       {"run.pt: a checkpoint of another run: ",
        "model.0.weight is Float of shape [16, 6] there and Float of shape [8, 6] here",
        "model.1.running_mean is Float of shape [16] there", "optimizer: expected",
        "nothing was changed"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
  EXPECT_TRUE(saved(run.model) + saved(run.optimizer) == before);
  EXPECT_EQ(run.step, 3);
  expect_same_course(run, 1);
}

class CheckpointTest : public testing::Test {
 protected:
  TemporaryFolder temporary_;
  const std::filesystem::path path_ = temporary_.path() / "run.pt";
};

TEST_F(CheckpointTest, OverwritesWeightsInPlaceAndKeepsTies) {
  torch::manual_seed(1);
  torch::nn::Linear layer(4, 4);
  auto model = std::make_shared<torch::nn::Module>();
  model->register_module("first", layer.ptr());
  model->register_module("again", layer.ptr());
  const auto weight = layer->weight.detach().clone();
  const void* address = layer->weight.data_ptr();
  Checkpoint checkpoint;
  checkpoint.add("model", model).save(path_);
  {
    const torch::NoGradGuard no_grad;
    layer->weight.zero_();
  }
  checkpoint.load(path_);
  EXPECT_TRUE(torch::equal(layer->weight, weight));
  EXPECT_EQ(layer->weight.data_ptr(), address);
  EXPECT_TRUE(layer->weight.requires_grad());
}

TEST_F(CheckpointTest, TakesAPlainOptimizersStateIntoLAWNAndBack) {
  torch::nn::Linear layer(4, 3);
  torch::optim::Adam plain(layer->parameters(), torch::optim::AdamOptions(0.5));
  layer->forward(torch::ones({2, 4})).sum().backward();
  plain.step();
  Checkpoint().add("optimizer", plain).save(path_);
  LAWN<torch::optim::Adam> decorated(torch::optim::Adam(layer->parameters()),
                                     lawn::select_all_weights(*layer), LAWNOptions());
  {
    const lawn::testing::CapturedWarnings warnings;
    Checkpoint().add("optimizer", decorated).load(path_);
    EXPECT_NE(warnings.text().find("written by an optimizer without this decorator"),
              std::string::npos);
  }
  EXPECT_EQ(decorated.param_groups()[0].options().get_lr(), 0.5);
  EXPECT_EQ(decorated.state().size(), 2U);
  Checkpoint().add("optimizer", decorated).save(path_);
  torch::optim::Adam other(layer->parameters());
  Checkpoint().add("optimizer", other).load(path_);
  EXPECT_EQ(other.param_groups()[0].options().get_lr(), 0.5);
}

/// A module that writes more than its tensors.
struct Counting : torch::nn::Module {
  Counting() : layer(register_module("layer", torch::nn::Linear(2, 2))) {}
  void save(torch::serialize::OutputArchive& archive) const override {
    torch::nn::Module::save(archive);
    archive.write("calls", c10::IValue(calls));
  }
  void load(torch::serialize::InputArchive& archive) override {
    torch::nn::Module::load(archive);
    c10::IValue value;
    archive.read("calls", value);
    calls = value.toInt();
    TORCH_CHECK(calls != 13, "Counting: 13 calls are refused");
  }

  torch::nn::Linear layer;
  int64_t calls = 0;
};

TEST_F(CheckpointTest, LoadsAModuleInANetworkByItsOwnLoad) {
  auto counting = std::make_shared<Counting>();
  torch::nn::Sequential model(torch::nn::Linear(2, 2));
  auto whole = std::make_shared<torch::nn::Module>();
  whole->register_module("model", model.ptr());
  whole->register_module("counting", counting);
  counting->calls = 7;
  const auto weight = counting->layer->weight.detach().clone();
  Checkpoint checkpoint;
  checkpoint.add("whole", whole).save(path_);
  counting->calls = 0;
  counting->layer->reset_parameters();
  checkpoint.load(path_);
  EXPECT_EQ(counting->calls, 7);
  EXPECT_TRUE(torch::equal(counting->layer->weight, weight));
}

TEST_F(CheckpointTest, WritesIntoATensorThatIsTrained) {
  auto temperature = torch::full({2}, 3.0).requires_grad_();
  torch::optim::SGD sgd({temperature}, 0.1);
  Checkpoint checkpoint;
  checkpoint.add("temperature", temperature).add("sgd", sgd).save(path_);
  const auto* held = temperature.unsafeGetTensorImpl();
  {
    const torch::NoGradGuard no_grad;
    temperature.fill_(5);
  }
  checkpoint.load(path_);
  EXPECT_EQ(temperature.unsafeGetTensorImpl(), held) << "as the optimizer holds it";
  EXPECT_TRUE(temperature.requires_grad());
  EXPECT_TRUE(torch::equal(temperature.detach(), torch::full({2}, 3.0)));
  auto longer = torch::ones({3}).requires_grad_();
  torch::optim::SGD other({temperature}, 0.1);
  expect_refusal([&] { Checkpoint().add("temperature", longer).add("sgd", other).load(path_); },
                 "temperature is trained here, and has another shape");
}

TEST_F(CheckpointTest, HoldsATeacherOfAverages) {
  torch::nn::Linear student(3, 2);
  lawn::EmaTeacher<torch::nn::LinearImpl> teacher(*student);
  for (int i = 0; i < 3; ++i) teacher.update(*student);
  Checkpoint().add("teacher", teacher).save(path_);
  lawn::EmaTeacher<torch::nn::LinearImpl> other(*torch::nn::Linear(3, 2));
  Checkpoint().add("teacher", other).load(path_);
  EXPECT_EQ(other.steps(), 3);
  EXPECT_TRUE(saved(other) == saved(teacher));
}

TEST_F(CheckpointTest, TakesBackEverythingIfALaterObjectRefuses) {
  Training<LAWNAndItsSchedule> good(1);
  Counting counting;
  good.checkpoint.add("counting", counting);
  good.train_to(8);
  counting.calls = 13;
  good.checkpoint.save(path_);

  Counting refusing;
  Training<LAWNAndItsSchedule> run(2);
  run.checkpoint.add("counting", refusing);
  run.train_to(5);
  const auto layer = saved(refusing.layer);
  expect_refusal([&] { run.checkpoint.load(path_); }, "Counting: 13 calls are refused");
  EXPECT_EQ(refusing.calls, 0);
  EXPECT_TRUE(saved(refusing.layer) == layer);
  EXPECT_EQ(run.step, 5);
  expect_same_course(run, 2);
}

TEST_F(CheckpointTest, HoldsTwoOptimizersEachUnderItsName) {
  torch::nn::Linear generator(3, 3);
  torch::nn::Linear critic(3, 1);
  const auto lawn = [](torch::nn::Linear& net, double lr) {
    return LAWN<torch::optim::Adam>(torch::optim::Adam(net->parameters(), lr),
                                    lawn::select_all_weights(*net), LAWNOptions());
  };
  auto first = lawn(generator, 0.1);
  auto second = lawn(critic, 0.2);
  Checkpoint().add("generator", first).add("critic", second).save(path_);
  auto third = lawn(generator, 0.3);
  auto fourth = lawn(critic, 0.4);
  Checkpoint().add("critic", fourth).add("generator", third).load(path_);
  EXPECT_EQ(third.param_groups()[0].options().get_lr(), 0.1);
  EXPECT_EQ(fourth.param_groups()[0].options().get_lr(), 0.2);
  expect_refusal([&] { Checkpoint().add("critic", third).add("generator", fourth).load(path_); },
                 "critic: expected");
}

TEST_F(CheckpointTest, HoldsNumbersTextsTensorsAndLists) {
  bool flag = true;
  int small = -3;
  uint64_t seed = ~uint64_t{0};
  float rate = 0.25F;
  std::vector<int64_t> sizes = {1, 2, 3};
  std::vector<double> figures = {0.1, 0.2};
  std::vector<std::string> names = {"a", ""};
  at::Tensor undefined;
  at::Tensor table = torch::ones({2, 3}, torch::kLong);
  Checkpoint checkpoint;
  checkpoint.add("flag", flag)
      .add("small", small)
      .add("seed", seed)
      .add("rate", rate)
      .add("sizes", sizes)
      .add("figures", figures)
      .add("names", names)
      .add("undefined", undefined)
      .add("table", table);
  checkpoint.save(path_);
  flag = false;
  small = 0;
  seed = 0;
  rate = 0;
  sizes.clear();
  figures.clear();
  names.clear();
  undefined = torch::ones({1});
  table = torch::zeros({7});
  checkpoint.load(path_);
  EXPECT_TRUE(flag);
  EXPECT_EQ(small, -3);
  EXPECT_EQ(seed, ~uint64_t{0});
  EXPECT_EQ(rate, 0.25F);
  EXPECT_EQ(sizes, (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(figures, (std::vector<double>{0.1, 0.2}));
  EXPECT_EQ(names, (std::vector<std::string>{"a", ""}));
  EXPECT_FALSE(undefined.defined());
  EXPECT_TRUE(torch::equal(table, torch::ones({2, 3}, torch::kLong)));
}

TEST_F(CheckpointTest, NamesAllThatDiffers) {
  int64_t epoch = 1;
  double best = 0.5;
  std::string note;
  Checkpoint()
      .require("network", "vgg")
      .require("width", 0.1)
      .require("old", true)
      .add("epoch", epoch)
      .add("best", best)
      .add("note", note)
      .save(path_);
  Checkpoint other;
  other.require("network", "resnet20")
      .require("width", 0.1)
      .require("seed", 3)
      .add("epoch", best)
      .add("best", best)
      .add("more", note);
  const std::string text = refusal([&] { other.load(path_); });
  for (const char* part :
       {"network is vgg there and resnet20 here", "seed is not set there and 3 here",
        "old is true there and not set here", "epoch is integer there and number here",
        "more is not added there and text here", "note is text there and not added here"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
  EXPECT_EQ(text.find("width"), std::string::npos) << text;
  EXPECT_EQ(text.find("best"), std::string::npos) << text;
}

TEST_F(CheckpointTest, RefusesANumberThatTheVariableCannotHold) {
  int64_t large = int64_t{1} << 40;
  Checkpoint().add("number", large).save(path_);
  int small = 1;
  expect_refusal([&] { Checkpoint().add("number", small).load(path_); },
                 "number does not fit into this program's integer");
  EXPECT_EQ(small, 1);
}

TEST_F(CheckpointTest, GivesAModelOutOfARunsCheckpoint) {
  Training<LAWNAndItsSchedule> run(1);
  run.train_to(3);
  run.checkpoint.save(path_);
  torch::nn::Sequential model = network();
  Checkpoint some;
  some.add("model", model);
  expect_refusal([&] { some.load(path_); }, "step is integer there and not added here");
  some.load(path_, /*strict=*/false);
  EXPECT_TRUE(saved(model) == saved(run.model));
}

TEST_F(CheckpointTest, RefusesASchedulerOfAnotherKindAndAnotherSchedule) {
  torch::nn::Linear layer(2, 2);
  torch::optim::SGD optimizer(layer->parameters(), 0.1);
  torch::optim::StepLR steps(optimizer, 2);
  Checkpoint().add("schedule", steps).save(path_);
  lawn::WarmupDecay decay(optimizer, lawn::WarmupDecayOptions().total_steps(10));
  expect_refusal([&] { Checkpoint().add("schedule", decay).load(path_); },
                 "schedule is torch::optim::StepLR there and lawn::WarmupDecay here");
  Checkpoint().add("schedule", decay).save(path_);
  lawn::WarmupDecay longer(optimizer, lawn::WarmupDecayOptions().total_steps(20));
  expect_refusal([&] { Checkpoint().add("schedule", longer).load(path_); }, "total_steps = 10");
}

TEST_F(CheckpointTest, RefusesNamesThatAreEmptyTakenOrItsOwn) {
  int64_t number = 0;
  Checkpoint checkpoint;
  checkpoint.add("number", number).require("seed", 1);
  expect_refusal([&] { checkpoint.add("number", number); }, "expected every name once, got number");
  expect_refusal([&] { checkpoint.add("", number); }, "expected a name that is not empty");
  expect_refusal([&] { checkpoint.add("lawn/kinds", number); }, "got 'lawn/kinds'");
  expect_refusal([&] { checkpoint.require("seed", 2); }, "expected every requirement once");
}

TEST_F(CheckpointTest, HoldsTorchScriptInPlace) {
  const auto make = [](int64_t width) {
    torch::jit::Module module("Scaled");
    module.register_parameter("weight", torch::randn({width, 3}), /*is_buffer=*/false);
    module.register_buffer("count", torch::zeros({}, torch::kLong));
    module.define("def forward(self, x):\n    return x.matmul(self.weight.t())\n");
    return module;
  };
  auto module = make(2);
  Checkpoint().add("module", module).save(path_);
  auto other = make(2);
  const auto weight = other.attr("weight").toTensor();
  Checkpoint().add("module", other).load(path_);
  EXPECT_TRUE(torch::equal(weight, module.attr("weight").toTensor()));
  EXPECT_TRUE(other.attr("weight").toTensor().is_same(weight));
  auto wide = make(4);
  expect_refusal([&] { Checkpoint().add("module", wide).load(path_); },
                 "module.weight is Float of shape [2, 3] there and Float of shape [4, 3] here");
}

TEST_F(CheckpointTest, SavesWhatTheHolderHoldsNow) {
  torch::nn::Linear layer(2, 2);
  Checkpoint checkpoint;
  checkpoint.add("layer", layer);
  layer = torch::nn::Linear(5, 5);
  checkpoint.save(path_);
  torch::nn::Linear other(5, 5);
  Checkpoint().add("layer", other).load(path_);
  EXPECT_TRUE(torch::equal(other->weight, layer->weight));
}

}  // namespace
