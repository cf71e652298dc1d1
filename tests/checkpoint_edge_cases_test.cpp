// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/checkpoint.h>
#include <lawn/grad_scaler.h>
#include <lawn/optim/fused_sgd.h>
#include <lawn/schedule/warmup_decay.h>
#include <lawn/write_atomically.h>

#include "tests/support/own_optimizer.h"
#include "tests/support/refusal.h"
#include "tests/support/saved.h"
#include "tests/support/temporary_folder.h"

namespace {

using lawn::Checkpoint;
using lawn::testing::expect_refusal;
using lawn::testing::saved;

class CheckpointEdgeCases : public testing::Test {
 protected:
  TemporaryFolder temporary_;
  const std::filesystem::path path_ = temporary_.path() / "run.pt";
};

TEST_F(CheckpointEdgeCases, NamesThatLibTorchDoesNotReadBackAreRefused) {
  int64_t number = 0;
  for (const char* name : {"pass", "in", "None", "a\"b", "a\\b", "a\nb"}) {
    Checkpoint checkpoint;
    expect_refusal([&] { checkpoint.add(name, number); }, "rename the entry");
  }
  for (const char* name : {"lambda", "a b", "a-b", "a/b", "0", "größe"}) {
    Checkpoint checkpoint;
    checkpoint.add(name, number).save(path_);
    checkpoint.load(path_);
  }
}

TEST_F(CheckpointEdgeCases, NamesInAModuleToo) {
  auto module = std::make_shared<torch::nn::Module>();
  module->register_module("in", torch::nn::Linear(2, 2).ptr());
  expect_refusal([&] { Checkpoint().add("module", module).save(path_); }, "as 'in' is");
  EXPECT_TRUE(std::filesystem::is_empty(temporary_.path()));
}

TEST_F(CheckpointEdgeCases, NamesInAModuleAreRefusedAtEachSaveUntilTheyCanBeRead) {
  int64_t number = 3;
  Checkpoint().add("n", number).save(path_);
  auto module = std::make_shared<torch::nn::Module>();
  module->register_module("in", torch::nn::Linear(2, 2).ptr());
  Checkpoint checkpoint;
  checkpoint.add("module", module);
  for (int time = 0; time < 2; ++time) {
    expect_refusal([&] { checkpoint.save(path_); }, "as 'in' is");
  }
  number = 0;
  Checkpoint().add("n", number).load(path_);
  EXPECT_EQ(number, 3) << "the good file is still there";
}

TEST_F(CheckpointEdgeCases, NamesInAModuleThatIsAddedAfterASaveAreRefused) {
  int64_t number = 3;
  Checkpoint checkpoint;
  checkpoint.add("n", number).save(path_);
  auto module = std::make_shared<torch::nn::Module>();
  module->register_module("in", torch::nn::Linear(2, 2).ptr());
  checkpoint.add("module", module);
  expect_refusal([&] { checkpoint.save(path_); }, "as 'in' is");
  number = 0;
  Checkpoint().add("n", number).load(path_);
  EXPECT_EQ(number, 3) << "the good file is still there";
}

TEST_F(CheckpointEdgeCases, AnExpandedBufferIsOverwrittenInPlace) {
  const auto make = [](int64_t first) {
    auto module = std::make_shared<torch::nn::Module>();
    module->register_buffer("positions", torch::arange(first, first + 5).expand({3, 5}));
    return module;
  };
  auto one = make(0);
  auto other = make(7);
  const void* place = other->buffers()[0].data_ptr();
  Checkpoint().add("module", one).save(path_);
  Checkpoint().add("module", other).load(path_);
  EXPECT_TRUE(torch::equal(other->buffers()[0], one->buffers()[0]));
  EXPECT_EQ(other->buffers()[0].data_ptr(), place);
}

/// Refuses everything that it is to load.
struct Refusing {
  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("number", c10::IValue(1));
  }
  void load(torch::serialize::InputArchive& /*archive*/) {
    if (fresh) TORCH_CHECK(false, "Refusing: no");
  }
  bool fresh = false;
};

