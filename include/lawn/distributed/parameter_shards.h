// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>

#include <lawn/distributed/agreement.h>
#include <lawn/distributed/process_group.h>
#include <lawn/distributed/replica.h>
#include <lawn/distributed/shard.h>
#include <lawn/distributed/sharded_spheres.h>
#include <lawn/module_view.h>
#include <lawn/sphere/spheres.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

namespace detail::distributed {

/// Bytes of a rank that `ParameterShards` gathers at once, unless a single parameter has more: MPI
/// counts bytes in an int. A test sets it.
inline int64_t most_bytes_of_a_share = int64_t{1} << 30;

}  // namespace detail::distributed

/// Cuts the work and the state of an optimizer into one part for each rank (ZeRO, stage 1). Every
/// rank has the whole model and the gradient of the joint batch. The parameters lie one after the
/// other in one memory of N elements (in several if a rank's share would pass 1 GiB), where N is
/// rounded up to a multiple of the number n of ranks.
/// The optimizer of rank r holds the elements [r N / n, (r + 1) N / n): a range of some parameters,
/// and nothing of the others. After each step all ranks gather the results.
///
///   lawn::DataParallel parallel(*model, ranks);
///   lawn::ParameterShards shards(*model, ranks);
///   lawn::LAWN optimizer(torch::optim::Adam(shards.parameters()),
///                        shards.select(lawn::final_homogeneous_subnetwork(logits, *model)),
///                        lawn::LAWNOptions().free_steps(1000).spheres(shards.spheres()));
///   for (const auto& batch : my_part_of_the_data) {
///     model->zero_grad();
///     parallel.backward(loss(model->forward(batch.x), batch.y), batch.x.size(0));
///     shards.take_gradients();
///     optimizer.step();
///     shards.gather();
///   }
///
/// `GradScaler` and `clip_grad_norm_(shards.parameters(), ...)`, called between `take_gradients`
/// and `step`, decide for all ranks together as long as this object lives (see `ShardedSpheres`).
///
/// A step costs one all-gather of the parameters, in place, and LAWN's two sums. The state (two
/// tensors as large as the weights for Adam) takes an n-th of the memory, and the step an n-th of
/// the time.
/// @source  Rajbhandari et al. 2020, arXiv 1910.02054
class ParameterShards {
 public:
  /// @param model  of torch::nn or TorchScript, already on its device and in its dtype, the same on
  ///               every rank. Parameters that require gradients must be contiguous, and are moved
  ///               into the common memory (one for each dtype and device). The parts do not
  ///               follow a model that is moved later, to a device, to a dtype or by `torch::load`,
  ///               which gives each parameter new memory: load the model before, or by
  ///               `lawn::Checkpoint`, which writes into the old one. A parameter that is replaced
  ///               by another tensor goes unnoticed
  /// @param ranks  must outlive this object
  /// @throws c10::Error on every rank, if the parameters differ from rank to rank, or one is not
  ///         contiguous
  ParameterShards(const ModuleView& model, ProcessGroup& ranks) : ranks_(ranks) {
    const auto named = detail::each_once(model.parameters());
    detail::distributed::tell_of_errors(ranks, [&] {
      for (const auto& [name, whole] : named) {
        if (!whole.requires_grad()) continue;
        TORCH_CHECK(whole.layout() == at::kStrided && whole.is_contiguous(),
                    "lawn::ParameterShards: expected contiguous parameters, got ", name,
                    " of layout ", whole.layout(), ", strides ", whole.strides(),
                    "; cut the model before it is made channels-last");
        parameters_.push_back({name, whole, {}, 0});
      }
      TORCH_CHECK(!parameters_.empty(),
                  "lawn::ParameterShards: expected a model with parameters that require gradients, "
                  "got none");
    });
    check_agreement(ranks, "lawn::ParameterShards", "model",
                    detail::distributed::describe("parameter", named));
    std::vector<bool> moved(parameters_.size(), false);
    for (const auto i : c10::irange(parameters_.size())) {
      if (!moved[i]) move_alike(parameters_[i].whole, moved);
    }
    std::vector<Shard> shards;
    for (const auto i : c10::irange(parameters_.size())) {
      const auto& [name, whole, part, begin, place] = parameters_[i];
      index_[whole.unsafeGetTensorImpl()] = i;
      shards.push_back({name, part, whole.sizes().vec(), begin});
    }
    spheres_ = std::make_shared<ShardedSpheres>(ranks, std::move(shards));
  }
  ParameterShards(const ParameterShards&) = delete;
  ParameterShards& operator=(const ParameterShards&) = delete;

