// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <lawn/autocast.h>
#include <lawn/clip_grad_norm.h>
#include <lawn/grad_scaler.h>
#include <lawn/optim/lamb.h>
#include <lawn/optimizer.h>
#include <lawn/subnetwork/selection.h>

#include "tests/capture/device_reads.h"
#include "tests/support/refusal.h"
#include "tests/support/rows.h"
#include "tests/support/saved.h"
#include "tests/support/tolerance.h"

namespace {

using lawn::GradScaler;
using lawn::GradScalerOptions;
using lawn::LAWN;
using lawn::LAWNOptions;
using lawn::testing::device_reads;
using lawn::testing::expect_equal;
using lawn::testing::expect_refusal;
using lawn::testing::load;
using lawn::testing::Problem;
using lawn::testing::saved;
using lawn::testing::tolerance;

static_assert(!std::is_copy_constructible_v<GradScaler> &&
                  std::is_nothrow_move_constructible_v<GradScaler>,
              "two scalers of one scale would both adapt it");

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// One parameter and its optimizer.
struct Single {
  explicit Single(double lr = 0.1)
      : w(torch::ones({3}, torch::requires_grad())), sgd({w}, torch::optim::SGDOptions(lr)) {}

  /// loss = factor sum(w), scaled.
  void backward(GradScaler& scaler, float factor = 1) {
    sgd.zero_grad();
    scaler.scale(factor * w.sum()).backward();
  }

  torch::Tensor w;
  torch::optim::SGD sgd;
};

GradScalerOptions quick() { return GradScalerOptions().init_scale(8).growth_interval(2); }

TEST(GradScaler, ScalesTheLossAndUnscalesTheGradients) {
  Single net;
  GradScaler scaler;
  EXPECT_EQ(scaler.get_scale(), 65536);
  EXPECT_EQ(scaler.scale(net.w.sum()).item<float>(), 3 * 65536.F);
  net.backward(scaler, 2);
  EXPECT_TRUE(torch::equal(net.w.grad(), torch::full({3}, 2 * 65536.F)));
  scaler.unscale_(net.sgd);
  EXPECT_TRUE(torch::equal(net.w.grad(), torch::full({3}, 2.F)));
  EXPECT_TRUE(scaler.step(net.sgd));
  EXPECT_TRUE(torch::allclose(net.w, torch::full({3}, 0.8F)));
}

TEST(GradScaler, ScalesSeveralLossesAtOnce) {
  GradScaler scaler(quick());
  const auto scaled = scaler.scale({torch::ones({2}), torch::ones({}, torch::kDouble)});
  ASSERT_EQ(scaled.size(), 2U);
  EXPECT_TRUE(torch::equal(scaled[0], torch::full({2}, 8.F)));
  EXPECT_EQ(scaled[1].item<double>(), 8);
  EXPECT_EQ(scaled[1].scalar_type(), torch::kDouble);
  const auto half = scaler.scale(torch::ones({}, torch::kHalf));  // may exceed what half can hold
  EXPECT_EQ(half.scalar_type(), torch::kFloat);
}

TEST(GradScaler, TrainsAsWithoutItWhileNothingOverflows) {
  Problem plain;
  Problem scaled;
  torch::optim::Adam plain_adam(plain.model->parameters(), 0.01);
  torch::optim::Adam scaled_adam(scaled.model->parameters(), 0.01);
  GradScaler scaler(GradScalerOptions().init_scale(1024).growth_interval(5));
  for (int64_t t = 0; t < 20; ++t) {
    plain.backward(t);
    plain_adam.step();
    scaled.model->zero_grad();
    const auto part = 16 * (t % 2);
    const auto logits = scaled.model->forward(scaled.x.slice(0, part, part + 16));
    const auto loss =
        torch::nn::functional::cross_entropy(logits, scaled.y.slice(0, part, part + 16));
    scaler.scale(loss).backward();
    EXPECT_TRUE(scaler.step(scaled_adam));
    scaler.update();
  }
  expect_equal(scaled.values(), plain.values(), "powers of two are exact");
  EXPECT_EQ(scaler.get_scale(), 1024 * 16);
}

TEST(GradScaler, BacksOffAfterASkippedStepAndGrowsAfterGoodOnes) {
  Single net;
  GradScaler scaler(quick().growth_factor(4).backoff_factor(0.25));
  const auto iterate = [&](float factor) {
    net.backward(scaler, factor);
    const bool stepped = scaler.step(net.sgd);
    scaler.update();
    return stepped;
  };
  EXPECT_TRUE(iterate(1));
  EXPECT_EQ(scaler.get_scale(), 8);
  EXPECT_TRUE(iterate(1));
  EXPECT_EQ(scaler.get_scale(), 32);
  EXPECT_TRUE(iterate(1));
  const auto before = net.w.detach().clone();
  EXPECT_FALSE(iterate(kInfinity));  // which also starts the count of good steps anew
  EXPECT_TRUE(torch::equal(net.w, before));
  EXPECT_EQ(scaler.get_scale(), 8);
  EXPECT_TRUE(iterate(1));
  EXPECT_FALSE(iterate(kNaN));
  EXPECT_EQ(scaler.get_scale(), 2);
  EXPECT_TRUE(iterate(1));
  EXPECT_EQ(scaler.get_scale(), 2);
  EXPECT_TRUE(iterate(1));
  EXPECT_EQ(scaler.get_scale(), 8);
}

TEST(GradScaler, FindsOneBadElementInAnyDtypeAndLayout) {
  for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kBFloat16}) {
    for (const bool sparse : {false, true}) {
      auto good = torch::ones({2}, torch::requires_grad());
      auto bad = torch::ones({4, 6}, torch::dtype(dtype).requires_grad(true));
      torch::optim::SGD sgd({good, bad}, torch::optim::SGDOptions(0.1));
      GradScaler scaler(quick());
      scaler.scale(torch::ones({}));
      good.mutable_grad() = torch::full({2}, 8.F);
      auto gradient = torch::full({6, 4}, 8, dtype).t();
      bad.mutable_grad() = sparse ? gradient.to_sparse() : gradient;
      scaler.unscale_(sgd);
      EXPECT_TRUE(torch::equal(good.grad(), torch::ones({2})));
      EXPECT_TRUE(torch::equal(bad.grad().to_dense(), torch::ones({4, 6}, dtype)));
      EXPECT_EQ(bad.grad().is_sparse(), sparse);
      EXPECT_TRUE(scaler.step(sgd));
      scaler.update();

      gradient[3][5] = kNaN;
      bad.mutable_grad() = sparse ? gradient.to_sparse() : gradient;
      EXPECT_FALSE(scaler.step(sgd));
      scaler.update();
      EXPECT_EQ(scaler.get_scale(), 4);
    }
  }
}

