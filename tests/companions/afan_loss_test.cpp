// SPDX-License-Identifier: Apache-2.0

#include <cmath>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/companions/afan/afan_loss.h>

#include "tests/support/refusal.h"

namespace {

using lawn::afan_loss;
using lawn::AFANOptions;
using lawn::feature_pgd;
using lawn::FeatureStatistics;
using lawn::PerturbationOptions;
using lawn::testing::expect_refusal;

const auto kCriterion = [](const torch::Tensor& output, const torch::Tensor& y) {
  return torch::nn::functional::cross_entropy(output, y);
};

/// Head: convolution, batch norm, ReLU. Tail: convolution, batch norm, pooling, classifier.
class AFAN : public ::testing::Test {
 protected:
  static constexpr int64_t kSplit = 3;

  void SetUp() override {
    torch::manual_seed(17);
    using namespace torch::nn;
    net_ = Sequential(Conv2d(3, 6, 3), BatchNorm2d(6), ReLU(), Conv2d(6, 8, 3), BatchNorm2d(8),
                      Tanh(), AdaptiveAvgPool2d(1), Flatten(), Linear(8, 4));
    net_->to(torch::kDouble);
    x_ = torch::randn({8, 3, 8, 8}, torch::kDouble);
    y_ = torch::randint(4, {8});
  }

  torch::Tensor run(torch::nn::Sequential& net, int64_t first, int64_t last,
                    torch::Tensor value) const {
    for (int64_t i = first; i < last; ++i) value = (net->begin() + i)->forward(value);
    return value;
  }

  torch::nn::Sequential twin() const {
    return {std::dynamic_pointer_cast<torch::nn::SequentialImpl>(net_->clone())};
  }

  /// Values of all buffers.
  static std::vector<torch::Tensor> statistics(const torch::nn::Sequential& net) {
    std::vector<torch::Tensor> all;
    for (const auto& b : net->buffers()) all.push_back(b.clone());
    return all;
  }

  static bool equal(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (!torch::equal(a[i], b[i])) return false;
    }
    return a.size() == b.size();
  }

  static AFANOptions strong() {
    return AFANOptions().perturbation(PerturbationOptions().steps(3).step_size(0.05));
  }

  torch::nn::Sequential net_{nullptr};
  torch::Tensor x_;
  torch::Tensor y_;
};

TEST_F(AFAN, EqualsThePlainAlgorithmInValueAndGradients) {
  for (const auto& normalisation : std::vector<std::optional<FeatureStatistics>>{
           std::nullopt, FeatureStatistics::kOverChannels, FeatureStatistics::kOverSpace}) {
    auto options = strong();
    options.normalisation(normalisation).strengths({0.25, 1.0});
    auto plain = twin();
    net_->zero_grad();
    auto loss = afan_loss(*net_, kSplit, x_, y_, kCriterion, options);
    loss.backward();

    const int64_t size = static_cast<int64_t>(plain->size());
    const auto f = run(plain, 0, kSplit, x_);
    auto expected = kCriterion(run(plain, kSplit, size, f), y_);
    auto delta = torch::zeros_like(f);
    for (int64_t k = 0; k < 3; ++k) {
      auto leaf = (f + delta).detach().requires_grad_(true);
      auto inner = plain->clone();  // so that nothing of it stays
      torch::nn::Sequential other(std::dynamic_pointer_cast<torch::nn::SequentialImpl>(inner));
      kCriterion(run(other, kSplit, size, leaf), y_).backward();
      delta = (delta + 0.05 * leaf.grad().sign()).detach();
    }
    torch::Tensor adversarial = torch::zeros({}, torch::kDouble);
    for (const double strength : {0.25, 1.0}) {
      auto point = f.detach() + strength * delta;
      if (normalisation) {
        const std::vector<int64_t> dims = *normalisation == FeatureStatistics::kOverChannels
                                              ? std::vector<int64_t>{1}
                                              : std::vector<int64_t>{2, 3};
        const auto clean = f.detach();
        // Positions at which ReLU leaves nothing have no deviation.
        const auto sigma = clean.std(dims, false, true);
        const auto scaled = torch::where(sigma > 0, (clean - clean.mean(dims, true)) / sigma,
                                         torch::zeros_like(clean));
        point = scaled * point.std(dims, false, true) + point.mean(dims, true);
      }
      adversarial = adversarial + kCriterion(run(plain, kSplit, size, point), y_) / 2;
    }
    expected = (expected + adversarial) / 2;
    plain->zero_grad();
    expected.backward();
    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-10);
    for (std::size_t i = 0; i < plain->parameters().size(); ++i) {
      EXPECT_TRUE(
          torch::allclose(net_->parameters()[i].grad(), plain->parameters()[i].grad(), 1e-8, 1e-10))
          << "parameter " << i;
    }
  }
}

