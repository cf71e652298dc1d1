// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>

#include "examples/apps/support/dataset.h"

namespace examples {

/// How many of `size` labels label_noise() replaces: their share, rounded.
inline int64_t replaced_labels(int64_t size, double share) {
  return static_cast<int64_t>(std::llround(share * static_cast<double>(size)));
}

/// The data set with a share of its labels replaced at random: the images are chosen without
/// repetition, their new labels drawn uniformly from all classes. So a new label is the old one in
/// one of `classes` cases, and of C classes
///   1 - share (C - 1) / C
/// of the labels stay right on average.
/// @param data   in host memory; its tensors are not written to
/// @param share  in [0, 1)
/// @param seed   of which images, and of their labels. Nothing else is drawn from this generator,
///               and no other generator moves: the network's start does not change with the share
/// @return       the same images, in the same order; shares the images' memory
/// @throws c10::Error for a share out of range
/// @source Zhang et al. 2017, arXiv 1611.03530, section 2.1, "partially corrupted labels"
inline Dataset label_noise(const Dataset& data, double share, uint64_t seed) {
  TORCH_CHECK(share >= 0 && share < 1, data.name,
              ": expected a share of labels to replace in [0, 1), got ", share);
  const int64_t count = replaced_labels(data.size(), share);
  if (count == 0) return data;
  constexpr uint64_t kStream = 0x6c6162656c73;  // a run's other generators begin at the bare seed
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed ^ kStream);
  const at::TensorOptions whole(at::kLong);
  const at::Tensor chosen = at::randperm(data.size(), generator, whole).slice(0, 0, count);
  const at::Tensor drawn = at::randint(data.classes, {count}, generator, whole);
  return {data.name, data.images, data.labels.index_copy(0, chosen, drawn), data.classes};
}

}  // namespace examples