/// Steps `Opt` under LAWN with one overflow at `bad`; nothing of it may show.
template <class Opt, class Options>
void expect_skipped_steps_leave_no_trace(const Options& options) {
  constexpr int64_t kSwitch = 4;
  constexpr int64_t kSteps = 9;
  for (const int64_t bad : {int64_t{0}, int64_t{2}, kSwitch, int64_t{6}}) {
    Problem plain;
    Problem skipping;
    const auto wrap = [&](Problem& problem) {
      return LAWN<Opt>(Opt(problem.model->parameters(), options), problem.weights(),
                       LAWNOptions().free_steps(kSwitch));
    };
    auto expected = wrap(plain);
    auto lawn = wrap(skipping);
    GradScaler scaler(GradScalerOptions().init_scale(1));
    scaler.scale(torch::ones({}));
    for (int64_t t = 0; t < kSteps; ++t) {
      if (t == bad) {
        skipping.backward(t);
        skipping.model->parameters()[2].mutable_grad()[0][0] = kInfinity;
        std::ostringstream before;
        std::ostringstream after;
        torch::save(lawn, before);
        const auto values = skipping.values();
        EXPECT_FALSE(scaler.step(lawn));
        expect_equal(skipping.values(), values, "skipped at " + std::to_string(bad));
        torch::save(lawn, after);
        EXPECT_EQ(before.str(), after.str()) << "moments, step counts, phase, radii";
        scaler.update(1);
      }
      EXPECT_EQ(lawn.steps(), t);
      plain.backward(t);
      expected.step();
      skipping.backward(t);
      EXPECT_TRUE(scaler.step(lawn));
      scaler.update();
      EXPECT_EQ(lawn.phase(), expected.phase());
    }
    expect_equal(skipping.values(), plain.values(), "skipped once at " + std::to_string(bad));
  }
}

