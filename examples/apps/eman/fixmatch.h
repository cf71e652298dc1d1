// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>

/// A teacher's pseudo-labels for images without labels.
struct PseudoLabels {
  at::Tensor labels;  ///< int64 [N], the most likely class
  at::Tensor used;    ///< bool [N], whether the teacher is sure enough of that class
};

/// @param logits     of the teacher, [N, classes]
/// @param threshold  of the most likely class's probability
/// @source Sohn et al. 2020, arXiv 2001.07685, eq. 4
inline PseudoLabels pseudo_labels(const at::Tensor& logits, double threshold) {
  const auto [confidence, labels] = logits.detach().softmax(1).max(1);
  return {labels, confidence.ge(threshold)};
}

/// FixMatch's loss of images without labels: the sum over sure pseudo-labels, divided by all
/// images.
///   (1/N) sum over i of used_i * cross-entropy(logits_i, labels_i)
/// @param logits  of the student for strongly augmented images, [N, classes]
/// @source Sohn et al. 2020, arXiv 2001.07685, eq. 4
inline at::Tensor fixmatch_loss(const at::Tensor& logits, const PseudoLabels& targets) {
  const at::Tensor each = at::cross_entropy_loss(logits, targets.labels, {}, at::Reduction::None);
  return (each * targets.used.to(each.scalar_type())).mean();
}

/// Where a square is cut out of each image of a batch, and how its light is changed.
struct StrongChange {
  at::Tensor top;         ///< int64 [N], the square's first row; from minus half its side
  at::Tensor left;        ///< the same
  at::Tensor contrast;    ///< float [N], 0.5 to 1.5
  at::Tensor brightness;  ///< float [N], -64 to 64
};

/// Draws changes for `count` square images of `size` pixels from a CPU generator.
inline StrongChange draw_strong_change(int64_t count, int64_t size, at::Generator& generator) {
  const at::TensorOptions integer(at::kLong);
  const at::TensorOptions real(at::kFloat);
  const int64_t half = size / 4;
  const at::Tensor top = at::randint(-half, size - half, {count}, generator, integer);
  const at::Tensor left = at::randint(-half, size - half, {count}, generator, integer);
  const at::Tensor contrast = at::rand({count}, generator, real) + 0.5;
  return {top, left, contrast, at::rand({count}, generator, real) * 128 - 64};
}

/// Changes contrast and brightness of each image and cuts a grey square out of it, half as high and
/// wide as itself: FixMatch's strong augmentation, without the dozen other changes of RandAugment.
/// @param images  uint8 [N, C, H, W] with H = W
/// @return        the same shape and dtype
/// @source DeVries and Taylor 2017, arXiv 1708.04552 (the square)
inline at::Tensor change_strongly(const at::Tensor& images, const StrongChange& change) {
  constexpr double kGrey = 127.5;
  const at::Device device = images.device();
  const auto shaped = [&](const at::Tensor& x) { return x.to(device).view({-1, 1, 1, 1}); };
  const int64_t size = images.size(2);
  const at::Tensor pixel = at::arange(size, at::TensorOptions(at::kLong).device(device));
  const auto inside = [&](const at::Tensor& first) {
    const at::Tensor begin = first.to(device).view({-1, 1});
    return at::logical_and(pixel >= begin, pixel < begin + size / 2);  // [N, size]
  };
  const at::Tensor square =
      at::logical_and(inside(change.top).unsqueeze(2), inside(change.left).unsqueeze(1))
          .unsqueeze(1);
  const at::Tensor lit =
      (images.to(at::kFloat) - kGrey) * shaped(change.contrast) + kGrey + shaped(change.brightness);
  return lit.masked_fill(square, kGrey).round().clamp(0, 255).to(at::kByte);
}
