// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/lawn.h>

#include "tests/support/tolerance.h"

/// LAWN folded into a fused optimizer, beside LAWN around the same optimizer.
namespace lawn::testing {

using torch::ScalarType;

/// The optimizer `Fused` under another name, which LAWN does not fold.
template <class Fused>
class Apart : public Fused {
 public:
  using Fused::Fused;
};

/// Layers of every kind: small, larger than a chunk, 4-dimensional and channels-last, a vector.
inline std::vector<torch::Tensor> make_weights(ScalarType dtype,
                                               torch::Device device = torch::kCPU) {
  torch::manual_seed(5);
  std::vector<torch::Tensor> weights;
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {7, 5}, {300, 400}, {8, 3, 3, 3}, {1, 33}, {64}, {3, 50'001}}) {
    weights.push_back(torch::randn(shape, torch::kDouble).to(device, dtype));
  }
  weights[2] = weights[2].contiguous(torch::MemoryFormat::ChannelsLast);
  for (auto& weight : weights) weight.requires_grad_();
  return weights;
}

/// The gradient of step `step`: new each time, in the weight's own order of memory.
inline void set_gradients(const std::vector<torch::Tensor>& weights, int64_t step) {
  torch::manual_seed(100 + static_cast<uint64_t>(step));
  for (const auto& weight : weights) {
    weight.mutable_grad() =
        torch::empty_like(weight).copy_(torch::randn(weight.sizes(), torch::kDouble));
  }
}

inline double difference(const torch::Tensor& actual, const torch::Tensor& expected) {
  const auto e = expected.detach().to(torch::kDouble);
  return ((actual.detach().to(torch::kDouble) - e).abs().max() / (e.abs().max() + 1e-30))
      .item<double>();
}

/// Selects all but the vector, which stays outside.
inline lawn::Subnetwork selection(const std::vector<torch::Tensor>& weights) {
  auto constrained = weights;
  constrained.erase(constrained.begin() + 4);
  return lawn::select(constrained);
}

/// Steps `LAWN<Fused>` and `LAWN<Apart<Fused>>` side by side and compares them after each step.
/// @param change  of the options of both, before each step
template <class Fused, class Options>
void expect_folded_equals_apart(
    const Options& options, ScalarType dtype = torch::kFloat, LAWNOptions lawn_options = {},
    torch::Device device = torch::kCPU,
    const std::function<void(Options&, int64_t)>& change = [](Options&, int64_t) {}) {
  constexpr int64_t kSteps = 12;
  const auto folded_weights = make_weights(dtype, device);
  const auto apart_weights = make_weights(dtype, device);
  lawn_options.free_steps(3);
  LAWN<Fused> folded(Fused(folded_weights, options), selection(folded_weights), lawn_options);
  LAWN<Apart<Fused>> apart(Apart<Fused>(apart_weights, options), selection(apart_weights),
                           lawn_options);
  for (int64_t step = 0; step < kSteps; ++step) {
    set_gradients(folded_weights, step);
    set_gradients(apart_weights, step);
    change(static_cast<Options&>(folded.param_groups()[0].options()), step);
    change(static_cast<Options&>(apart.param_groups()[0].options()), step);
    std::vector<torch::Tensor> gradients;
    for (const auto& weight : folded_weights) gradients.push_back(weight.grad().clone());
    folded.step();
    apart.step();
    for (size_t i = 0; i < folded_weights.size(); ++i) {
      ASSERT_LE(difference(folded_weights[i], apart_weights[i]),
                lawn::testing::tolerance(dtype).step * static_cast<double>(step + 1))
          << "step " << step << ", weight " << i;
      EXPECT_TRUE(torch::equal(folded_weights[i].grad(), gradients[i]))
          << "step " << step << ", gradient " << i;
    }
  }
  EXPECT_EQ(folded.steps(), kSteps);
  EXPECT_EQ(folded.phase(), lawn::Phase::kConstrained);
}

inline void expect_folded_equals_apart_where_options_change(torch::Device device) {
  using torch::optim::AdamOptions;
  using torch::optim::SGDOptions;
  for (const bool nesterov : {false, true}) {
    expect_folded_equals_apart<lawn::FusedSGD>(
        SGDOptions(0.1).momentum(0.9).nesterov(nesterov), torch::kFloat, {}, device,
        std::function([nesterov](SGDOptions& options, int64_t step) {
          const bool without = step >= 5 && step < 9;  // the buffers wait for its return
          options.momentum(without ? 0 : 0.9).nesterov(nesterov && !without);
          options.dampening(step == 10 && !nesterov ? 0.25 : 0);
          options.weight_decay(step % 2 == 0 ? 0 : 0.01);
        }));
  }
  expect_folded_equals_apart<lawn::FusedAdam>(
      AdamOptions(0.01), torch::kFloat, {}, device,
      std::function([](AdamOptions& options, int64_t step) {
        options.lr(0.01 / static_cast<double>(step + 1)).weight_decay(step % 2 == 0 ? 0 : 0.01);
        options.betas({step % 3 == 0 ? 0.0 : 0.9, step < 6 ? 0.999 : 0.95});
      }));
}

}  // namespace lawn::testing
