// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

#include "examples/apps/support/dataset.h"

namespace examples {

/// How images are drawn when there is no data set at hand.
struct GeneratedOptions {
  int64_t train_size = 1000;
  int64_t test_size = 2000;
  int64_t channels = 3;     ///< 1 or 3
  int64_t image_size = 32;  ///< height and width in pixels
  int64_t classes = 10;
  uint64_t seed = 0;
};

/// Draws images whose classes overlap, so that no network classifies them all, and a large one can
/// learn a small training set by heart.
///
/// Each class has a pattern, smooth noise that is symmetric left to right (a flip keeps the class).
/// An image is a mixture m A + (1 - m) B of the patterns of two classes with m uniform in [0, 1],
/// and its label is
///   A with probability m^2 / (m^2 + (1 - m)^2), else B.
/// Whoever knew m would be right in 1/2 + log(2) / 2 = 84.7 % of cases, and nobody is more often.
/// The images are then bent by a smooth displacement, brightened or dimmed, and covered with noise.
///
/// All is computed in float64 from one CPU generator: equal seeds give equal images on every
/// machine, as far as torch's generator and its arithmetic do.
class ImageGenerator {
 public:
  explicit ImageGenerator(const GeneratedOptions& options)
      : options_(options), generator_(at::make_generator<at::CPUGeneratorImpl>(options.seed)) {
    TORCH_CHECK(options.classes >= 2, "generated images: expected at least 2 classes, got ",
                options.classes);
    TORCH_CHECK(options.train_size > 0 && options.test_size > 0,
                "generated images: sizes must be > 0, got ", options.train_size, " and ",
                options.test_size);
    const at::Tensor half = normal({options.classes, options.channels, kPatternGrid, kPatternGrid});
    patterns_ = enlarge((half + half.flip(3)) * 0.7071067811865476);
  }

  /// The next `count` images of the stream.
  Dataset draw(int64_t count, const std::string& name) {
    std::vector<at::Tensor> images;
    std::vector<at::Tensor> labels;
    for (int64_t begin = 0; begin < count; begin += kChunk) {
      const int64_t n = std::min(kChunk, count - begin);
      const at::Tensor first = integers(options_.classes, n);
      const at::Tensor second = (first + 1 + integers(options_.classes - 1, n)) % options_.classes;
      const at::Tensor share = uniform({n});
      labels.push_back(at::where(uniform({n}) < probability_of_first(share), first, second));

      const at::Tensor m = share.view({n, 1, 1, 1});
      const at::Tensor mixed =
          patterns_.index_select(0, first) * m + patterns_.index_select(0, second) * (1 - m);
      const at::Tensor contrast = 0.7 + 0.6 * uniform({n, 1, 1, 1});
      const at::Tensor brightness = 0.4 * normal({n, 1, 1, 1});
      const at::Tensor light = bend(mixed) * contrast + brightness;
      const at::Tensor noisy = light + kNoise * normal(light.sizes());
      images.push_back((noisy * kBytesPerUnit + 127.5).round().clamp(0, 255).to(at::kByte));
    }
    return {name, at::cat(images), at::cat(labels), options_.classes};
  }

  /// Chance that an image that holds `share` of the first pattern bears the first label.
  static at::Tensor probability_of_first(const at::Tensor& share) {
    const at::Tensor for_first = share.square();
    return for_first / (for_first + (1 - share).square());
  }

 private:
  static constexpr int64_t kChunk = 500;      ///< images drawn at once, to bound memory
  static constexpr int64_t kPatternGrid = 6;  ///< a pattern is this coarse
  static constexpr int64_t kBendGrid = 4;     ///< and a displacement this
  static constexpr double kBend = 0.2;        ///< its standard deviation; the image is 2 wide
  static constexpr double kNoise = 1.0;       ///< of a pixel, beside patterns of deviation 1
  static constexpr double kBytesPerUnit = 32;

  at::TensorOptions real() const { return at::TensorOptions(at::kDouble); }
  at::Tensor normal(at::IntArrayRef shape) { return at::randn(shape, generator_, real()); }
  at::Tensor uniform(at::IntArrayRef shape) { return at::rand(shape, generator_, real()); }
  at::Tensor integers(int64_t bound, int64_t count) {
    return at::randint(bound, {count}, generator_, at::TensorOptions(at::kLong));
  }

  at::Tensor enlarge(const at::Tensor& coarse) const {
    return at::upsample_bicubic2d(coarse, {options_.image_size, options_.image_size},
                                  /*align_corners=*/true);
  }

  /// Moves every pixel by a smooth displacement of its own.
  at::Tensor bend(const at::Tensor& images) {
    const int64_t n = images.size(0);
    const at::Tensor shift = enlarge(normal({n, 2, kBendGrid, kBendGrid}) * kBend);
    const at::Tensor axis = at::linspace(-1, 1, options_.image_size, real());
    const auto mesh = at::meshgrid({axis, axis}, "ij");
    const at::Tensor grid = at::stack({mesh[1], mesh[0]}, -1) + shift.permute({0, 2, 3, 1});
    constexpr int64_t kBilinear = 0;
    constexpr int64_t kReflect = 2;
    return at::grid_sampler_2d(images, grid, kBilinear, kReflect, /*align_corners=*/true);
  }

  GeneratedOptions options_;
  at::Generator generator_;
  at::Tensor patterns_;  ///< float64 [classes, channels, image_size, image_size]
};

/// Training and test images from one set of patterns.
/// @param held_out  if > 0, so many other images in place of the test images; the training images
///                  stay the same
inline Split generate_images(const GeneratedOptions& options, int64_t held_out = 0) {
  ImageGenerator generator(options);
  Dataset train = generator.draw(options.train_size, "generated images");
  Dataset test = generator.draw(options.test_size, "generated test images");
  return {train, held_out > 0 ? generator.draw(held_out, "generated images") : test};
}

}  // namespace examples
