// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>

#include <lawn/optim/group_options.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/sphere.h>

/// Parameters and gradients as the lists that ATen's `_foreach_` functions take: one device and one
/// dtype each, so that a list is one call.
namespace lawn::detail {

/// The indices of `tensors`, one list for each device and dtype, in order.
inline std::vector<std::vector<std::size_t>> by_device_and_dtype(
    const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<std::size_t>> lists;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto found = std::find_if(lists.begin(), lists.end(), [&](const auto& list) {
      const at::Tensor& first = tensors[list.front()];
      return first.device() == tensors[i].device() &&
             first.scalar_type() == tensors[i].scalar_type();
    });
    if (found == lists.end()) {
      lists.push_back({i});
    } else {
      found->push_back(i);
    }
  }
  return lists;
}

/// Those of `tensors` that `indices` name.
inline std::vector<at::Tensor> pick(const std::vector<at::Tensor>& tensors,
                                    const std::vector<std::size_t>& indices) {
  std::vector<at::Tensor> picked;
  picked.reserve(indices.size());
  for (const std::size_t i : indices) picked.push_back(tensors[i]);
  return picked;
}

/// The parameters of one group that have a gradient, of one device and dtype.
template <class Options>
struct Batch {
  const Options* options = nullptr;
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> gradients;
};

/// @throws c10::Error for a sparse gradient, for a parameter that is not of floating point, and for
///         a group with another optimizer's options
template <class Options>
void check_gradients(const char* who,
                     const std::vector<torch::optim::OptimizerParamGroup>& groups) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    group_options<Options>(who, groups[g]);
    for (std::size_t p = 0; p < groups[g].params().size(); ++p) {
      const at::Tensor& weight = groups[g].params()[p];
      const at::Tensor& gradient = weight.grad();
      if (!gradient.defined()) continue;
      TORCH_CHECK(weight.is_floating_point(), who, ": expected parameters of floating point, got ",
                  weight.scalar_type(), " for parameter ", p, " of group ", g);
      TORCH_CHECK(gradient.layout() == at::kStrided, who, ": expected dense gradients, got a ",
                  gradient.layout(), " one for parameter ", p, " of group ", g, ", of shape ",
                  weight.sizes(), "; give it to another optimizer, or make it dense");
    }
  }
}

/// All parameters that have a gradient, in batches.
/// @param groups  that `check_gradients` takes
template <class Options>
std::vector<Batch<Options>> batches(const char* who,
                                    std::vector<torch::optim::OptimizerParamGroup>& groups) {
  std::vector<Batch<Options>> all;
  for (const auto& group : groups) {
    std::vector<at::Tensor> weights;
    std::vector<at::Tensor> gradients;
    for (const at::Tensor& weight : group.params()) {
      const at::Tensor& gradient = weight.grad();
      if (!gradient.defined()) continue;
      weights.push_back(weight);
      gradients.push_back(gradient);
    }
    const auto& options = group_options<Options>(who, group);
    for (const auto& list : by_device_and_dtype(weights)) {
      all.push_back({&options, pick(weights, list), pick(gradients, list)});
    }
  }
  return all;
}

/// `tensors` in the dtype in which sums over `like`, of one dtype, are taken: the tensors
/// themselves where they have it.
inline std::vector<at::Tensor> widened(const std::vector<at::Tensor>& tensors,
                                       const at::Tensor& like) {
  const auto dtype = sphere::accumulation_dtype(like);
  const bool wide = std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& tensor) {
    return tensor.scalar_type() == dtype;
  });
  if (wide) return tensors;
  std::vector<at::Tensor> copies;
  copies.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    copies.push_back(at::empty_like(tensor, tensor.options().dtype(dtype)));
  }
  at::_foreach_copy_(copies, tensors);
  return copies;
}

/// The Euclidean norm of each tensor, by the function table of its device: one 0-dim tensor each.
inline std::vector<at::Tensor> norms(const std::vector<at::Tensor>& tensors) {
  std::vector<sphere::Layer> layers;
  layers.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    layers.push_back({tensor, {}, {}, sphere::kWholeTensor, 0});
  }
  return sphere::norms(layers);
}

}  // namespace lawn::detail
