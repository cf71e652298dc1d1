// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/augment.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

namespace {

at::Generator seeded(uint64_t seed) { return at::make_generator<at::CPUGeneratorImpl>(seed); }

examples::CropAndFlip draw(int64_t top, int64_t left, bool flip) {
  return {torch::tensor({top}), torch::tensor({left}), torch::tensor({flip})};
}

TEST(CropAndFlip, InTheMiddleLeavesAnImageAsItIs) {
  const at::Tensor images = torch::randint(256, {1, 3, 8, 8}).to(torch::kByte);
  EXPECT_TRUE(torch::equal(examples::crop_and_flip(images, draw(2, 2, false), 2), images));
}

TEST(CropAndFlip, MirrorsLeftToRight) {
  const at::Tensor images = torch::randint(256, {1, 3, 8, 8}).to(torch::kByte);
  EXPECT_TRUE(torch::equal(examples::crop_and_flip(images, draw(2, 2, true), 2), images.flip(3)));
}

TEST(CropAndFlip, ShiftsInBlackFromTheBorder) {
  const at::Tensor images = torch::ones({1, 1, 4, 4}, torch::kByte);
  const at::Tensor shifted = examples::crop_and_flip(images, draw(0, 3, false), 2);
  at::Tensor expected = torch::zeros({1, 1, 4, 4}, torch::kByte);  // two down, one to the left
  expected.slice(2, 2, 4).slice(3, 0, 3).fill_(1);
  EXPECT_TRUE(torch::equal(shifted, expected));
}

TEST(CropAndFlip, EqualsAPlainLoopOverTheImagesOfABatch) {
  constexpr int64_t kPadding = 4;
  at::Generator generator = seeded(3);
  const at::Tensor images = torch::randint(256, {64, 3, 32, 28}).to(torch::kByte);
  const auto drawn = examples::draw_crop_and_flip(64, kPadding, generator);
  const at::Tensor batch = examples::crop_and_flip(images, drawn, kPadding);
  const at::Tensor padded = torch::constant_pad_nd(images, {4, 4, 4, 4});
  for (int64_t index = 0; index < 64; ++index) {
    const int64_t top = drawn.top[index].item<int64_t>();
    const int64_t left = drawn.left[index].item<int64_t>();
    at::Tensor expected = padded[index].slice(1, top, top + 32).slice(2, left, left + 28);
    if (drawn.flip[index].item<bool>()) expected = expected.flip(2);
    ASSERT_TRUE(torch::equal(batch[index], expected)) << "image " << index;
  }
}

TEST(CropAndFlip, IsDrawnFromTheGeneratorAlone) {
  at::Generator generator = seeded(3);
  examples::draw_crop_and_flip(10, 4, generator);
  const at::Tensor state = generator.get_state();
  const auto expected = examples::draw_crop_and_flip(500, 4, generator);
  torch::manual_seed(99);  // the default generator has no say
  generator.set_state(state);
  const auto again = examples::draw_crop_and_flip(500, 4, generator);
  EXPECT_TRUE(torch::equal(again.top, expected.top));
  EXPECT_TRUE(torch::equal(again.left, expected.left));
  EXPECT_TRUE(torch::equal(again.flip, expected.flip));
  EXPECT_EQ(expected.top.min().item<int64_t>(), 0);
  EXPECT_EQ(expected.top.max().item<int64_t>(), 8);
  EXPECT_FALSE(torch::equal(expected.top, expected.left));
}

TEST(Normalise, GivesEachChannelMeanZeroAndDeviationOne) {
  at::Tensor images = torch::randint(100, {5000, 3, 4, 4}).to(torch::kByte);  // more than a chunk
  images.select(1, 2) += 100;
  const examples::Dataset data{"noise", images, torch::zeros({5000}, torch::kLong)};
  const at::Tensor x = examples::normalise(images, examples::channel_statistics(data));
  EXPECT_EQ(x.scalar_type(), torch::kFloat);
  EXPECT_TRUE(torch::allclose(x.mean({0, 2, 3}), torch::zeros({3}), 0, 1e-4));
  EXPECT_TRUE(torch::allclose(x.std({0, 2, 3}), torch::ones({3}), 1e-4));
}

TEST(Normalise, StaysFiniteForAFlatChannel) {
  const at::Tensor images = torch::full({10, 1, 4, 4}, 77, torch::kByte);
  const examples::Dataset data{"grey", images, torch::zeros({10}, torch::kLong)};
  EXPECT_TRUE(torch::equal(examples::normalise(images, examples::channel_statistics(data)),
                           torch::zeros({10, 1, 4, 4})));
}

}  // namespace
