// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <c10/util/Exception.h>

#include <lawn/companions/pruning/smallest.h>
#include <lawn/decorator/held_weights.h>

namespace lawn {

/// The fraction of the largest weights before training that are among the largest after it.
///   R_p = |top_p(|initial|) and top_p(|trained|)| / |top_p|,    top_p: the largest fraction p
/// This is a diagnostic: independent weights give about p, and weights that training only scaled
/// give 1. The paper concludes that a high overlap makes tickets fail; a replication doubts it.
/// @param initial  one tensor for each weight, floating point; their elements are compared all
///                 together
/// @param trained  the same shapes
/// @param p        the fraction, in [0, 1]; must include at least one element
/// @return R_p, from 0 to 1; of equal magnitudes the last ones count as larger
/// @throws c10::Error if the lists differ in shape, an element is not finite, or p is out of range
/// @note   waits for the device
/// @source Liu et al. 2021, arXiv 2102.11068, section 3
inline double weight_overlap(const std::vector<at::Tensor>& initial,
                             const std::vector<at::Tensor>& trained, double p) {
  constexpr const char* kWho = "lawn::weight_overlap";
  detail::decorator::check_fraction(kWho, "p", p);
  TORCH_CHECK(!initial.empty() && initial.size() == trained.size(), kWho,
              ": expected two lists of as many tensors, at least one, got ", initial.size(),
              " and ", trained.size());
  const at::NoGradGuard no_grad;
  const auto flat = [&](const std::vector<at::Tensor>& tensors, const char* list) {
    std::vector<at::Tensor> magnitudes;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto name = std::string(list) + "[" + std::to_string(i) + "]";
      detail::decorator::check_weight(kWho, name, tensors[i]);
      detail::pruning::check_finite(kWho, name, tensors[i]);
      TORCH_CHECK(tensors[i].sizes() == initial[i].sizes(), kWho, ": expected ", name,
                  " to have the shape ", initial[i].sizes(), " of initial[", i, "], got ",
                  tensors[i].sizes());
      magnitudes.push_back(tensors[i].detach().to(at::kDouble).abs().reshape({-1}).cpu());
    }
    return at::cat(magnitudes);
  };
  const auto before = flat(initial, "initial");
  const auto after = flat(trained, "trained");
  const auto count = detail::pruning::count_of(p, before.numel());
  TORCH_CHECK(count > 0, kWho, ": expected p to take at least one of ", before.numel(),
              " elements, got ", p);
  const auto small_before = detail::pruning::smallest(before, before.numel() - count);
  const auto small_after = detail::pruning::smallest(after, after.numel() - count);
  const auto both = small_before.logical_or(small_after).logical_not().sum().item<int64_t>();
  return static_cast<double>(both) / static_cast<double>(count);
}

}  // namespace lawn
