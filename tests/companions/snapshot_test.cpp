// SPDX-License-Identifier: Apache-2.0

#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <lawn/autocast.h>
#include <lawn/companions/pruning/magnitude_masks.h>
#include <lawn/companions/pruning/snapshot.h>
#include <lawn/companions/pruning/weight_overlap.h>
#include <lawn/subnetwork/selection.h>
#include <lawn/unique_parameters.h>

#include "tests/support/networks.h"
#include "tests/support/refusal.h"
#include "tests/support/scripts.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::Snapshot;
using lawn::weight_overlap;
using lawn::testing::expect_refusal;
using torch::nn::BatchNorm1d;
using torch::nn::Linear;
using torch::nn::ReLU;
using torch::nn::Sequential;

/// Parameters, running statistics and an integer buffer; a norm without statistics has undefined
/// buffers.
Sequential network(int64_t hidden = 8) {
  return Sequential(Linear(6, hidden), BatchNorm1d(hidden), ReLU(),
                    BatchNorm1d(torch::nn::BatchNorm1dOptions(hidden).track_running_stats(false)),
                    Linear(hidden, 3));
}

std::vector<torch::Tensor> everything(const Sequential& model) {
  std::vector<torch::Tensor> all;
  for (const auto& tensor : model->parameters()) all.push_back(tensor.detach().clone());
  for (const auto& tensor : model->buffers()) {
    if (tensor.defined()) all.push_back(tensor.clone());
  }
  return all;
}

bool same(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!torch::equal(a[i], b[i])) return false;
  }
  return true;
}

void train(Sequential& model, int64_t steps) {
  torch::optim::Adam optimizer(model->parameters(), torch::optim::AdamOptions(0.05));
  const auto dtype = model->parameters()[0].scalar_type();
  for (int64_t t = 0; t < steps; ++t) {
    optimizer.zero_grad();
    model->forward(torch::randn({16, 6}).to(dtype)).square().mean().backward();
    optimizer.step();
  }
}

class SnapshotOf : public ::testing::TestWithParam<torch::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(All, SnapshotOf,
                         ::testing::Values(torch::kDouble, torch::kFloat, torch::kBFloat16),
                         lawn::testing::dtype_name);

TEST_P(SnapshotOf, RewindsParametersAndBuffersToTheBitInPlace) {
  torch::manual_seed(1);
  auto model = network();
  model->to(GetParam());
  const auto before = everything(model);
  const auto* address = model->parameters()[0].unsafeGetTensorImpl();
  const Snapshot snapshot(*model);
  train(model, 3);
  EXPECT_FALSE(same(everything(model), before));
  snapshot.rewind(*model);
  EXPECT_TRUE(same(everything(model), before));
  EXPECT_EQ(model->parameters()[0].unsafeGetTensorImpl(), address);
  train(model, 1);
  snapshot.rewind(*model);
  EXPECT_TRUE(same(everything(model), before)) << "a rewound network does not train the copy";
}

/// Of each copy under autocast on the CPU, whether it may return before it is done.
std::vector<bool> returned_early;

torch::Tensor& observed_copy(torch::Tensor& into, const torch::Tensor& from, bool non_blocking) {
  const c10::impl::ExcludeDispatchKeyGuard once(c10::DispatchKey::AutocastCPU);
  returned_early.push_back(non_blocking);
  return into.copy_(from, non_blocking);
}

TEST(Snapshot, WaitsForWhatItRewindsOnTheHost) {
  returned_early.clear();
  auto model = network();
  const Snapshot snapshot(*model);
  auto observer = MAKE_TORCH_LIBRARY_IMPL(aten, AutocastCPU);
  observer.impl("copy_", observed_copy);
  {
    const lawn::Autocast autocast(torch::kCPU, torch::kBFloat16);
    snapshot.rewind(*model);
  }
  EXPECT_EQ(returned_early, std::vector<bool>(everything(model).size(), false));
}

TEST(Snapshot, RewindsBuffersMadeByExpand) {
  auto model = network();
  model->register_buffer("positions", torch::arange(5).expand({3, 5}));
  model->register_buffer("scale", torch::rand({4, 1}).expand({4, 6}));
  const auto before = everything(model);
  const Snapshot snapshot(*model);
  train(model, 2);
  for (const char* name : {"positions", "scale"}) {
    const auto buffer = model->named_buffers()[name];
    buffer.narrow(buffer.stride(0) == 0 ? 0 : 1, 0, 1).fill_(7);
  }
  snapshot.rewind(*model);
  EXPECT_TRUE(same(everything(model), before));
  EXPECT_EQ(model->named_buffers()["positions"].stride(0), 0);
}

TEST(Snapshot, TakesTorchScriptWithTheNamesOfItsTwin) {
  const auto net = lawn::testing::resnet();
  const auto module = lawn::testing::reloaded(lawn::testing::script_parts(*net.module));
  const Snapshot snapshot(*net.module);
  const Snapshot of_script(module);
  for (const auto& tensor : lawn::unique_parameters(module)) tensor.data().fill_(2);
  snapshot.rewind(module);
  for (const auto& item : net.module->named_parameters()) {
    EXPECT_TRUE(torch::equal(of_script.at(item.key()), item.value())) << item.key();
    EXPECT_TRUE(torch::equal(Snapshot(module).at(item.key()), item.value())) << item.key();
  }
}

