// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <string>

#include "examples/apps/support/cifar10.h"
#include "examples/apps/support/dataset.h"
#include "examples/apps/support/flags.h"
#include "examples/apps/support/generated.h"
#include "examples/apps/support/idx.h"
#include "examples/apps/support/label_noise.h"
#include "examples/apps/support/networks.h"
#include "examples/apps/support/table.h"

namespace examples {

/// Which images a program trains on, as its command line says.
struct ImageOptions {
  std::string data = "generated";
  std::string root = ".";
  std::string network = "resnet20";
  int64_t train_size = 0;
  int64_t test_size = 0;
  int64_t validation = 0;
  int64_t probe_size = 1000;
  bool augment = false;
  double label_noise = 0;
  GeneratedOptions generated;  ///< what is drawn where --data and the sizes do not say otherwise

  /// Declares the flags of programs that train the networks of make_network().
  void add_images(Flags& flags) {
    add_data(flags);
    flags.add("network", &network, "what to train; vgg, cnn and mlp have no normalisation")
        .choices(kNetworks);
    add_sizes(flags);
    flags.add("augment", &augment, "crop and flip at random");
  }

  /// Declares the flags that say which data.
  void add_data(Flags& flags) {
    flags.add("data", &data, "what to train on; generated needs no files")
        .choices({"generated", "cifar10", "fashion-mnist", "mnist"});
    flags.add("root", &root, "folder of the data's files").incidental();
  }

  /// Declares the flags that say how much of them.
  void add_sizes(Flags& flags) {
    add_sizes(flags, "0 is all (generated: " + std::to_string(generated.train_size) + ")", "epoch");
  }

  /// @param usual_size  what --help says of a --train-size of 0
  /// @param epoch       what the program calls it
  void add_sizes(Flags& flags, const std::string& usual_size, const std::string& epoch) {
    flags
        .add("train-size", &train_size,
             "train on that many images, classes in equal shares; " + usual_size)
        .range(0, 1e6);
    flags
        .add("test-size", &test_size,
             "test on that many; 0 is all (generated: " + std::to_string(generated.test_size) + ")")
        .range(0, 1e6);
    flags
        .add("validation", &validation,
             "hold that many training images out and test on them, so that settings can be chosen "
             "without the test images; 0 is none")
        .range(0, 1e6);
    flags
        .add("probe-size", &probe_size,
             "images of each half that every " + epoch + " is measured on")
        .range(1, 1e6);
    flags
        .add("label-noise", &label_noise,
             "share of the training labels, in [0, 1), that are replaced at random; a new label "
             "may by "
             "chance be the right one. Which labels depends on --seed; those to test on stay")
        .range(0, 1);
  }

  /// @throws c10::Error for flags that contradict each other
  void check_images() const {
    TORCH_CHECK(validation == 0 || test_size == 0,
                "--validation tests on the images that it holds out: leave --test-size out");
    TORCH_CHECK(label_noise < 1, "--label-noise: expected a number below 1; got ", label_noise);
  }

  /// The images, in host memory, with --label-noise in the training labels. Generated ones do not
  /// depend on --seed: runs share them. Held-out images keep their labels, as test images do.
  /// @param seed  of the label noise
  /// @throws c10::Error that names the file or the size that is wrong
  Split load_images(int64_t seed) const {
    const Split clean = load_clean_images();
    return {examples::label_noise(clean.train, label_noise, static_cast<uint64_t>(seed)),
            clean.test};
  }

  /// "1000 generated images, 40.00 % of their labels replaced at random (2000 to test)", for the
  /// line that heads a job.
  std::string images_text(const Split& split) const {
    return std::to_string(split.train.size()) + " " + split.train.name +
           (label_noise > 0 ? ", " + percent(label_noise) + " of their labels replaced at random"
                            : "") +
           " (" + std::to_string(split.test.size()) + (validation > 0 ? " held out" : "") +
           " to test)";
  }

 private:
  Split load_clean_images() const {
    if (data == "generated") {
      GeneratedOptions drawn = generated;
      if (train_size > 0) drawn.train_size = train_size;
      if (test_size > 0) drawn.test_size = test_size;
      return generate_images(drawn, validation);
    }
    Split split;
    if (data == "cifar10") split = load_cifar10(root);
    if (data == "fashion-mnist") split = load_mnist(root, "Fashion-MNIST");
    if (data == "mnist") split = load_mnist(root, "MNIST");
    if (validation > 0) return hold_out(split.train, train_size, validation, 0);
    return {subset(split.train, train_size, 0), subset(split.test, test_size, 0)};
  }
};

}  // namespace examples