TEST(GradScaler, ASkippedStepMovesNothingOfLAWNs) {
  expect_skipped_steps_leave_no_trace<torch::optim::Adam>(torch::optim::AdamOptions(0.01));
  expect_skipped_steps_leave_no_trace<torch::optim::SGD>(
      torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(0.1));
  expect_skipped_steps_leave_no_trace<lawn::LAMB>(lawn::LAMBOptions(0.01));
}

TEST(GradScaler, KeepsApartWhatItDidToEachOptimizer) {
  Single first;
  Single second;
  GradScaler scaler(quick());
  first.backward(scaler, kInfinity);
  second.backward(scaler);
  scaler.unscale_(first.sgd);
  EXPECT_FALSE(scaler.step(first.sgd));
  EXPECT_TRUE(scaler.step(second.sgd));
  scaler.update();
  EXPECT_EQ(scaler.get_scale(), 4);
  EXPECT_TRUE(torch::equal(first.w, torch::ones({3})));
  EXPECT_FALSE(torch::equal(second.w, torch::ones({3})));
}

TEST(GradScaler, ClippingBetweenUnscaleAndStepSeesTheTrueNorm) {
  Single net(1);
  GradScaler scaler;
  net.backward(scaler, 10);
  scaler.unscale_(net.sgd);
  const auto total = lawn::clip_grad_norm_(net.w, 1);
  EXPECT_NEAR(total.item<double>(), 10 * std::sqrt(3.0), tolerance(torch::kFloat).step);
  EXPECT_TRUE(scaler.step(net.sgd));
  EXPECT_NEAR((net.w.detach() - 1).norm().item<double>(), 1, tolerance(torch::kFloat).norm);
}

TEST(GradScaler, WaitsForTheDeviceOnceAnIteration) {
  Single net;
  GradScaler scaler;
  EXPECT_EQ(device_reads([&] { net.backward(scaler); }), 0);
  EXPECT_EQ(device_reads([&] { scaler.unscale_(net.sgd); }), 0);
  const int step_of_its_own = device_reads([&] { net.sgd.step(); });
  EXPECT_EQ(device_reads([&] { scaler.step(net.sgd); }), step_of_its_own + 1);
  EXPECT_LE(device_reads([&] { scaler.update(); }), 2);  // the CPU's kernel reads its own numbers
}

TEST(GradScaler, RefusesCallsOutOfOrder) {
  Single net;
  GradScaler scaler(quick());
  expect_refusal([&] { scaler.unscale_(net.sgd); },
                 "lawn::GradScaler: expected scale(loss) before unscale_");
  expect_refusal([&] { scaler.step(net.sgd); }, "expected scale(loss) before step");
  expect_refusal([&] { scaler.update(); }, "expected scale(loss) before update");
  expect_refusal([&] { scaler.update(2); }, "expected scale(loss) before update");
  net.backward(scaler);
  expect_refusal([&] { scaler.update(); }, "expected step or unscale_ before update");
  scaler.unscale_(net.sgd);
  expect_refusal([&] { scaler.unscale_(net.sgd); },
                 "expected unscale_ once for each optimizer, got it a second time");
  expect_refusal(
      [&] {
        std::ostringstream file;
        torch::save(scaler, file);
      },
      "expected save at the end of an iteration, after update()");
  EXPECT_TRUE(scaler.step(net.sgd));
  EXPECT_TRUE(torch::allclose(net.w, torch::full({3}, 0.9F))) << "unscaled once";
  expect_refusal([&] { scaler.unscale_(net.sgd); },
                 "expected unscale_ before step, got it after step");
  expect_refusal([&] { scaler.step(net.sgd); },
                 "expected step once for each optimizer, got it a second time");
  scaler.update();
  net.backward(scaler);
  EXPECT_TRUE(scaler.step(net.sgd));
}