TEST(Snapshot, WithAMaskMakesATicket) {
  auto model = network();
  const auto selection = lawn::select_all_weights(*model);
  const Snapshot initial(*model);
  train(model, 3);
  const auto masks = lawn::magnitude_masks(selection);
  initial.rewind(*model);
  lawn::apply_masks_(masks);
  const auto values = initial.of(selection);
  for (size_t i = 0; i < masks.size(); ++i) {
    EXPECT_TRUE(torch::equal(masks[i].weight, values[i] * masks[i].keep)) << masks[i].name;
  }
}

TEST(Snapshot, IsSavedAndLoadedToTheSameBits) {
  auto model = network();
  const Snapshot snapshot(*model);
  std::stringstream file;
  torch::save(snapshot, file);
  const auto before = everything(model);
  train(model, 2);
  Snapshot other(*model);
  torch::load(other, file);
  other.rewind(*model);
  EXPECT_TRUE(same(everything(model), before));

  Snapshot of_wide(*network(16));
  std::stringstream again;
  torch::save(snapshot, again);
  expect_refusal([&] { torch::load(of_wide, again); },
                 "lawn::Snapshot: expected 0 of 0.weight to be Float of shape [16, 6], got Float "
                 "of shape [8, 6]; nothing was changed");
  Snapshot of_less(*Sequential(Linear(6, 8)));
  std::stringstream third;
  torch::save(snapshot, third);
  expect_refusal([&] { torch::load(of_less, third); },
                 "expected a snapshot of a module with the same parameters and buffers");
}

TEST(SnapshotRefused, ForAnotherModuleChangesNothing) {
  const Snapshot snapshot(*network());
  const auto refuse = [&](Sequential model, const std::string& part) {
    const auto before = everything(model);
    expect_refusal([&] { snapshot.rewind(*model); }, part);
    EXPECT_TRUE(same(everything(model), before)) << part;
  };
  refuse(network(16), "expected 0.weight to be Float of shape [8, 6], got Float of shape [16, 6]");
  refuse(Sequential(Linear(6, 8)), "parameters and buffers, got one with 2; nothing was changed");
  Sequential renamed;
  const auto other = network();
  for (size_t i = 0; i < other->size(); ++i) {
    renamed->push_back("layer" + std::to_string(i), *(other->begin() + static_cast<int64_t>(i)));
  }
  refuse(renamed, "expected 0.weight in place 0 of the module, got layer0.weight");
  auto wide = network();
  wide->to(torch::kDouble);
  refuse(wide, "expected 0.weight to be Float of shape [8, 6], got Double");
  expect_refusal([&] { snapshot.at("7.weight"); },
                 "expected the dotted name of a parameter or buffer, got '7.weight'");
}

TEST(WeightOverlap, IsWhatCountingSays) {
  const auto initial = torch::tensor({5.0, -4.0, 3.0, 2.0, 1.0, 0.0});
  const auto trained = torch::tensor({0.0, 9.0, -8.0, 7.0, 1.0, 2.0});
  // The largest three: {0, 1, 2} and {1, 2, 3}.
  EXPECT_DOUBLE_EQ(weight_overlap({initial}, {trained}, 0.5), 2.0 / 3);
  EXPECT_EQ(weight_overlap({initial}, {initial}, 0.5), 1);
  EXPECT_EQ(weight_overlap({initial}, {trained}, 1), 1);
  EXPECT_EQ(weight_overlap({initial}, {trained}, 1.0 / 6), 0);
  // Over a list, as one.
  EXPECT_DOUBLE_EQ(weight_overlap({initial.slice(0, 0, 2), initial.slice(0, 2)},
                                  {trained.slice(0, 0, 2), trained.slice(0, 2)}, 0.5),
                   2.0 / 3);
}

TEST(WeightOverlap, IsOneAfterScalingAndAboutTheFractionByChance) {
  torch::manual_seed(2);
  const auto initial = torch::randn({300, 300});
  EXPECT_EQ(weight_overlap({initial}, {-0.5 * initial}, 0.1), 1);
  for (const double p : {0.1, 0.3, 0.7}) {
    EXPECT_NEAR(weight_overlap({initial}, {torch::randn({300, 300})}, p), p, 0.02);
  }
  const auto equal = torch::ones({10});
  EXPECT_EQ(weight_overlap({equal}, {equal}, 0.3), 1) << "exact counts under ties";
}

TEST(WeightOverlapRefused, ForListsThatDoNotMatch) {
  const auto a = torch::ones({4});
  const auto refuse = [](const std::vector<torch::Tensor>& initial,
                         const std::vector<torch::Tensor>& trained, double p,
                         const std::string& part) {
    expect_refusal([&] { weight_overlap(initial, trained, p); }, part);
  };
  refuse({a}, {a}, 1.5, "lawn::weight_overlap: p must be in [0, 1], got 1.5");
  refuse({a}, {a}, 0.01, "expected p to take at least one of 4 elements, got 0.01");
  refuse({a}, {a, a}, 0.5, "expected two lists of as many tensors, at least one, got 1 and 2");
  refuse({}, {}, 0.5, "got 0 and 0");
  refuse({a}, {torch::ones({2, 2})}, 0.5,
         "expected trained[0] to have the shape [4] of initial[0], got [2, 2]");
  refuse({a}, {torch::ones({4}, torch::kLong)}, 0.5,
         "expected weights of floating point, got Long for trained[0]");
  refuse({a}, {a / 0}, 0.5, "expected finite weights, got NaN or an infinity in trained[0]");
}

}  // namespace
