// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>
#include <torch/types.h>

#include <lawn/archive/checked_read.h>

/// Reads checkpoints of optimizers so that a wrong one is refused before anything is changed.
/// LibTorch's own `load` writes state group by group and checks on the way.
namespace lawn::detail::archive {

/// Key under which the innermost decorator keeps `describe_parameters`.
constexpr const char* kParametersKey = "lawn/parameters";

/// Groups and shapes of all parameters as numbers: per group the count, then per parameter its
/// number of dimensions and sizes.
inline std::vector<int64_t> describe_parameters(const torch::optim::Optimizer& optimizer) {
  std::vector<int64_t> description;
  for (const auto& group : optimizer.param_groups()) {
    description.push_back(static_cast<int64_t>(group.params().size()));
    for (const auto& parameter : group.params()) {
      description.push_back(parameter.dim());
      description.insert(description.end(), parameter.sizes().begin(), parameter.sizes().end());
    }
  }
  return description;
}

/// Reads a count as LibTorch's optimizers write it. The tensor is undefined at first, because
/// `read` writes into a defined one, which could be the archive's own.
inline int64_t read_count(const char* who, torch::serialize::InputArchive& archive,
                          const std::string& key) {
  at::Tensor count;
  TORCH_CHECK(archive.try_read(key, count) && count.numel() == 1 && !count.is_complex(), who,
              ": expected a checkpoint with the number ", key,
              ", got one without; nothing was changed");
  return count.item<int64_t>();
}

/// Whether options are of one of LibTorch's optimizers whose state has the shapes of the parameters.
/// Another's state may have other shapes under the same names.
inline bool has_state_like_parameters(const torch::optim::OptimizerOptions& options) {
  namespace optim = torch::optim;
  return dynamic_cast<const optim::AdamOptions*>(&options) != nullptr ||
         dynamic_cast<const optim::AdamWOptions*>(&options) != nullptr ||
         dynamic_cast<const optim::SGDOptions*>(&options) != nullptr ||
         dynamic_cast<const optim::RMSpropOptions*>(&options) != nullptr ||
         dynamic_cast<const optim::AdagradOptions*>(&options) != nullptr;
}

/// Refuses a checkpoint in the layout of LibTorch's optimizers that is damaged or of other
/// parameters, by the numbers of groups and parameters and by shapes and dtypes of the state.
/// LibTorch checks none of these before a step computes with them.
/// @param shaped  whether the state has its parameter's shape, though it is not LibTorch's
inline void refuse_other_state(const char* who, torch::serialize::InputArchive& archive,
                               const torch::optim::Optimizer& optimizer, bool shaped) {
  check_storages(who, archive);
  torch::serialize::InputArchive groups;
  torch::serialize::InputArchive states;
  if (!archive.try_read("param_groups", groups) || !archive.try_read("state", states)) return;
  const auto saved_groups = read_count(who, groups, "param_groups/size");
  const auto& mine = optimizer.param_groups();
  TORCH_CHECK(saved_groups == static_cast<int64_t>(mine.size()), who, ": expected a checkpoint of ",
              mine.size(), " parameter group(s), got one of ", saved_groups,
              "; nothing was changed");
  constexpr std::array<const char*, 7> kShapedAsParameter = {
      "exp_avg",  "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg",
      "grad_avg", "sum"};
  for (std::size_t g = 0; g < mine.size(); ++g) {
    torch::serialize::InputArchive group;
    groups.read("param_groups/" + std::to_string(g), group);
    const auto saved_parameters = read_count(who, group, "params/size");
    const auto& parameters = mine[g].params();
    TORCH_CHECK(saved_parameters == static_cast<int64_t>(parameters.size()), who,
                ": expected a checkpoint with ", parameters.size(), " parameters in group ", g,
                ", got one with ", saved_parameters, "; nothing was changed");
    for (std::size_t p = 0; p < parameters.size(); ++p) {
      c10::IValue key;
      group.read("params/" + std::to_string(p), key);
      TORCH_CHECK(key.isString(), who, ": expected a checkpoint that names parameter ", p,
                  " of group ", g, ", got one that does not; nothing was changed");
      torch::serialize::InputArchive state;
      if (!states.try_read(key.toStringRef(), state)) continue;
      if (!shaped && !(mine[g].has_options() && has_state_like_parameters(mine[g].options()))) {
        continue;
      }
      for (const char* name : kShapedAsParameter) {
        c10::IValue value;
        if (!state.try_read(name, value) || !value.isTensor()) continue;
        const auto& tensor = value.toTensor();
        TORCH_CHECK(tensor.sizes() == parameters[p].sizes(), who, ": expected ", name,
                    " of parameter ", p, " in group ", g, " to have the parameter's shape ",
                    parameters[p].sizes(), ", got ", tensor.sizes(),
                    ": the checkpoint is of another model; nothing was changed");
        TORCH_CHECK(at::isFloatingType(tensor.scalar_type()) ==
                        at::isFloatingType(parameters[p].scalar_type()),
                    who, ": expected ", name, " of parameter ", p, " in group ", g,
                    " to be of the kind of the parameter, ", parameters[p].scalar_type(), ", got ",
                    tensor.scalar_type(), "; nothing was changed");
      }
    }
  }
}

/// Refuses a checkpoint whose parameters are not the optimizer's, in number, groups or shapes.
/// Waits for the device if the checkpoint was read onto one.
inline void refuse_other_parameters(const char* who, torch::serialize::InputArchive& archive,
                                    const torch::optim::Optimizer& optimizer, bool shaped = false) {
  refuse_other_state(who, archive, optimizer, shaped);
  c10::IValue saved;
  if (!archive.try_read(kParametersKey, saved)) return;
  TORCH_CHECK(
      saved.isIntList() && saved.toIntVector() == describe_parameters(optimizer), who,
      ": expected a checkpoint of parameters with the groups and shapes that this optimizer "
      "holds, got one of another model; nothing was changed");
}

/// Gives a group's options the values of `saved`, a copy of them. Options that have no `serialize`
/// are replaced by the copy.
inline void restore_options(torch::optim::OptimizerParamGroup& group,
                            std::unique_ptr<torch::optim::OptimizerOptions> saved) {
  try {
    std::stringstream stream;
    torch::serialize::OutputArchive written;
    saved->serialize(written);
    written.save_to(stream);
    torch::serialize::InputArchive read;
    read.load_from(stream);
    group.options().serialize(read);
  } catch (const c10::Error&) {
    group.set_options(std::move(saved));
  }
}

/// Whether a class has its `save` from torch::optim::Optimizer, where it writes nothing. A class
/// derived from it may have one of its own.
template <class Opt, class = void>
constexpr bool kWritesNothing = false;
template <class Opt>
constexpr bool kWritesNothing<Opt, std::void_t<decltype(&Opt::save)>> =
    std::is_same_v<decltype(&Opt::save),
                   void (torch::optim::Optimizer::*)(torch::serialize::OutputArchive&) const>;

/// Refuses an optimizer that writes nothing and has state, which would be lost.
/// @param optimizer  of a class of which `kWritesNothing` holds
inline void refuse_unwritten_state(const std::string& who,
                                   const torch::optim::Optimizer& optimizer) {
  TORCH_CHECK(optimizer.state().empty(), who,
              ": expected an optimizer that writes its state, got one that keeps the state of ",
              optimizer.state().size(),
              " parameter(s), whose save() writes nothing, as LibTorch's base class does; override "
              "save() and load() in it, with torch::optim::serialize<State, Options>(archive, "
              "*this), say. Nothing was changed");
}

/// Whether an archive holds what an optimizer has written, apart from what decorators have.
inline bool holds_optimizer(torch::serialize::InputArchive& archive) {
  for (const std::string& key : archive.keys()) {
    if (key.rfind("lawn/", 0) != 0) return true;
  }
  return false;
}

/// Calls `load()`. If that throws, the optimizer's state and options, and their addresses, are
/// restored. State that the checkpoint does not hold is dropped, so that a used optimizer loads
/// like a new one. An optimizer that has written nothing, as LibTorch's base class does, reads
/// nothing either: it keeps its state.
/// @param who        begins the messages
/// @param optimizer  to be loaded
/// @param archive    from which `load` reads
/// @param load       has the optimizer read it
/// @throws c10::Error also for what LibTorch throws of other types, for damaged numbers
template <class Load>
void load_or_restore(const char* who, torch::optim::Optimizer& optimizer,
                     torch::serialize::InputArchive& archive, const Load& load) {
  using Options = std::unique_ptr<torch::optim::OptimizerOptions>;
  std::vector<Options> options;
  for (const auto& group : optimizer.param_groups()) {
    options.push_back(group.has_options() ? group.options().clone() : nullptr);
  }
  auto state = std::exchange(optimizer.state(), {});
  const auto restore = [&] {
    optimizer.state() = std::move(state);
    for (std::size_t g = 0; g < options.size(); ++g) {
      if (options[g]) restore_options(optimizer.param_groups()[g], std::move(options[g]));
    }
  };
  try {
    load();
  } catch (const c10::Error&) {
    restore();
    throw;
  } catch (const std::exception& error) {
    restore();
    TORCH_CHECK(false, who,
                ": expected a checkpoint that LibTorch reads, got a damaged one: ", error.what(),
                "; nothing was changed");
  }
  if (optimizer.state().empty() && !holds_optimizer(archive)) optimizer.state() = std::move(state);
}

}  // namespace lawn::detail::archive
