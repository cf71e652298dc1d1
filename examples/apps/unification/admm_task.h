// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <lawn/companions/unification/admm.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <string>
#include <vector>

#include "examples/apps/support/classification.h"

/// What `visit` returns for an optimizer that make_decorated_stepper<lawn::Admm>() made, as the
/// lawn::Admm that it is.
template <class Visit>
auto visit_admm(torch::optim::Optimizer& optimizer, const Visit& visit) {
  if (auto* sgd = dynamic_cast<lawn::Admm<torch::optim::SGD>*>(&optimizer)) return visit(*sgd);
  if (auto* adam = dynamic_cast<lawn::Admm<torch::optim::Adam>*>(&optimizer)) return visit(*adam);
  return visit(dynamic_cast<lawn::Admm<torch::optim::AdamW>&>(optimizer));
}

/// Classification by ADMM: the optimizer's targets and multipliers follow the weights at the end of
/// each epoch, and how far the weights are from the structure is a figure of it.
class AdmmTask : public examples::Classification {
 public:
  using examples::Classification::Classification;

  /// @param optimizer  a lawn::Admm of the network's parameters, to be updated from now on
  void follow(torch::optim::Optimizer& optimizer) { optimizer_ = &optimizer; }

  Batch batch(int64_t begin, int64_t end, at::Generator& generator) override {
    last_of_epoch_ = end + (end - begin) > size();  // a smaller batch is left out
    return Classification::batch(begin, end, generator);
  }

  void after_step() override {
    if (last_of_epoch_) visit_admm(*optimizer_, [](auto& admm) { admm.update(); });
  }

  std::vector<std::string> columns() const override {
    auto names = Classification::columns();
    names.insert(names.end(), {"residual", "rho"});
    return names;
  }

  Measured measure() override {
    auto measured = Classification::measure();
    const double residual = visit_admm(*optimizer_, [](auto& admm) { return admm.residual(); });
    const double rho = visit_admm(*optimizer_, [](auto& admm) { return admm.rho(); });
    measured.figures.insert(measured.figures.end(), {residual, rho});
    measured.text += "  residual " + examples::fixed(residual, 4);
    return measured;
  }

 private:
  torch::optim::Optimizer* optimizer_ = nullptr;
  bool last_of_epoch_ = false;
};
