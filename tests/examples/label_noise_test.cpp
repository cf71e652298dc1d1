// SPDX-License-Identifier: Apache-2.0
#include "examples/apps/support/label_noise.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "examples/apps/support/image_options.h"
#include "tests/support/refusal.h"

namespace {

examples::Dataset labelled(int64_t count) {
  return {"numbers", torch::zeros({count, 1, 1, 1}, torch::kByte),
          torch::arange(count, torch::kLong) % 10, 10};
}

int64_t changed(const examples::Dataset& a, const examples::Dataset& b) {
  return a.labels.ne(b.labels).sum().item<int64_t>();
}

TEST(LabelNoise, ReplacesAShareOfTheLabelsByAnyClassTheRightOneAmongThem) {
  const auto data = labelled(10'000);
  const auto noisy = examples::label_noise(data, 0.4, 3);
  EXPECT_EQ(examples::replaced_labels(10'000, 0.4), 4000);
  EXPECT_LE(changed(data, noisy), 4000);
  EXPECT_NEAR(static_cast<double>(changed(data, noisy)), 3600,
              5 * std::sqrt(4000 * 0.09));  // five deviations
  // Of each class as many as of any other, in both directions.
  const at::Tensor wrong = noisy.labels.index({data.labels.ne(noisy.labels)});
  for (int64_t label = 0; label < 10; ++label) {
    EXPECT_NEAR(wrong.eq(label).sum().item<double>(), 360, 5 * std::sqrt(360)) << label;
  }
  EXPECT_NO_THROW(examples::check_dataset(noisy));
}

TEST(LabelNoise, LeavesImagesAndTheGivenLabelsAlone) {
  const auto data = labelled(100);
  const at::Tensor before = data.labels.clone();
  const auto noisy = examples::label_noise(data, 0.9, 3);
  EXPECT_GT(changed(data, noisy), 50);
  EXPECT_TRUE(torch::equal(data.labels, before));
  EXPECT_TRUE(noisy.images.is_same(data.images));
  EXPECT_EQ(noisy.name, data.name);
  EXPECT_EQ(changed(data, examples::label_noise(data, 0, 3)), 0);
}

TEST(LabelNoise, IsDecidedByItsSeedAndMovesNoOtherGenerator) {
  const auto data = labelled(1000);
  torch::manual_seed(5);
  const at::Tensor expected = torch::rand({4});
  torch::manual_seed(5);
  const auto first = examples::label_noise(data, 0.5, 3);
  EXPECT_TRUE(torch::equal(torch::rand({4}), expected));
  EXPECT_EQ(changed(first, examples::label_noise(data, 0.5, 3)), 0);
  EXPECT_GT(changed(first, examples::label_noise(data, 0.5, 4)), 200);
  EXPECT_EQ(examples::fingerprint(first), examples::fingerprint(first));
  EXPECT_NE(examples::fingerprint(first), examples::fingerprint(data));
}

TEST(LabelNoise, RefusesAShareOutOfRange) {
  for (const double share : {-0.1, 1.0}) {
    lawn::testing::expect_refusal([&] { examples::label_noise(labelled(10), share, 0); },
                                  "numbers: expected a share of labels to replace in [0, 1), got");
  }
}

examples::ImageOptions images(double noise, int64_t validation = 0) {
  examples::ImageOptions options;
  options.train_size = 200;
  options.label_noise = noise;
  options.generated.test_size = 100;
  options.validation = validation;
  return options;
}

TEST(ImageOptions, PutLabelNoiseIntoTheTrainingLabelsAlone) {
  for (const int64_t validation : {0, 50}) {
    const auto clean = images(0, validation).load_images(7);
    const auto noisy = images(0.6, validation).load_images(7);
    EXPECT_GT(changed(clean.train, noisy.train), 80);
    EXPECT_LE(changed(clean.train, noisy.train), 120);
    EXPECT_TRUE(torch::equal(clean.train.images, noisy.train.images));
    EXPECT_TRUE(torch::equal(clean.test.labels, noisy.test.labels));
    EXPECT_EQ(clean.test.size(), validation > 0 ? validation : 100);
  }
}

TEST(ImageOptions, SayOfLabelNoiseHowMuchThereIs) {
  auto options = images(0.4);
  EXPECT_EQ(options.images_text(options.load_images(0)),
            "200 generated images, 40.00 % of their labels replaced at random (100 to test)");
  EXPECT_EQ(images(0).images_text(options.load_images(0)), "200 generated images (100 to test)");
}

TEST(ImageOptions, RefuseToReplaceEveryLabel) {
  examples::ImageOptions options;
  examples::Flags flags("program", "");
  options.add_sizes(flags);
  flags.parse({"--label-noise", "1"});
  lawn::testing::expect_refusal([&] { options.check_images(); },
                                "--label-noise: expected a number below 1; got 1");
  flags.parse({"--label-noise", "0.999"});
  EXPECT_NO_THROW(options.check_images());
}

}  // namespace
