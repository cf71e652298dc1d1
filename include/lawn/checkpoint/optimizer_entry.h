// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <typeinfo>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/jit_type.h>
#include <ATen/core/qualified_name.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <c10/util/Type.h>
#include <torch/csrc/jit/api/compilation_unit.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/optimizer_state.h>
#include <lawn/checkpoint/archive_file.h>
#include <lawn/checkpoint/entry.h>
#include <lawn/checkpoint/object_entry.h>
#include <lawn/module_view.h>

namespace lawn::detail::checkpoint {

/// An optimizer, decorated or not. Its kind is that of its options, so that a decorated optimizer
/// and a plain one exchange checkpoints.
class OptimizerEntry : public Entry {
 public:
  template <class Opt>
  OptimizerEntry(std::string name, Opt& optimizer)
      : Entry(std::move(name)),
        optimizer_(optimizer),
        may_write_nothing_(archive::kWritesNothing<Opt>) {}

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

  void save(torch::serialize::OutputArchive& archive) const override {
    refuse_unwritten_state();
    optimizer_.save(archive);
  }

  void read(torch::serialize::InputArchive& archive, Differences& differences) override {
    try {
      archive::refuse_other_parameters(name().c_str(), archive, optimizer_);
    } catch (const c10::Error& error) {
      differences.emplace_back(error.what_without_backtrace());
    }
    archive_ = std::move(archive);
  }

  void load() override {
    if (archive::holds_optimizer(archive_)) refuse_unwritten_state();  // no way back
    before_ = saved_bytes(optimizer_);
    load_from(archive_);
  }

  /// LibTorch's own `load` leaves state that the bytes do not hold.
  void undo() override {
    torch::serialize::InputArchive before;
    read_bytes(before_, std::nullopt, before);
    load_from(before);
  }

  void forget() override {
    archive_ = {};
    before_.clear();
  }

 private:
  void load_from(torch::serialize::InputArchive& archive) {
    archive::load_or_restore(name().c_str(), optimizer_, archive,
                             [&] { optimizer_.load(archive); });
  }

  /// Refuses state that `save` would leave out.
  void refuse_unwritten_state() const {
    if (!may_write_nothing_ || optimizer_.state().empty()) return;
    torch::serialize::OutputArchive trial;
    optimizer_.save(trial);
    // The class of an archive, of which each key is an attribute.
    const auto written =
        trial.compilation_unit()->get_class(c10::QualifiedName("__torch__.Module"));
    if (written == nullptr || written->numAttributes() > 0) return;
    archive::refuse_unwritten_state("lawn::Checkpoint: " + name(), optimizer_);
  }

  torch::optim::Optimizer& optimizer_;
  bool may_write_nothing_;  ///< known only by a trial, if the object's own class is not
  torch::serialize::InputArchive archive_;
  std::string before_;
};

}  // namespace lawn::detail::checkpoint