TEST(GradScaler, RefusesClosuresHalfGradientsAndOptimizersWithoutGradients) {
  Single net;
  GradScaler scaler(quick());
  net.backward(scaler);
  expect_refusal([&] { scaler.step(net.sgd, [&] { return net.w.sum(); }); },
                 "lawn::GradScaler: expected step without a closure");
  auto half = torch::ones({2}, torch::dtype(torch::kHalf).requires_grad(true));
  torch::optim::SGD mixed({net.w, half}, torch::optim::SGDOptions(0.1));
  half.mutable_grad() = torch::ones({2}, torch::kHalf);
  expect_refusal([&] { scaler.step(mixed); },
                 "lawn::GradScaler: attempting to unscale FP16 gradients");
  EXPECT_TRUE(torch::equal(net.w.grad(), torch::full({3}, 8.F))) << "nothing was changed";
  Single without;
  expect_refusal([&] { scaler.step(without.sgd); },
                 "expected gradients, got an optimizer whose parameters have none");
  EXPECT_TRUE(scaler.step(net.sgd));
  without.backward(scaler);
  EXPECT_TRUE(scaler.step(without.sgd)) << "now that it has gradients";
  scaler.update();
}

TEST(GradScaler, RefusesOptionsOutOfRange) {
  const auto refuse = [](const GradScalerOptions& options, const std::string& message) {
    expect_refusal([&] { GradScaler scaler(options); }, message);
  };
  for (const double scale : {0.0, -1.0, 1e-50, 1e-40, 1e39, double{kInfinity}, double{kNaN}}) {
    refuse(GradScalerOptions().init_scale(scale),
           "init_scale must be finite and > 0 as a normal float32 (1.2e-38 to 3.4e38), got " +
               c10::str(scale));
  }
  for (const double factor : {1.0, 0.5, 1 + 1e-9, 1e39, double{kInfinity}, double{kNaN}}) {
    refuse(GradScalerOptions().growth_factor(factor),
           "growth_factor must be finite and > 1 as a float32");
  }
  for (const double factor : {1.0, 0.0, -0.5, 1 - 1e-9, 1e-50, double{kNaN}}) {
    refuse(GradScalerOptions().backoff_factor(factor),
           "backoff_factor must be in (0, 1) as a float32, got " + c10::str(factor));
  }
  for (const int64_t interval : {int64_t{0}, int64_t{1} << 31, int64_t{1} << 40}) {
    refuse(GradScalerOptions().growth_interval(interval),
           "growth_interval must be in [1, 2147483647], got " + std::to_string(interval));
  }
  Single net;
  GradScaler scaler(quick());
  net.backward(scaler);
  for (const double scale : {-1.0, 0.0, 1e-50, 1e39, double{kNaN}}) {
    expect_refusal([&] { scaler.update(scale); },
                   "update needs a scale that is finite and > 0 as a normal float32 (1.2e-38 to "
                   "3.4e38), got " +
                       c10::str(scale));
    EXPECT_EQ(scaler.get_scale(), 8);
  }
}

TEST(GradScaler, TakesTheSmallestAndTheLargestScale) {
  for (const float scale : {std::numeric_limits<float>::min(), std::numeric_limits<float>::max()}) {
    Single net;
    GradScaler scaler(GradScalerOptions()
                          .init_scale(scale)
                          .growth_factor(1 + 2e-7)
                          .backoff_factor(1 - 1e-7)
                          .growth_interval(std::numeric_limits<int32_t>::max()));
    scaler.scale(torch::ones({}));
    net.w.mutable_grad() = torch::full({3}, scale);
    EXPECT_TRUE(scaler.step(net.sgd));
    EXPECT_TRUE(torch::allclose(net.w, torch::full({3}, 0.9F)));
    scaler.update();
    EXPECT_EQ(scaler.get_scale(), scale);
  }
}

TEST(GradScaler, NeverBacksOffToAScaleThatDividesToInfinity) {
  Single net;
  GradScaler scaler;
  for (int t = 0; t < 200; ++t) {  // after 166 the scale would be 0
    net.backward(scaler, kInfinity);
    EXPECT_FALSE(scaler.step(net.sgd));
    scaler.update();
  }
  EXPECT_EQ(scaler.get_scale(), std::numeric_limits<float>::min());
  std::stringstream file;
  torch::save(scaler, file);
  GradScaler loaded;
  torch::load(loaded, file);
  EXPECT_EQ(loaded.get_scale(), scaler.get_scale());
  for (GradScaler* good : {&scaler, &loaded}) {
    Single fresh;
    fresh.backward(*good, 3);
    EXPECT_TRUE(good->step(fresh.sgd));
    EXPECT_TRUE(torch::allclose(fresh.w, torch::full({3}, 0.7F))) << fresh.w;
    good->update();
  }
}

