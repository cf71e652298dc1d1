// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/Exception.h>
#include <c10/util/irange.h>
#include <torch/nn/module.h>

#include <lawn/distributed/agreement.h>
#include <lawn/distributed/process_group.h>
#include <lawn/distributed/replica.h>
#include <lawn/distributed/shard.h>
#include <lawn/distributed/sharded_spheres.h>
#include <lawn/sphere/spheres.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

/// Cuts the work and the state of an optimizer into a part for each rank (ZeRO, stage 1). Every
/// rank has the whole model and the gradient of the joint batch; its optimizer holds a flat range
/// of each parameter, rank r of n the elements [r N / n, (r + 1) N / n), and all ranks gather the
/// results.
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
/// A step costs one all-gather of the parameters, and LAWN's two sums. The state (two tensors as
/// large as the weights for Adam) takes an n-th of the memory, and the step an n-th of the time.
/// @source  Rajbhandari et al. 2020, arXiv 1910.02054
class ParameterShards {
 public:
  /// @param model  on its device, in its dtype, the same on every rank: moving it later leaves the
  ///               parts behind. Its parameters that require gradients are cut; they must be
  ///               contiguous
  /// @param ranks  must outlive this
  /// @throws c10::Error on every rank, if another one's parameters differ, or one is not contiguous
  ParameterShards(const torch::nn::Module& model, ProcessGroup& ranks) : ranks_(ranks) {
    std::vector<Shard> shards;
    detail::tell_of_errors(ranks, [&] {
      for (const auto& [name, whole] : detail::each_once(model.named_parameters())) {
        if (!whole.requires_grad()) continue;
        TORCH_CHECK(whole.layout() == at::kStrided && whole.is_contiguous(),
                    "lawn::ParameterShards: expected contiguous parameters, got ", name,
                    " of layout ", whole.layout(), ", strides ", whole.strides(),
                    "; cut the model before it is made channels-last");
        const int64_t begin = begin_of(ranks.rank(), whole);
        auto part = range(whole, ranks.rank());
        index_[whole.unsafeGetTensorImpl()] = parameters_.size();
        shards.push_back({name, part, whole.sizes().vec(), begin});
        parameters_.push_back({whole, part.requires_grad_(true)});
      }
      TORCH_CHECK(!parameters_.empty(),
                  "lawn::ParameterShards: expected a model with parameters that require gradients, "
                  "got none");
    });
    spheres_ = std::make_shared<ShardedSpheres>(ranks, std::move(shards));
  }

  /// This rank's parts, for its optimizer: one of each parameter, in the module's order, perhaps
  /// without elements. They are views: what is written to them is in the model.
  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> parts;
    for (const auto& parameter : parameters_) parts.push_back(parameter.part);
    return parts;
  }

  /// A selection among the model's parameters, as one among this rank's parts.
  Subnetwork select(const Subnetwork& of_model) const {
    auto all = of_model.all();
    for (auto& parameter : all) {
      const auto found = index_.find(parameter.tensor.unsafeGetTensorImpl());
      if (found != index_.end()) parameter.tensor = parameters_[found->second].part;
    }
    return Subnetwork(std::move(all), of_model.boundaries(), of_model.homogeneity(),
                      of_model.degree());
  }

  /// For `LAWNOptions::spheres`.
  const std::shared_ptr<Spheres>& spheres() const { return spheres_; }

  /// Gives each part the gradient of its elements, by a view: after the backward pass, before the
  /// optimizer's step. Does not wait for the device.
  void take_gradients() {
    for (auto& [whole, part] : parameters_) {
      const auto& gradient = whole.grad();
      part.mutable_grad() =
          gradient.defined() ? range(gradient.contiguous(), ranks_.rank()) : at::Tensor();
    }
  }

  /// Gives every rank the parts of all: after the optimizer's step. One all-gather for each dtype
  /// and device.
  /// @throws c10::Error as the group does, if a rank is lost or late
  void gather() {
    const at::NoGradGuard no_grad;
    std::map<std::pair<at::ScalarType, std::string>, std::vector<at::Tensor>> alike;
    for (const auto& [whole, part] : parameters_) {
      alike[{whole.scalar_type(), whole.device().str()}].push_back(whole);
    }
    for (const auto& [kind, tensors] : alike) gather(tensors);
  }

 private:
  struct Parameter {
    at::Tensor whole;
    at::Tensor part;
  };

  int64_t begin_of(int rank, const at::Tensor& whole) const {
    return whole.numel() * rank / ranks_.size();
  }

  /// A view of rank's elements of a contiguous tensor.
  at::Tensor range(const at::Tensor& whole, int rank) const {
    const int64_t begin = begin_of(rank, whole);
    return whole.detach().view({-1}).narrow(0, begin, begin_of(rank + 1, whole) - begin);
  }

  /// @param tensors  of one dtype and device
  void gather(const std::vector<at::Tensor>& tensors) {
    const auto for_each_range = [&](int rank, const auto& visit) {
      int64_t offset = 0;
      for (const auto& tensor : tensors) {
        const auto part = range(tensor, rank);
        visit(part, offset);
        offset += part.numel();
      }
      return offset;
    };
    int64_t longest = 0;
    for (const auto rank : c10::irange(ranks_.size())) {
      longest = std::max(longest, for_each_range(rank, [](const auto&, int64_t) {}));
    }
    const auto mine = at::empty({longest}, tensors.front().options().requires_grad(false));
    for_each_range(ranks_.rank(), [&](const at::Tensor& part, int64_t offset) {
      mine.narrow(0, offset, part.numel()).copy_(part);
    });
    const auto all = ranks_.gather(mine);
    for (const auto rank : c10::irange(ranks_.size())) {
      if (rank == ranks_.rank()) continue;
      for_each_range(rank, [&](const at::Tensor& part, int64_t offset) {
        part.copy_(all[static_cast<std::size_t>(rank)].narrow(0, offset, part.numel()));
      });
    }
  }

  ProcessGroup& ranks_;
  std::vector<Parameter> parameters_;
  std::unordered_map<const c10::TensorImpl*, std::size_t> index_;
  std::shared_ptr<Spheres> spheres_;
};

}  // namespace lawn
