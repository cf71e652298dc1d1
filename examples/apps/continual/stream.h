// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/continual/stream_seed.h"

/// Inputs of a network and their labels.
struct Examples {
  at::Tensor inputs;  ///< float [N, channels, height, width]
  at::Tensor labels;  ///< int64 [N]

  int64_t size() const { return labels.size(0); }
  Examples pick(const at::Tensor& chosen) const {
    return {inputs.index_select(0, chosen), labels.index_select(0, chosen)};
  }
};

/// The data that a task of a stream trains on, and the data that it is tested on.
struct TaskData {
  Examples train;
  Examples test;
};

/// A sequence of tasks made from one set of images. Each task can be drawn alone, from the seed and
/// its number.
class Stream {
 public:
  /// @param pool     all images and labels in the form of network inputs, both halves on one device
  /// @param classes  of the labels
  Stream(TaskData pool, int64_t classes, uint64_t seed)
      : pool_(std::move(pool)), classes_(classes), seed_(seed) {}
  virtual ~Stream() = default;

  /// The number of tasks; 0 if there is no limit.
  virtual int64_t tasks() const { return 0; }
  /// Images of the largest task, which an epoch trains on.
  virtual int64_t size() const { return pool_.train.size(); }
  /// Classes that a network must tell apart.
  virtual int64_t outputs() const { return classes_; }
  /// Whether tasks have test images.
  virtual bool tested() const { return true; }
  /// The `number`th task, from 0.
  virtual TaskData task(int64_t number) const = 0;

 protected:
  const TaskData& pool() const { return pool_; }
  int64_t classes() const { return classes_; }
  at::Device device() const { return pool_.train.labels.device(); }
  at::Generator generator(int64_t number) const {
    return stream_generator(seed_, number, Draw::kData);
  }
  at::Tensor permutation(int64_t count, int64_t number) const {
    at::Generator drawn = generator(number);
    return at::randperm(count, drawn, at::TensorOptions(at::kLong));
  }

 private:
  TaskData pool_;
  int64_t classes_;
  uint64_t seed_;
};

/// The same images in each task, with new uniformly drawn labels: only memorising helps.
class RandomLabels : public Stream {
 public:
  using Stream::Stream;
  bool tested() const override { return false; }
  TaskData task(int64_t number) const override {
    at::Generator drawn = generator(number);
    const at::Tensor labels =
        at::randint(classes(), {size()}, drawn, at::TensorOptions(at::kLong)).to(device());
    return {{pool().train.inputs, labels}, {}};
  }
};

/// The same images and labels, with the pixels in another order in each task.
class PermutedInputs : public Stream {
 public:
  using Stream::Stream;
  TaskData task(int64_t number) const override {
    const at::Tensor order = permutation(pool().train.inputs[0].numel(), number).to(device());
    return {permuted(pool().train, order), permuted(pool().test, order)};
  }

 private:
  static Examples permuted(const Examples& data, const at::Tensor& order) {
    return {data.inputs.flatten(1).index_select(1, order).view(data.inputs.sizes()), data.labels};
  }
};

/// Two classes in each task, which the two outputs stand for in turn. Each pair comes once before
/// any pair comes again.
class ClassPairs : public Stream {
 public:
  ClassPairs(TaskData all, int64_t classes, uint64_t seed)
      : Stream(std::move(all), classes, seed),
        size_(std::get<0>(at::bincount(pool().train.labels, {}, classes).topk(2))
                  .sum()
                  .item<int64_t>()) {}
  int64_t outputs() const override { return 2; }
  int64_t size() const override { return size_; }
  TaskData task(int64_t number) const override {
    const auto [first, second] = pair(number);
    return {of_pair(pool().train, first, second), of_pair(pool().test, first, second)};
  }
  /// The classes that the outputs 0 and 1 stand for.
  std::pair<int64_t, int64_t> pair(int64_t number) const {
    std::vector<std::pair<int64_t, int64_t>> pairs;
    for (int64_t a = 0; a < classes(); ++a) {
      for (int64_t b = 0; b < a; ++b) pairs.emplace_back(a, b);
    }
    const auto count = static_cast<int64_t>(pairs.size());
    const at::Tensor order = permutation(count, number / count);
    auto found = pairs[static_cast<size_t>(order[number % count].item<int64_t>())];
    at::Generator drawn = generator(~number);  // not the numbers that the orders use
    const bool turned = at::randint(2, {1}, drawn).item<double>() > 0;
    return turned ? std::pair(found.second, found.first) : found;
  }

 private:
  static Examples of_pair(const Examples& data, int64_t first, int64_t second) {
    const at::Tensor members =
        at::logical_or(data.labels.eq(first), data.labels.eq(second)).nonzero().squeeze(1);
    const Examples picked = data.pick(members);
    return {picked.inputs, picked.labels.eq(second).to(at::kLong)};
  }
  int64_t size_;
};

/// Each task adds a number of classes, in an order that the seed decides.
class GrowingClasses : public Stream {
 public:
  GrowingClasses(TaskData pool, int64_t classes, uint64_t seed, int64_t added)
      : Stream(std::move(pool), classes, seed), added_(added) {}
  int64_t tasks() const override { return (classes() + added_ - 1) / added_; }
  TaskData task(int64_t number) const override {
    const int64_t known = std::min(classes(), (number + 1) * added_);
    const at::Tensor order = permutation(classes(), 0).slice(0, 0, known).to(device());
    return {of_classes(pool().train, order), of_classes(pool().test, order)};
  }

 private:
  static Examples of_classes(const Examples& data, const at::Tensor& known) {
    return data.pick(at::isin(data.labels, known).nonzero().squeeze(1));
  }
  int64_t added_;
};

/// Half of the images, then all of them.
/// @source Ash and Adams 2020, arXiv 1910.08475
class WarmStart : public Stream {
 public:
  using Stream::Stream;
  int64_t tasks() const override { return 2; }
  TaskData task(int64_t number) const override {
    if (number > 0) return pool();
    const at::Tensor half = permutation(size(), 0).slice(0, 0, (size() + 1) / 2).to(device());
    return {pool().train.pick(half), pool().test};
  }
};

inline const std::vector<std::string> kStreams = {"random-labels", "permuted-inputs", "class-pairs",
                                                  "growing-classes", "warm-start"};

/// @param name   one of kStreams
/// @param added  classes that each task of growing-classes adds
inline std::shared_ptr<const Stream> make_stream(const std::string& name, TaskData pool,
                                                 int64_t classes, uint64_t seed, int64_t added) {
  if (name == "random-labels") {
    return std::make_shared<RandomLabels>(std::move(pool), classes, seed);
  }
  if (name == "permuted-inputs") {
    return std::make_shared<PermutedInputs>(std::move(pool), classes, seed);
  }
  if (name == "class-pairs") return std::make_shared<ClassPairs>(std::move(pool), classes, seed);
  if (name == "growing-classes") {
    return std::make_shared<GrowingClasses>(std::move(pool), classes, seed, added);
  }
  TORCH_CHECK(name == "warm-start", "unknown stream '", name, "'; expected one of ", kStreams);
  return std::make_shared<WarmStart>(std::move(pool), classes, seed);
}
