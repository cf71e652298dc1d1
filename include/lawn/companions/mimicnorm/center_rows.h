// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/nan_to_num.h>
#include <c10/core/Device.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <lawn/companions/cuda/entries.h>
#include <lawn/companions/mimicnorm/center_rows_cpu.h>
#include <lawn/sphere/cuda/by_device.h>
#include <lawn/sphere/cuda/call.h>
#include <lawn/sphere/flat.h>
#include <lawn/sphere/flatten.h>
#include <lawn/sphere/layer.h>

namespace lawn {

/// A weight cut into rows: all elements with the same index along `unit_dim` form a row.
struct WeightRows {
  /// One or more dimensions, any stride and device; float64, float32, bfloat16 or half.
  at::Tensor weight;
  /// The dimension of the output units: 0 for convolutions and linear layers.
  int64_t unit_dim = 0;
  /// Marks the elements that take no part: bool, in the shape and on the device of `weight`;
  /// undefined if there are none.
  at::Tensor pruned = {};
};

namespace detail::mimicnorm {

namespace aten {

/// `center_rows_` written with ATen calls: any device, dtype and stride.
inline void center_rows_(const WeightRows& rows) {
  if (rows.weight.numel() == 0) return;
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < rows.weight.dim(); ++dim) {
    if (dim != rows.unit_dim) dims.push_back(dim);
  }
  auto weight = rows.weight.to(sphere::accumulation_dtype(rows.weight));
  at::Tensor mean;
  if (dims.empty()) {  // an empty list of dimensions means all of them to ATen
    mean = weight.clone();
  } else if (rows.pruned.defined()) {
    const auto kept = rows.pruned.logical_not().sum(dims, /*keepdim=*/true);
    mean = weight.masked_fill(rows.pruned, 0).sum(dims, /*keepdim=*/true) / kept.clamp_min(1);
  } else {
    mean = weight.mean(dims, /*keepdim=*/true);
  }
  mean = at::nan_to_num(mean, 0.0, 0.0, 0.0);
  if (rows.pruned.defined()) mean = mean.expand_as(weight).masked_fill(rows.pruned, 0);
  weight.sub_(mean);
  if (!weight.is_same(rows.weight)) rows.weight.copy_(weight);
}

}  // namespace aten

/// Whether loops or kernels on raw memory can do the work.
inline bool takes(const WeightRows& rows) {
  const at::Tensor& weight = rows.weight;
  return !rows.pruned.defined() && sphere::is_flat({weight, {}, {}, rows.unit_dim, 0}) &&
         (weight.is_cpu() || sphere::cuda::has_kernels(weight.device()));
}

}  // namespace detail::mimicnorm

/// Subtracts from every row its mean.
///   w_r <- w_r - mean(w_r)
/// If elements are pruned, the mean is taken over the others and subtracted from them alone, so
/// that pruned elements stay zero. A mean that is not finite counts as 0: such a row stays as it
/// is. Sums are taken in float32 for bfloat16 and half. On the CPU the bits do not depend on the
/// number of threads. Loops on the CPU and CUDA kernels process a whole list at once; ATen does the
/// work weight by weight if elements are pruned, if rows are not contiguous in memory, and on other
/// devices.
/// @param weights  each once; changed in place
/// @throws c10::Error for a weight without the dimension `unit_dim` or not of floating point, and
///         for `pruned` of another shape or type; nothing is changed then
/// @note   does not wait for the device
/// @source Fei et al. 2020, arXiv 2010.09278
inline void center_rows_(c10::ArrayRef<WeightRows> weights) {
  for (const WeightRows& rows : weights) {
    TORCH_CHECK(
        rows.weight.defined() && at::isFloatingType(rows.weight.scalar_type()),
        "lawn::center_rows_: expected a weight of floating point, got ",
        rows.weight.defined() ? c10::toString(rows.weight.scalar_type()) : "an undefined tensor");
    TORCH_CHECK(rows.unit_dim >= 0 && rows.unit_dim < rows.weight.dim(),
                "lawn::center_rows_: unit_dim must be a dimension of the weight, which has ",
                rows.weight.dim(), ", got ", rows.unit_dim);
    TORCH_CHECK(!rows.pruned.defined() || (rows.pruned.scalar_type() == at::kBool &&
                                           rows.pruned.sizes() == rows.weight.sizes()),
                "lawn::center_rows_: expected pruned elements as Bool of the weight's shape ",
                rows.weight.sizes(), ", got ", rows.pruned.scalar_type(), " of shape ",
                rows.pruned.sizes());
  }
  const at::NoGradGuard no_grad;
  sphere::cuda::ByDevice<sphere::Flat> flat;
  // Backwards: the optimizer has touched the last weight last, so that it may still be in a cache.
  for (std::size_t i = weights.size(); i-- > 0;) {
    const WeightRows& rows = weights[i];
    if (!detail::mimicnorm::takes(rows)) {
      detail::mimicnorm::aten::center_rows_(rows);
      continue;
    }
    flat.add(rows.weight.device(), sphere::flatten({rows.weight, {}, {}, rows.unit_dim, 0}));
    sphere::bump_version(rows.weight);
  }
  flat.for_each([](at::Device device, const std::vector<sphere::Flat>& all) {
    if (device.is_cpu()) {
      detail::mimicnorm::cpu::center_rows_(all);
    } else {
      sphere::cuda::call(device, detail::companions::cuda::entries->center_rows, all);
    }
  });
}

}  // namespace lawn