TEST_F(AFAN, IsTheCleanLossToTheBitWhereStepsHaveNoSize) {
  net_->to(torch::kFloat);
  x_ = x_.to(torch::kFloat);
  auto plain = twin();
  const auto options = AFANOptions().perturbation(PerturbationOptions().step_size(0));
  const auto loss = afan_loss(*net_, kSplit, x_, y_, kCriterion, options);
  const auto expected = kCriterion(plain->forward(x_), y_);
  EXPECT_TRUE(torch::equal(loss, expected));
  loss.backward();
  expected.backward();
  for (std::size_t i = 0; i < plain->parameters().size(); ++i) {
    EXPECT_TRUE(torch::equal(net_->parameters()[i].grad(), plain->parameters()[i].grad())) << i;
  }
}

TEST_F(AFAN, LeavesGradientsOfParametersAloneUntilBackward) {
  for (auto& p : net_->parameters()) p.mutable_grad() = torch::full_like(p, 0.5);
  const auto loss = afan_loss(*net_, kSplit, x_, y_, kCriterion, strong());
  for (const auto& p : net_->parameters()) {
    EXPECT_TRUE(torch::equal(p.grad(), torch::full_like(p, 0.5)));
  }
  loss.backward();
  EXPECT_FALSE(
      torch::equal(net_->parameters()[0].grad(), torch::full_like(net_->parameters()[0], 0.5)));
}

TEST_F(AFAN, TeachesTheHeadByTheCleanTermAlone) {
  auto plain = twin();
  afan_loss(*net_, kSplit, x_, y_, kCriterion, strong()).backward();
  (kCriterion(plain->forward(x_), y_) / 2).backward();
  constexpr std::size_t kOfHead = 4;
  bool tail_differs = false;
  for (std::size_t i = 0; i < plain->parameters().size(); ++i) {
    const bool same =
        torch::allclose(net_->parameters()[i].grad(), plain->parameters()[i].grad(), 1e-10, 1e-12);
    if (i < kOfHead) {
      EXPECT_TRUE(same) << i;
    }
    tail_differs = tail_differs || (i >= kOfHead && !same);
  }
  EXPECT_TRUE(tail_differs);
}

TEST_F(AFAN, MovesRunningStatisticsByTheCleanPassAlone) {
  auto plain = twin();
  plain->forward(x_);
  const auto after_clean_pass = statistics(plain);
  auto second = twin();
  afan_loss(*net_, kSplit, x_, y_, kCriterion, strong());
  EXPECT_TRUE(equal(statistics(net_), after_clean_pass));
  // On request, by the adversarial pass too, but not by the inner steps.
  afan_loss(*second, kSplit, x_, y_, kCriterion, strong().adversarial_statistics(true));
  EXPECT_FALSE(equal(statistics(second), after_clean_pass));
  EXPECT_EQ(second->named_buffers()["1.num_batches_tracked"].item<int64_t>(), 1);
  EXPECT_EQ(second->named_buffers()["4.num_batches_tracked"].item<int64_t>(), 2);
}

TEST_F(AFAN, TakesCallablesAndSaysWhichModuleToFreeze) {
  auto plain = twin();
  auto loose = twin();
  const auto size = static_cast<int64_t>(net_->size());
  const auto by_callables = [&](torch::nn::Sequential& net, torch::nn::Module* frozen) {
    return afan_loss([&](const torch::Tensor& x) { return run(net, 0, kSplit, x); },
                     [&](const torch::Tensor& f) { return run(net, kSplit, size, f); }, x_, y_,
                     kCriterion, strong(), frozen);
  };
  const auto expected = afan_loss(*net_, kSplit, x_, y_, kCriterion, strong());
  EXPECT_TRUE(torch::equal(by_callables(plain, plain.get()), expected));
  EXPECT_TRUE(equal(statistics(plain), statistics(net_)));
  by_callables(loose, nullptr);
  EXPECT_EQ(loose->named_buffers()["4.num_batches_tracked"].item<int64_t>(), 5)
      << "clean, three steps, adversarial";
}