TEST(GradScaler, RefusesACheckpointOfNumbersOutOfRangeBeforeItChangesAnything) {
  struct Numbers {
    double scale = 4, growth = 3, backoff = 0.25;
    int64_t interval = 5, tracker = 2;
  };
  const auto file_of = [](const Numbers& numbers) {
    torch::serialize::OutputArchive archive;
    archive.write("enabled", c10::IValue(true));
    archive.write("scale", c10::IValue(numbers.scale));
    archive.write("growth_factor", c10::IValue(numbers.growth));
    archive.write("backoff_factor", c10::IValue(numbers.backoff));
    archive.write("growth_interval", c10::IValue(numbers.interval));
    archive.write("growth_tracker", c10::IValue(numbers.tracker));
    std::ostringstream file;
    archive.save_to(file);
    return file.str();
  };
  GradScaler scaler(quick());
  const auto before = saved(scaler);
  const auto refuse = [&](const Numbers& numbers, const std::string& message) {
    expect_refusal([&] { load(scaler, file_of(numbers)); }, message);
    EXPECT_EQ(saved(scaler), before) << message;
  };
  const std::string scale = "expected a checkpoint whose scale is finite and > 0 as a normal float";
  Numbers numbers;
  numbers.scale = 0;
  refuse(numbers, scale);
  numbers.scale = 1e-50;
  refuse(numbers, scale);
  numbers.scale = 1e39;
  refuse(numbers, scale);
  numbers = Numbers();
  numbers.growth = 1 + 1e-9;
  refuse(numbers, "growth_factor must be finite and > 1 as a float32");
  numbers = Numbers();
  numbers.backoff = 1e-50;
  refuse(numbers, "backoff_factor must be in (0, 1) as a float32");
  numbers = Numbers();
  numbers.interval = int64_t{1} << 31;
  refuse(numbers, "growth_interval must be in [1, 2147483647]");
  for (const int64_t tracker : {int64_t{-1}, int64_t{5}, int64_t{1} << 40}) {
    numbers = Numbers();
    numbers.tracker = tracker;  // of which the scale would never grow
    refuse(numbers, "expected growth_tracker in [0, 4], got");
  }
  load(scaler, file_of(Numbers()));
  EXPECT_EQ(scaler.get_scale(), 4);
}

/// loss = 3 w, whose gradient is 3 however the optimizer holds w and autograd hands the gradient
/// out.
void expect_unscaled_once(torch::optim::Optimizer& optimizer,
                          const std::vector<torch::Tensor>& weights, const torch::Tensor& loss) {
  GradScaler scaler(GradScalerOptions().init_scale(1024));
  scaler.scale(loss).backward();
  scaler.unscale_(optimizer);
  for (const auto& w : weights) {
    EXPECT_TRUE(torch::equal(w.grad(), torch::full(w.sizes(), 3.F))) << w.grad();
  }
  EXPECT_TRUE(scaler.step(optimizer));
  scaler.update();
}

TEST(GradScaler, UnscalesAParameterThatIsListedTwiceOnce) {
  const torch::optim::SGDOptions options(0.1);
  const auto w = torch::ones({4}, torch::requires_grad());
  torch::optim::SGD twice({w, w}, options);
  expect_unscaled_once(twice, {w}, (3 * w).sum());
  const auto v = torch::ones({4}, torch::requires_grad());
  using Group = torch::optim::OptimizerParamGroup;
  torch::optim::SGD groups(std::vector{Group({v}), Group({v})}, options);
  expect_unscaled_once(groups, {v}, (3 * v).sum());
}

