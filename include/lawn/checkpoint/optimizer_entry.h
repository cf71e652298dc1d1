// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <c10/util/Type.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/optimizer_state.h>
#include <lawn/checkpoint/entry.h>
#include <lawn/checkpoint/object_entry.h>
#include <lawn/module_view.h>

namespace lawn::detail::checkpoint {

/// An optimizer, decorated or not. Its kind is that of its options, so that a decorated optimizer
/// and a plain one exchange checkpoints.
class OptimizerEntry : public Entry {
 public:
  OptimizerEntry(std::string name, torch::optim::Optimizer& optimizer)
      : Entry(std::move(name)), optimizer_(optimizer) {}

  std::string kind() const override {
    const auto& groups = optimizer_.param_groups();
    if (groups.empty() || !groups.front().has_options()) return "optimizer";
    const torch::optim::OptimizerOptions& options = groups.front().options();
    return "optimizer with " + c10::demangle(typeid(options).name());
  }

  std::optional<at::Device> device() const override {
    std::vector<NamedTensor> parameters;
    for (const auto& group : optimizer_.param_groups()) {
      for (const at::Tensor& parameter : group.params()) parameters.push_back({{}, parameter});
    }
    return common_device(parameters);
  }

  void save(torch::serialize::OutputArchive& archive) const override { optimizer_.save(archive); }

  void read(torch::serialize::InputArchive& archive, Differences& differences) override {
    try {
      archive::refuse_other_parameters(name().c_str(), archive, optimizer_);
    } catch (const c10::Error& error) {
      differences.emplace_back(error.what_without_backtrace());
    }
    archive_ = std::move(archive);
  }

  void load() override {
    before_ = saved_bytes(optimizer_);
    archive::load_or_restore(name().c_str(), optimizer_, [this] { optimizer_.load(archive_); });
  }

  /// LibTorch's own `load` leaves state that the bytes do not hold.
  void undo() override {
    archive::load_or_restore(name().c_str(), optimizer_,
                             [this] { load_bytes(optimizer_, before_); });
  }

  void forget() override {
    archive_ = {};
    before_.clear();
  }

 private:
  torch::optim::Optimizer& optimizer_;
  torch::serialize::InputArchive archive_;
  std::string before_;
};

}  // namespace lawn::detail::checkpoint