TEST_F(AFAN, IsAboveTheCleanLossAndAboveThatOfRandomSigns) {
  net_->eval();
  auto ascent = strong().normalisation(std::nullopt);
  auto random = ascent;
  random.perturbation(PerturbationOptions(random.perturbation())
                          .direction(lawn::PerturbationDirection::kRandomSigns));
  const double clean = kCriterion(net_->forward(x_), y_).item<double>();
  const double adversarial = afan_loss(*net_, kSplit, x_, y_, kCriterion, ascent).item<double>();
  EXPECT_GT(adversarial, clean + 0.01);
  for (int trial = 0; trial < 10; ++trial) {
    EXPECT_GT(adversarial, afan_loss(*net_, kSplit, x_, y_, kCriterion, random).item<double>());
  }
}

TEST_F(AFAN, PerturbsTheInputAtSplitZero) {
  EXPECT_GT(afan_loss(*net_, 0, x_, y_, kCriterion, strong()).item<double>(),
            kCriterion(twin()->forward(x_), y_).item<double>());
}

TEST_F(AFAN, RunsInEveryDtype) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    net_->to(dtype);
    const auto loss = afan_loss(*net_, kSplit, x_.to(dtype), y_, kCriterion, strong());
    EXPECT_EQ(loss.scalar_type(), dtype);
    loss.backward();
    EXPECT_TRUE(std::isfinite(loss.item<double>()));
    net_->zero_grad();
  }
}

TEST_F(AFAN, RefusesBadInputBeforeAnythingIsChanged) {
  const auto before = statistics(net_);
  const auto refuse_split = [&](int64_t split, const std::string& part) {
    expect_refusal([&] { afan_loss(*net_, split, x_, y_, kCriterion); }, part);
  };
  refuse_split(-1,
               "lawn::afan_loss: expected a split from 0 to 8, the index of the network's last "
               "module, got -1");
  refuse_split(9, "got 9");
  const auto refuse = [&](const AFANOptions& options, const std::string& part) {
    expect_refusal([&] { afan_loss(*net_, kSplit, x_, y_, kCriterion, options); }, part);
  };
  refuse(AFANOptions().strengths({}), "expected at least one of strengths, got none");
  refuse(AFANOptions().strengths({0.5, 1.5}), "strengths must be in [0, 1], got 1.5");
  refuse(AFANOptions().strengths({-0.5}), "strengths must be in [0, 1], got -0.5");
  refuse(AFANOptions().strengths({std::nan("")}), "strengths must be in [0, 1], got nan");
  refuse(AFANOptions().perturbation(PerturbationOptions().steps(-1)), "steps must be >= 0, got -1");
  EXPECT_TRUE(equal(statistics(net_), before));
}

TEST_F(AFAN, RefusesAHeadWhoseOutputDoesNotFitTheTail) {
  const torch::nn::Linear head(4, 5);
  torch::nn::Linear tail(6, 2);
  const auto x = torch::randn({3, 4});
  const auto y = torch::randint(2, {3});
  const auto run_tail = [&](const torch::Tensor& f) { return tail->forward(f); };
  expect_refusal(
      [&] {
        afan_loss([&](const torch::Tensor& v) { return torch::linear(v, head->weight); }, run_tail,
                  x, y, kCriterion);
      },
      "lawn::afan_loss: expected a tail that takes the head's output, got one that refuses "
      "features of shape [3, 5] and dtype Float: ");
  for (const auto& p : tail->parameters()) EXPECT_FALSE(p.grad().defined());
  expect_refusal(
      [&] {
        afan_loss([](const torch::Tensor& v) { return v.to(torch::kLong); }, run_tail, x, y,
                  kCriterion);
      },
      "expected a head that gives features of floating point, got Long");
  expect_refusal(
      [&] {
        afan_loss([](const torch::Tensor&) { return torch::Tensor(); }, run_tail, x, y, kCriterion);
      },
      "got an undefined tensor");
  const auto pad = [](const torch::Tensor& v) { return torch::constant_pad_nd(v, {0, 2}); };
  expect_refusal(
      [&] {
        afan_loss(pad, run_tail, x, y,
                  [](const torch::Tensor& output, const torch::Tensor&) { return output; });
      },
      "expected a criterion that gives one element, got shape [3, 2]; take the mean");
}

}  // namespace