TEST_F(CheckpointEdgeCases, AFreshOptimizerIsFreshAgainAfterARefusal) {
  torch::nn::Linear layer(3, 2);
  torch::optim::Adam used(layer->parameters());
  layer(torch::ones({1, 3})).sum().backward();
  used.step();
  Refusing refusing;
  Checkpoint().add("optimizer", used).add("refusing", refusing).save(path_);
  torch::optim::Adam fresh(layer->parameters());
  refusing.fresh = true;
  Checkpoint checkpoint;
  checkpoint.add("optimizer", fresh).add("refusing", refusing);
  expect_refusal([&] { checkpoint.load(path_); }, "Refusing: no");
  EXPECT_TRUE(fresh.state().empty());
}

/// A layer with an optimizer that has no `save` and `load`, a step on.
struct Unsaved {
  using Groups = std::vector<torch::optim::OptimizerParamGroup>;
  Unsaved() : layer(3, 2), optimizer(Groups{layer->parameters()}) {
    layer(torch::ones({1, 3})).sum().backward();
    optimizer.step();
  }
  torch::nn::Linear layer;
  lawn::testing::UnsavedSignMomentum optimizer;
};

TEST_F(CheckpointEdgeCases, AnOptimizerThatKeepsStateAndWritesNoneIsRefused) {
  Unsaved run;
  const std::string message = "optimizer: expected an optimizer that writes its state";
  expect_refusal([&] { Checkpoint().add("optimizer", run.optimizer).save(path_); }, message);
  torch::optim::Optimizer& base = run.optimizer;
  expect_refusal([&] { Checkpoint().add("optimizer", base).save(path_); }, message);
  EXPECT_EQ(base.state().size(), 2U);
  EXPECT_TRUE(std::filesystem::is_empty(temporary_.path()));
  torch::optim::SGD sgd(run.layer->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  sgd.step();
  torch::optim::Optimizer& saving = sgd;
  Checkpoint().add("optimizer", saving).save(path_);
}

TEST_F(CheckpointEdgeCases, AnOptimizerThatReadsNothingKeepsItsState) {
  Refusing refusing;
  lawn::testing::UnsavedSignMomentum fresh(Unsaved::Groups{torch::nn::Linear(3, 2)->parameters()});
  Checkpoint().add("optimizer", fresh).add("refusing", refusing).save(path_);
  Unsaved run;
  refusing.fresh = true;
  Checkpoint checkpoint;
  checkpoint.add("optimizer", run.optimizer).add("refusing", refusing);
  expect_refusal([&] { checkpoint.load(path_); }, "Refusing: no");
  EXPECT_EQ(run.optimizer.state().size(), 2U) << "after a load that was taken back";
  refusing.fresh = false;
  checkpoint.load(path_);
  EXPECT_EQ(run.optimizer.state().size(), 2U);
}

/// Trains an embedding with sparse gradients, of which the momentum is sparse, too; from `stop` on
/// with another optimizer, which loads the checkpoint of the first.
template <class Optimizer>
at::Tensor trained(int64_t stop, const std::filesystem::path& path) {
  torch::manual_seed(3);
  torch::nn::Embedding embedding(torch::nn::EmbeddingOptions(6, 2).sparse(true));
  const auto make = [&] {
    return Optimizer(embedding->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  };
  auto first = make();
  auto second = make();
  for (int64_t step = 0; step < 4; ++step) {
    if (step == stop) {
      Checkpoint().add("optimizer", first).save(path);
      Checkpoint().add("optimizer", second).load(path);
    }
    torch::optim::Optimizer& optimizer = step < stop ? first : second;
    optimizer.zero_grad();
    embedding(torch::tensor({1, 4})).sum().backward();
    optimizer.step();
  }
  return embedding->weight.detach().clone();
}

TEST_F(CheckpointEdgeCases, ASparseMomentumGoesOn) {
  using torch::optim::SGD;
  EXPECT_TRUE(torch::equal(trained<SGD>(2, path_), trained<SGD>(9, path_)));
  EXPECT_TRUE(torch::equal(trained<lawn::FusedSGD>(2, path_), trained<lawn::FusedSGD>(9, path_)));
}

TEST_F(CheckpointEdgeCases, AModuleWithoutTensorsIsReadOntoTheCPU) {
  torch::nn::Sequential model{torch::nn::ReLU()};
  const lawn::detail::checkpoint::ModuleEntry entry("model",
                                                    [&]() -> torch::nn::Module& { return *model; });
  EXPECT_EQ(entry.device(), at::Device(at::kCPU));
}

TEST_F(CheckpointEdgeCases, AGeneratorIsTheOneThatTheVariableHoldsNow) {
  at::Generator shuffle;
  Checkpoint checkpoint;
  checkpoint.add("shuffle", shuffle);
  expect_refusal([&] { checkpoint.save(path_); }, "expected shuffle to be a generator");
  shuffle = at::make_generator<at::CPUGeneratorImpl>(5);
  torch::randn({3}, shuffle);
  checkpoint.save(path_);
  const at::Tensor next = torch::randn({3}, shuffle);
  shuffle = at::make_generator<at::CPUGeneratorImpl>(6);
  checkpoint.load(path_);
  EXPECT_TRUE(torch::equal(torch::randn({3}, shuffle), next));
}

TEST_F(CheckpointEdgeCases, AScalerIsLoadedWithinAnIteration) {
  torch::nn::Linear layer(3, 2);
  torch::optim::SGD sgd(layer->parameters(), 0.1);
  lawn::GradScaler scaler;
  Checkpoint checkpoint;
  checkpoint.add("scaler", scaler).save(path_);
  scaler.scale(layer(torch::ones({1, 3})).sum()).backward();
  scaler.unscale_(sgd);
  checkpoint.load(path_);
  checkpoint.save(path_);
}

/// A module that writes as many entries as it has.
struct Memory : torch::nn::Module {
  void save(torch::serialize::OutputArchive& archive) const override {
    archive.write("size", c10::IValue(static_cast<int64_t>(items.size())));
    for (std::size_t i = 0; i < items.size(); ++i) {
      archive.write("item/" + std::to_string(i), items[i], /*is_buffer=*/true);
    }
  }
  void load(torch::serialize::InputArchive& archive) override {
    c10::IValue size;
    archive.read("size", size);
    items.assign(static_cast<std::size_t>(size.toInt()), {});
    for (std::size_t i = 0; i < items.size(); ++i) {
      archive.read("item/" + std::to_string(i), items[i], /*is_buffer=*/true);
    }
  }
  std::vector<at::Tensor> items;
};

TEST_F(CheckpointEdgeCases, AModuleThatLoadsItselfMayHoldMoreThanBefore) {
  auto full = std::make_shared<Memory>();
  full->items = {torch::ones({2}), torch::zeros({3})};
  Checkpoint().add("memory", full).save(path_);
  auto fresh = std::make_shared<Memory>();
  Checkpoint().add("memory", fresh).load(path_);
  ASSERT_EQ(fresh->items.size(), 2U);
  EXPECT_TRUE(torch::equal(fresh->items[0], torch::ones({2})));
}

/// A module that writes its weight as half, under the usual key, and counts how often it loads.
struct Packed : torch::nn::Module {
  explicit Packed(int64_t width) : w(register_parameter("w", torch::randn({width, 2}))) {}
  void save(torch::serialize::OutputArchive& archive) const override {
    archive.write("w", w.detach().to(torch::kHalf));
  }
  void load(torch::serialize::InputArchive& archive) override {
    at::Tensor half;
    archive.read("w", half);
    const torch::NoGradGuard no_grad;
    w.copy_(half);
    ++loads;
  }
  at::Tensor w;
  int64_t loads = 0;
};

/// A network that writes the weights of its layers as half, and the layers do not know of it.
struct PackedWhole : torch::nn::Module {
  PackedWhole() : layer(register_module("layer", torch::nn::Linear(2, 2))) {}
  void save(torch::serialize::OutputArchive& archive) const override {
    torch::serialize::OutputArchive part(archive.compilation_unit());
    for (const auto& item : layer->named_parameters()) {
      part.write(item.key(), item.value().detach().to(torch::kHalf));
    }
    archive.write("layer", part);
  }
  void load(torch::serialize::InputArchive& archive) override {
    torch::serialize::InputArchive part;
    archive.read("layer", part);
    const torch::NoGradGuard no_grad;
    for (auto& item : layer->named_parameters()) {
      at::Tensor half;
      part.read(item.key(), half);
      item.value().copy_(half);
    }
  }
  torch::nn::Linear layer;
};

TEST_F(CheckpointEdgeCases, AModuleThatPacksItsTensorsUnpacksThemByItsOwnLoad) {
  const auto beside_a_layer = [](const std::shared_ptr<Packed>& packed) {
    auto whole = std::make_shared<torch::nn::Module>();
    whole->register_module("layer", torch::nn::Linear(2, 2).ptr());
    whole->register_module("packed", packed);
    return whole;
  };
  auto one = beside_a_layer(std::make_shared<Packed>(3));
  auto packed = std::make_shared<Packed>(3);
  auto other = beside_a_layer(packed);
  Checkpoint().add("module", one).save(path_);
  Checkpoint().add("module", other).load(path_);
  EXPECT_EQ(packed->loads, 1);
  EXPECT_TRUE(saved(other) == saved(one));
}

TEST_F(CheckpointEdgeCases, AModuleThatPacksTheTensorsOfItsLayersUnpacksThem) {
  auto one = std::make_shared<PackedWhole>();
  auto other = std::make_shared<PackedWhole>();
  Checkpoint().add("module", one).save(path_);
  Checkpoint().add("module", other).load(path_);
  EXPECT_TRUE(saved(other) == saved(one));
}

TEST_F(CheckpointEdgeCases, AModuleThatPacksItsTensorsRefusesAnotherShape) {
  auto wide = std::make_shared<Packed>(5);
  Checkpoint().add("module", wide).save(path_);
  auto packed = std::make_shared<Packed>(1);
  expect_refusal([&] { Checkpoint().add("module", packed).load(path_); },
                 "module.w is Half of shape [5, 2] there and Float of shape [1, 2] here");
  EXPECT_EQ(packed->loads, 0);
}

TEST_F(CheckpointEdgeCases, APathThatNoFileCanHaveIsRefusedInWords) {
  const std::filesystem::path longest = temporary_.path() / std::string(300, 'x');
  expect_refusal([&] { lawn::write_atomically(longest, "x"); }, "could not be written");
  expect_refusal([&] { Checkpoint().load(longest); }, "there is no such checkpoint");
}

TEST_F(CheckpointEdgeCases, AScheduleOfAnOptimizerWithoutGroups) {
  torch::optim::SGD sgd(std::vector<torch::optim::OptimizerParamGroup>{}, 0.1);
  lawn::WarmupDecay schedule(sgd, lawn::WarmupDecayOptions().total_steps(10).warmup_steps(2));
  schedule.step();
  Checkpoint().add("schedule", schedule).save(path_);
  lawn::WarmupDecay other(sgd, lawn::WarmupDecayOptions().total_steps(10).warmup_steps(2));
  Checkpoint().add("schedule", other).load(path_);
  EXPECT_TRUE(saved(other) == saved(schedule));
}

}  // namespace