TEST(GradScaler, UnscalesGradientsThatShareMemoryOnce) {
  const auto weights = [] {
    return std::vector<torch::Tensor>{torch::ones({4}, torch::requires_grad()),
                                      torch::ones({4}, torch::requires_grad())};
  };
  {  // the two weights of a sum get one gradient tensor
    const auto pair = weights();
    torch::optim::SGD sgd(pair, 0.1);
    expect_unscaled_once(sgd, pair, (3 * (pair[0] + pair[1])).sum());
  }
  GradScaler scaler(GradScalerOptions().init_scale(1024));
  scaler.scale(torch::ones({}));
  const auto expect_threes = [&](const std::vector<torch::Tensor>& all) {
    torch::optim::SGD sgd(all, 0.1);
    scaler.unscale_(sgd);
    scaler.update(1024);
    for (const auto& w : all) {
      EXPECT_TRUE(torch::equal(w.grad(), torch::full(w.sizes(), 3.F))) << w.grad();
    }
  };
  {  // one tensor, held by hand
    const auto pair = weights();
    pair[0].mutable_grad() = torch::full({4}, 3 * 1024.F);
    pair[1].mutable_grad() = pair[0].grad();
    expect_threes(pair);
  }
  {  // overlapping views of one storage
    const auto pair = weights();
    const auto storage = torch::full({6}, 3 * 1024.F);
    pair[0].mutable_grad() = storage.narrow(0, 0, 4);
    pair[1].mutable_grad() = storage.narrow(0, 2, 4);
    expect_threes(pair);
  }
  {  // views side by side, which share nothing
    const auto pair = weights();
    const auto storage = torch::full({8}, 3 * 1024.F);
    pair[0].mutable_grad() = storage.narrow(0, 0, 4);
    pair[1].mutable_grad() = storage.narrow(0, 4, 4);
    expect_threes(pair);
    EXPECT_TRUE(torch::equal(storage, torch::full({8}, 3.F))) << "nothing was copied";
  }
  {  // one number, expanded
    const auto pair = weights();
    pair[0].mutable_grad() = torch::full({1}, 3 * 1024.F).expand({4});
    pair[1].mutable_grad() = torch::full({4}, 3 * 1024.F);
    expect_threes(pair);
  }
  {  // the values of two sparse gradients
    const auto pair = weights();
    const auto values = torch::full({4}, 3 * 1024.F);
    const auto indices = torch::arange(4).view({1, 4});
    for (const auto& w : pair) {
      w.mutable_grad() = torch::sparse_coo_tensor(indices, values, {4});
    }
    torch::optim::SGD sgd(pair, 0.1);
    scaler.unscale_(sgd);
    for (const auto& w : pair) {
      EXPECT_TRUE(torch::equal(w.grad().to_dense(), torch::full({4}, 3.F))) << w.grad();
    }
  }
}

TEST(GradScaler, TakesTheGradientsThatTheDeviceCanDivide) {
  using lawn::detail::grad_scaler::can_unscale;
  for (const auto device : {torch::kCPU, torch::kCUDA}) {
    EXPECT_TRUE(can_unscale(device, torch::kFloat));
    EXPECT_TRUE(can_unscale(device, torch::kDouble));
    EXPECT_FALSE(can_unscale(device, torch::kHalf));
    EXPECT_FALSE(can_unscale(device, torch::kComplexFloat));
  }
  EXPECT_TRUE(can_unscale(torch::kCPU, torch::kBFloat16));
  EXPECT_FALSE(can_unscale(torch::kCUDA, torch::kBFloat16)) << "LibTorch has no kernel for it";
}

TEST(GradScaler, RefusesGradientsThatItCannotDivideBeforeItChangesAnything) {
  Single net;
  GradScaler scaler(quick());
  net.backward(scaler);
  auto complex = torch::ones({2}, torch::dtype(torch::kComplexFloat).requires_grad(true));
  complex.mutable_grad() = torch::ones({2}, torch::kComplexFloat);
  torch::optim::SGD mixed({net.w, complex}, torch::optim::SGDOptions(0.1));
  expect_refusal([&] { scaler.step(mixed); },
                 "lawn::GradScaler: expected gradients that LibTorch can unscale (float32 or "
                 "float64, on a CPU also bfloat16), got ComplexFloat on cpu for a parameter of "
                 "shape [2]; keep the parameter in float32");
  auto rows = torch::ones({2, 2}, torch::requires_grad());
  rows.mutable_grad() = torch::ones({2, 2}).to_sparse_csr();
  torch::optim::SGD csr({net.w, rows}, torch::optim::SGDOptions(0.1));
  expect_refusal([&] { scaler.step(csr); },
                 "expected gradients that are strided or sparse COO, got layout SparseCsr");
  EXPECT_TRUE(torch::equal(net.w.grad(), torch::full({3}, 8.F)));
}

/// Of each copy under autocast on the CPU, whether it may return before it is done.
std::vector<bool> returned_early;

