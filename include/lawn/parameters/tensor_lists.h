// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/empty_like.h>

#include <lawn/sphere/functions.h>
#include <lawn/sphere/layer.h>

/// Sorts tensors into lists for ATen's `_foreach_` functions: each has one device and one dtype, so
/// that one call handles it.
namespace lawn::detail::parameters {

/// The indices of `tensors`, in order, in one list for each device and dtype.
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

/// The tensors at `indices`.
inline std::vector<at::Tensor> pick(const std::vector<at::Tensor>& tensors,
                                    const std::vector<std::size_t>& indices) {
  std::vector<at::Tensor> picked;
  picked.reserve(indices.size());
  for (const std::size_t i : indices) picked.push_back(tensors[i]);
  return picked;
}

/// `tensors` in the dtype in which sums over `like` are taken; the tensors themselves if all have
/// that dtype.
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

/// The Euclidean norm of each tensor, 0-dim, by the function table of its device.
inline std::vector<at::Tensor> norms(const std::vector<at::Tensor>& tensors) {
  std::vector<sphere::Layer> layers;
  layers.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) layers.push_back(sphere::whole(tensor));
  return sphere::norms(layers);
}

}  // namespace lawn::detail::parameters