  /// This rank's parts, for its optimizer: one of each parameter, in the module's order, possibly
  /// without elements. They are views: writing to them changes the model.
  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> parts;
    for (const auto& parameter : parameters_) parts.push_back(parameter.part);
    return parts;
  }

  /// Turns a selection of the model's parameters into one of this rank's parts.
  Subnetwork select(const Subnetwork& of_model) const {
    auto all = of_model.all();
    for (auto& parameter : all) {
      const auto found = index_.find(parameter.tensor.unsafeGetTensorImpl());
      if (found != index_.end()) parameter.tensor = parameters_[found->second].part;
    }
    return Subnetwork(std::move(all), of_model.boundaries(), of_model.homogeneity(),
                      of_model.degree());
  }

  /// The spheres for `LAWNOptions::spheres`.
  const std::shared_ptr<Spheres>& spheres() const { return spheres_; }

  /// Gives each part the gradient of its elements, by a view. Call it after the backward pass and
  /// before the optimizer's step. Does not wait for the device.
  /// @throws c10::Error if a parameter no longer lies where the constructor moved it, because the
  ///         model was moved, or loaded by `torch::load`; nothing is changed then, and the other
  ///         ranks are told
  void take_gradients() {
    check_places();
    for (auto& parameter : parameters_) {
      const auto& gradient = parameter.whole.grad();
      parameter.part.mutable_grad() =
          gradient.defined()
              ? gradient.contiguous().view({-1}).narrow(0, parameter.begin, parameter.part.numel())
              : at::Tensor();
    }
  }

  /// Gives every rank the parts of all ranks. Call it after the optimizer's step. Takes one
  /// all-gather for each memory: for each dtype and device one or more.
  /// @throws c10::Error as `take_gradients` does, and as the group does, if a rank is lost or late
  void gather() {
    check_places();
    const at::NoGradGuard no_grad;
    for (const auto& memory : memories_) ranks_.gather_(memory);
  }

 private:
  struct Parameter {
    std::string name;
    at::Tensor whole;
    at::Tensor part;
    int64_t begin;                ///< offset of the part in the whole
    const void* place = nullptr;  ///< where the whole lies in the common memory
  };

  /// Checks that the model's parameters still lie in the common memory: otherwise the optimizer
  /// would train memory that the model does not read.
  void check_places() const {
    detail::distributed::tell_of_errors(ranks_, [&] {
      for (const auto& parameter : parameters_) {
        const void* const place = parameter.whole.const_data_ptr();
        TORCH_CHECK(place == parameter.place, "lawn::ParameterShards: expected ", parameter.name,
                    " where the constructor moved it, at ", parameter.place, ", got it at ", place,
                    ": the model was moved, or loaded by torch::load; load it before the shards "
                    "are made, or by lawn::Checkpoint, and do not move it later");
      }
    });
  }

  /// Moves parameters of `first`'s dtype and device into one memory, [ranks, elements of each], as
  /// many as the ranks can gather at once.
  void move_alike(const at::Tensor& first, std::vector<bool>& moved) {
    const at::NoGradGuard no_grad;
    std::vector<std::size_t> alike;
    const int64_t most =
        detail::distributed::most_bytes_of_a_share / first.element_size() * ranks_.size();
    int64_t numel = 0;
    for (const auto i : c10::irange(parameters_.size())) {
      const auto& whole = parameters_[i].whole;
      if (whole.scalar_type() != first.scalar_type() || whole.device() != first.device()) continue;
      if (moved[i] || (numel > 0 && numel + whole.numel() > most)) continue;
      alike.push_back(i);
      moved[i] = true;
      numel += whole.numel();
    }
    const int64_t each = (numel + ranks_.size() - 1) / ranks_.size();
    memories_.push_back(at::zeros({ranks_.size(), each}, first.options().requires_grad(false)));
    const auto memory = memories_.back().view({-1});
    int64_t offset = 0;
    for (const auto i : alike) {
      Parameter& parameter = parameters_[i];
      const at::Tensor& whole = parameter.whole;
      const auto place = memory.narrow(0, offset, whole.numel());
      place.copy_(whole.view({-1}));
      whole.set_data(place.view(whole.sizes()));
      parameter.place = whole.const_data_ptr();
      const auto within = [&](int64_t element) {
        return std::clamp(element - offset, int64_t{0}, whole.numel());
      };
      parameter.begin = within(each * ranks_.rank());
      const int64_t end = within(each * (ranks_.rank() + 1));
      parameter.part = place.narrow(0, parameter.begin, end - parameter.begin).detach();
      parameter.part.requires_grad_(true);
      offset += whole.numel();
    }
  }

  ProcessGroup& ranks_;
  std::vector<Parameter> parameters_;
  std::vector<at::Tensor> memories_;
  std::unordered_map<const c10::TensorImpl*, std::size_t> index_;
  std::shared_ptr<Spheres> spheres_;
};

}  // namespace lawn
