// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/checkpoint/entry.h>

namespace lawn::detail::checkpoint {

/// Reads the state of a generator under `key`, tries it on a new one where there is no harm in it,
/// and adds to `differences` what is wrong.
inline at::Tensor read_generator(torch::serialize::InputArchive& archive, const std::string& key,
                                 const at::Generator& generator, const std::string& name,
                                 Differences& differences) {
  at::Tensor state;
  if (!archive.try_read(key, state, /*is_buffer=*/true)) {
    differences.push_back("it lacks the state of " + name);
    return {};
  }
  const at::Tensor mine = generator.get_state();
  if (state.sizes() != mine.sizes() || state.scalar_type() != mine.scalar_type()) {
    differences.push_back(c10::str("the state of ", name, " has ", state.numel(),
                                   " bytes there and ", mine.numel(),
                                   " here: another LibTorch's, or another kind"));
    return {};
  }
  if (generator.device().is_cpu()) {
    try {
      at::Generator trial = at::make_generator<at::CPUGeneratorImpl>();
      trial.set_state(state.cpu());
    } catch (const c10::Error& error) {
      differences.push_back("the state of " + name + " is none: " + error.what_without_backtrace());
      return {};
    }
  }
  return state.cpu();
}

/// A generator of the program's own.
class GeneratorEntry : public Entry {
 public:
  GeneratorEntry(std::string name, at::Generator& generator)
      : Entry(std::move(name)), generator_(generator) {}

  std::string kind() const override {
    TORCH_CHECK(generator_.defined(), "lawn::Checkpoint: expected ", name(),
                " to be a generator, got an undefined one; make it first");
    return "generator on " + c10::DeviceTypeName(generator_.device().type(), /*lower_case=*/true);
  }

  void save(torch::serialize::OutputArchive& archive) const override {
    archive.write("state", generator_.get_state(), /*is_buffer=*/true);
  }

  void read(torch::serialize::InputArchive& archive, Differences& differences) override {
    state_ = read_generator(archive, "state", generator_, name(), differences);
  }

  void take() override { generator_.set_state(state_); }
  void forget() override { state_ = at::Tensor(); }

 private:
  at::Generator& generator_;
  at::Tensor state_;
};

/// LibTorch's default generators: the CPU's and those of all GPUs.
class RandomStateEntry : public Entry {
 public:
  explicit RandomStateEntry(std::string name) : Entry(std::move(name)) {}

  std::string kind() const override { return "random state"; }

  void save(torch::serialize::OutputArchive& archive) const override {
    for (const auto& [key, generator] : generators()) {
      archive.write(key, generator.get_state(), /*is_buffer=*/true);
    }
  }

  /// A GPU whose state was not saved keeps its own, and the state of one that is not here is left.
  void read(torch::serialize::InputArchive& archive, Differences& differences) override {
    const auto keys = archive.keys();
    for (const auto& [key, generator] : generators()) {
      const bool saved = std::find(keys.begin(), keys.end(), key) != keys.end();
      if (!saved && !generator.device().is_cpu()) continue;
      states_.emplace_back(
          generator, read_generator(archive, key, generator, "the generator " + key, differences));
    }
  }

  void take() override {
    for (auto& [generator, state] : states_) generator.set_state(state);
  }
  void forget() override { states_.clear(); }

 private:
  static std::vector<std::pair<std::string, at::Generator>> generators() {
    std::vector<std::pair<std::string, at::Generator>> all;
    all.emplace_back("cpu", at::globalContext().defaultGenerator(at::kCPU));
    if (!at::hasCUDA()) return all;
    for (c10::DeviceIndex i = 0; i < static_cast<c10::DeviceIndex>(at::getNumGPUs()); ++i) {
      all.emplace_back("cuda/" + std::to_string(i),
                       at::globalContext().defaultGenerator(at::Device(at::kCUDA, i)));
    }
    return all;
  }

  std::vector<std::pair<at::Generator, at::Tensor>> states_;
};

}  // namespace lawn::detail::checkpoint
