// SPDX-License-Identifier: Apache-2.0
//
// A decorator of your own: Lookahead (Zhang et al. 2019, arXiv 1907.08610). Slow weights follow the
// fast ones, which the optimizer moves, and every k steps the fast weights start anew from them.
//   every k steps:  s <- s + alpha (w - s);  w <- s
// It wraps any optimizer, nests with LAWN, and is saved and loaded with it.

#include <lawn/lawn.h>
#include <torch/torch.h>

#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

class LookaheadRule {
 public:
  static constexpr const char* kWho = "Lookahead";  // in messages and checkpoints

  LookaheadRule(const torch::optim::Optimizer& optimizer, int64_t k, double alpha)
      : k_(k), alpha_(alpha) {
    for (const auto& weight : weights(optimizer)) slow_.push_back(weight.detach().clone());
  }

  /// The gradients are there; the weights have not moved.
  void before_step(torch::optim::Optimizer& /*optimizer*/) {}

  /// The weights have moved.
  void after_step(torch::optim::Optimizer& optimizer) {
    if (++steps_ % k_ != 0) return;
    const torch::NoGradGuard no_grad;
    const auto fast = weights(optimizer);
    for (size_t i = 0; i < slow_.size(); ++i) {
      slow_[i].lerp_(fast[i], alpha_);
      fast[i].copy_(slow_[i]);
    }
  }

  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("steps", c10::IValue(steps_));
    for (size_t i = 0; i < slow_.size(); ++i) archive.write(std::to_string(i), slow_[i], true);
  }

  /// Called on a copy, which takes the place of this rule if the whole checkpoint loads. So it
  /// replaces tensors and never writes into them.
  void load(torch::serialize::InputArchive& archive, const torch::optim::Optimizer& /*optimizer*/) {
    c10::IValue steps;
    archive.read("steps", steps);
    steps_ = steps.toInt();
    for (size_t i = 0; i < slow_.size(); ++i) {
      torch::Tensor slow;
      archive.read(std::to_string(i), slow, true);
      slow_[i] = slow;
    }
  }

 private:
  static std::vector<torch::Tensor> weights(const torch::optim::Optimizer& optimizer) {
    std::vector<torch::Tensor> all;
    for (const auto& group : optimizer.param_groups()) {
      all.insert(all.end(), group.params().begin(), group.params().end());
    }
    return all;
  }

  int64_t k_;
  double alpha_;
  int64_t steps_ = 0;
  std::vector<torch::Tensor> slow_;
};

template <class Opt>
class Lookahead : public lawn::Decorator<Opt, LookaheadRule> {
 public:
  explicit Lookahead(Opt&& optimizer, int64_t k = 5, double alpha = 0.5)
      : lawn::Decorator<Opt, LookaheadRule>(std::move(optimizer),
                                            LookaheadRule(optimizer, k, alpha)) {}
};

}  // namespace

int main() {
  torch::manual_seed(0);
  const auto labels = torch::randint(3, {512}, torch::kLong);
  const auto points = torch::randn({512, 2}) + 2 * torch::one_hot(labels, 3).narrow(1, 0, 2);
  torch::nn::Sequential model(torch::nn::Linear(2, 32), torch::nn::ReLU(),
                              torch::nn::Linear(32, 3));
  const auto sub = lawn::final_homogeneous_subnetwork(model->forward(points), *model);

  // LAWN outside: it brings the weights back to their spheres after Lookahead has moved them.
  lawn::LAWN optimizer(Lookahead(torch::optim::Adam(model->parameters(), 1e-2)), sub,
                       lawn::LAWNOptions().free_steps(100));
  for (int step = 1; step <= 400; ++step) {
    optimizer.zero_grad();
    const auto loss = torch::cross_entropy_loss(model->forward(points), labels);
    loss.backward();
    optimizer.step();
    if (step % 100 == 0) {
      std::cout << "step " << step << "  " << optimizer.phase() << "  loss " << loss.item<float>()
                << '\n';
    }
  }

  std::stringstream file;
  torch::save(optimizer, file);  // Adam's state, the slow weights, LAWN's phase and radii
  torch::load(optimizer, file);
  std::cout << '\n' << optimizer.report();
}
