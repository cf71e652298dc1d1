// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <lawn/subnetwork/graph.h>
#include <lawn/subnetwork/operators.h>
#include <lawn/subnetwork/paths.h>

namespace lawn::detail::subnetwork {

/// Whether an operator is a transposed convolution by its name. LibTorch's functions and modules
/// all make a ConvolutionBackward0, which keeps this as a number.
inline bool is_transposed_by_name(std::string_view name) {
  return name == "SlowConvTranspose2D" || name == "SlowConvTranspose3D" ||
         name == "CudnnConvolutionTranspose" || name == "MiopenConvolutionTranspose" ||
         name == "MpsConvolutionTranspose";
}

/// The dimension of a convolution's kernel that counts output units. It follows from the node: a
/// kernel is [out, in / groups, ...], that of a transposed convolution [in, out / groups, ...], and
/// that of conv_tbc [places, in, out]. If the kernel was permuted on the way there, the number of
/// outputs tells; if that fits both of the first two dimensions, they count as swapped.
/// @param units_of_module  what its module says; returned for other operators, and for a kernel
///                         that was reshaped, of which nothing can be told
inline int64_t kernel_unit_dim(const GraphNode& product, const Use& use, const at::Tensor& kernel,
                               int64_t units_of_module) {
  const auto& result = product.node->input_metadata(0);
  if (use.slot != 1 || use.reshaped || result.is_nested_tensor()) return units_of_module;
  const auto shape = result.shape_as_dim_vector();
  if (kernel.dim() < 3 || static_cast<std::size_t>(kernel.dim()) != shape.size()) {
    return units_of_module;
  }
  const bool as_it_is = use.swaps == 0 && !use.permuted;
  using torch::autograd::generated::ConvolutionBackward0;
  const auto* const convolution = dynamic_cast<const ConvolutionBackward0*>(product.node);
  if (convolution == nullptr) {
    const std::string_view name = operator_name(product.name);
    if (as_it_is && name == "ConvTbc") return 2;
    return as_it_is && is_transposed_by_name(name) ? 1 : units_of_module;
  }
  const int64_t dim = convolution->transposed ? 1 : 0;
  if (as_it_is) return dim;
  const int64_t groups = convolution->transposed ? convolution->groups.expect_int() : 1;
  const int64_t units = shape[1].expect_int() / std::max<int64_t>(groups, 1);
  const int64_t moved = use.swaps % 2 == 0 ? dim : 1 - dim;
  for (const int64_t d : {moved, 1 - moved}) {
    if (kernel.size(d) == units) return d;
  }
  return units_of_module;
}

}  // namespace lawn::detail::subnetwork