torch::Tensor observed_copy(const torch::Tensor& from, std::optional<at::ScalarType> dtype,
                            std::optional<at::Layout> layout, std::optional<at::Device> device,
                            std::optional<bool> pinned, bool non_blocking,
                            std::optional<at::MemoryFormat> format) {
  const c10::impl::ExcludeDispatchKeyGuard once(c10::DispatchKey::AutocastCPU);
  returned_early.push_back(non_blocking);
  return at::_to_copy(from, dtype, layout, device, pinned, non_blocking, format);
}

TEST(GradScaler, WaitsForCopiesToTheHostAlone) {
  EXPECT_FALSE(lawn::detail::parameters::may_return_early(torch::kCPU)) << "the host reads at once";
  EXPECT_TRUE(lawn::detail::parameters::may_return_early(torch::kCUDA));
  returned_early.clear();
  auto observer = MAKE_TORCH_LIBRARY_IMPL(aten, AutocastCPU);
  observer.impl("_to_copy", observed_copy);
  const lawn::Autocast autocast(torch::kCPU, torch::kBFloat16);
  lawn::detail::parameters::to_device(torch::ones({}), torch::kCPU, torch::kDouble);
  EXPECT_EQ(returned_early, std::vector<bool>{false});
}

TEST(GradScaler, TakesAScaleOfTheUsersOwn) {
  Single net;
  GradScaler scaler(quick());
  net.backward(scaler);
  scaler.step(net.sgd);
  scaler.update(128);
  EXPECT_EQ(scaler.get_scale(), 128);
  EXPECT_EQ(scaler.scale(torch::ones({})).item<float>(), 128);
}

TEST(GradScaler, DisabledLeavesEverythingToTheOptimizer) {
  Single net;
  GradScaler scaler(GradScalerOptions().enabled(false));
  EXPECT_FALSE(scaler.is_enabled());
  EXPECT_EQ(scaler.get_scale(), 1);
  const auto loss = net.w.sum();
  EXPECT_TRUE(scaler.scale(loss).is_same(loss));
  scaler.unscale_(net.sgd);
  scaler.unscale_(net.sgd);
  EXPECT_TRUE(scaler.step(net.sgd, [&] {
    net.backward(scaler, kInfinity);
    return net.w.sum();
  }));
  scaler.update();
  scaler.update(3);
  EXPECT_FALSE(torch::isfinite(net.w).any().item<bool>());
}

TEST(GradScaler, SavedLoadedAndContinuedEqualsUninterrupted) {
  const auto iterate = [](GradScaler& scaler, Single& net, int from, int to) {
    for (int t = from; t < to; ++t) {
      net.backward(scaler, t == 4 ? kInfinity : 1.F);
      scaler.step(net.sgd);
      scaler.update();
    }
  };
  const auto options = GradScalerOptions().init_scale(64).growth_factor(3).growth_interval(3);
  for (int stop = 0; stop < 12; ++stop) {
    Single net;
    GradScaler whole(options);
    iterate(whole, net, 0, 12);

    GradScaler before(options);
    iterate(before, net, 0, stop);
    std::stringstream file;
    torch::save(before, file);
    GradScaler after;                              // its options come from the checkpoint
    if (stop % 2 == 1) iterate(after, net, 0, 2);  // a used scaler loads like a new one
    torch::load(after, file);
    EXPECT_EQ(after.get_scale(), before.get_scale());
    EXPECT_EQ(after.options().growth_interval(), 3);
    iterate(after, net, stop, 12);
    EXPECT_EQ(after.get_scale(), whole.get_scale()) << "stopped after " << stop;
  }
}

TEST(GradScaler, LoadsNothingFromADisabledScalerAndNothingIntoOne) {
  GradScaler disabled(GradScalerOptions().enabled(false));
  std::stringstream file;
  torch::save(disabled, file);
  GradScaler scaler(quick());
  expect_refusal([&] { torch::load(scaler, file); },
                 "expected the checkpoint of an enabled scaler, got that of a disabled one");
  EXPECT_EQ(scaler.get_scale(), 8);
  std::stringstream other;
  torch::save(scaler, other);
  torch::load(disabled, other);
  EXPECT_FALSE(disabled.is_enabled());
  EXPECT_EQ(disabled.get_scale(), 1);
}

}  // namespace
