// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>

#include <algorithm>

#include "examples/apps/support/dataset.h"

namespace examples {

/// Mean and standard deviation of each channel, in units of a byte.
struct ChannelStatistics {
  at::Tensor mean;       ///< float32 [1, channels, 1, 1]
  at::Tensor deviation;  ///< the same; never zero
};

/// Statistics of all images of a data set, on its device.
inline ChannelStatistics channel_statistics(const Dataset& data) {
  constexpr int64_t kChunk = 4096;  // bounds the float64 copy
  at::Tensor sum = at::zeros({data.channels()}, data.images.options().dtype(at::kDouble));
  at::Tensor squares = at::zeros_like(sum);
  for (int64_t begin = 0; begin < data.size(); begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, data.size());
    const at::Tensor part = data.images.slice(0, begin, end).to(at::kDouble);
    sum += part.sum({0, 2, 3});
    squares += part.square().sum({0, 2, 3});
  }
  const auto pixels = static_cast<double>(data.images.numel() / data.channels());
  const at::Tensor mean = sum / pixels;
  const at::Tensor variance = (squares / pixels - mean.square()).clamp_min(1.0);  // a flat channel
  const auto shaped = [](const at::Tensor& x) { return x.to(at::kFloat).view({1, -1, 1, 1}); };
  return {shaped(mean), shaped(variance.sqrt())};
}

/// Bytes to floats of mean 0 and deviation 1 in each channel; keeps the memory format.
inline at::Tensor normalise(const at::Tensor& images, const ChannelStatistics& statistics) {
  return images.to(at::kFloat).sub_(statistics.mean).div_(statistics.deviation);
}

/// Where each image of a batch is cut out of its padded self, and which are mirrored.
struct CropAndFlip {
  at::Tensor top;   ///< int64 [N], 0 to 2 * padding
  at::Tensor left;  ///< the same
  at::Tensor flip;  ///< bool [N]

  CropAndFlip slice(int64_t begin, int64_t end) const {
    return {top.slice(0, begin, end), left.slice(0, begin, end), flip.slice(0, begin, end)};
  }
};

/// Draws crops and flips for `count` images from a CPU generator: the same whatever the device that
/// the images are on.
inline CropAndFlip draw_crop_and_flip(int64_t count, int64_t padding, at::Generator& generator) {
  const auto offsets = [&] {
    return at::randint(2 * padding + 1, {count}, generator, at::TensorOptions(at::kLong));
  };
  const at::Tensor top = offsets();
  const at::Tensor left = offsets();
  return {top, left,
          at::randint(2, {count}, generator, at::TensorOptions(at::kLong)).to(at::kBool)};
}

/// Pads each image with `padding` black pixels on every side, cuts a window of the old size out of
/// it and mirrors some, for the whole batch at once on its device.
/// @param images  [N, C, H, W], any dtype
/// @return        the same shape and dtype, channels-last
inline at::Tensor crop_and_flip(const at::Tensor& images, const CropAndFlip& draw,
                                int64_t padding) {
  const at::Device device = images.device();
  const at::TensorOptions index = at::TensorOptions(at::kLong).device(device);
  const at::Tensor column = at::arange(images.size(3), index);
  const at::Tensor flip = draw.flip.to(device).unsqueeze(1);
  const at::Tensor columns = draw.left.to(device).unsqueeze(1) +
                             at::where(flip, column.flip(0).unsqueeze(0), column.unsqueeze(0));
  const at::Tensor rows = draw.top.to(device).unsqueeze(1) + at::arange(images.size(2), index);
  const at::Tensor padded = at::constant_pad_nd(images, {padding, padding, padding, padding});
  // [N, H, W, C]: an index in three of four dimensions puts the fourth last.
  using at::indexing::Slice;
  return padded
      .index({at::arange(images.size(0), index).view({-1, 1, 1}), Slice(), rows.unsqueeze(2),
              columns.unsqueeze(1)})
      .permute({0, 3, 1, 2});
}

}  // namespace examples
