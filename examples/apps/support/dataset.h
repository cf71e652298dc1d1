// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <c10/util/Exception.h>

#include <string>
#include <vector>

namespace examples {

/// Labelled images, as bytes.
struct Dataset {
  std::string name;   ///< for tables and messages
  at::Tensor images;  ///< uint8 [N, channels, height, width]
  at::Tensor labels;  ///< int64 [N], each in [0, classes)
  int64_t classes = 10;

  int64_t size() const { return labels.size(0); }
  int64_t channels() const { return images.size(1); }
  int64_t image_size() const { return images.size(2); }

  Dataset to(at::Device device) const {
    return {name, images.to(device), labels.to(device), classes};
  }
};

/// What a run trains on and what it is measured on.
struct Split {
  Dataset train;
  Dataset test;

  Split to(at::Device device) const { return {train.to(device), test.to(device)}; }
};

/// Refuses a data set whose parts do not fit together.
/// @throws c10::Error that names the data set and what is wrong
inline void check_dataset(const Dataset& data) {
  TORCH_CHECK(data.images.dim() == 4 && data.images.scalar_type() == at::kByte, data.name,
              ": expected images as uint8 [N, channels, height, width], got ",
              data.images.scalar_type(), " ", data.images.sizes());
  TORCH_CHECK(data.images.size(0) == data.labels.size(0), data.name, ": ", data.images.size(0),
              " images, but ", data.labels.size(0), " labels");
  TORCH_CHECK(data.size() > 0, data.name, ": holds no images");
  TORCH_CHECK(data.images.numel() > 0, data.name,
              ": images of no pixels: expected at least 1, got ", data.images.sizes().slice(1));
  const at::Tensor wrong = at::logical_or(data.labels < 0, data.labels >= data.classes).nonzero();
  TORCH_CHECK(wrong.size(0) == 0, data.name, ": label ",
              data.labels[wrong[0].item<int64_t>()].item<int64_t>(), " of image ",
              wrong[0].item<int64_t>(), " is out of range; expected 0 to ", data.classes - 1);
}

/// All images in the order in which subset() takes them: shuffled, the classes dealt in turn.
inline at::Tensor dealt_order(const Dataset& data, uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const at::Tensor order = at::randperm(data.size(), generator, at::TensorOptions(at::kLong));
  // Deal the shuffled images round by round, one of each class: sort by the number of earlier
  // images of the same class, ties in shuffled order.
  const at::Tensor labels = data.labels.cpu().index_select(0, order);
  at::Tensor round = at::zeros({data.size()}, at::kLong);
  for (int64_t label = 0; label < data.classes; ++label) {
    const at::Tensor members = labels.eq(label).nonzero().squeeze(1);
    round.index_copy_(0, members, at::arange(members.size(0), at::kLong));
  }
  const at::Tensor dealt =
      std::get<1>(round.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false));
  return order.index_select(0, dealt);
}

/// The images of `data` at the places `chosen`, of int64.
inline Dataset pick(const Dataset& data, const at::Tensor& chosen) {
  const at::Tensor there = chosen.to(data.images.device());
  return {data.name, data.images.index_select(0, there), data.labels.index_select(0, there),
          data.classes};
}

/// The first `count` images after a shuffle seeded with `seed`, with the classes in equal shares as
/// far as `count` and the data allow. `count` 0 or the full size keep everything, in the file's
/// order.
/// @throws c10::Error if `count` is larger than the data set
inline Dataset subset(const Dataset& data, int64_t count, uint64_t seed) {
  TORCH_CHECK(count >= 0 && count <= data.size(), data.name, ": ", count,
              " images asked for, it holds ", data.size());
  if (count == 0 || count == data.size()) return data;
  return pick(data, dealt_order(data, seed).slice(0, 0, count));
}

/// Training data of which a part is held out, to choose learning rates and the like on without a
/// look at the test data. The part that is trained on is subset(data, count, seed) as long as the
/// rest suffices for the other, so that what is chosen fits the run on test data.
/// @param count     images to train on; 0 is all that are not held out
/// @param held_out  images that take the place of the test data; classes in equal shares
/// @throws c10::Error if the data set is too small
inline Split hold_out(const Dataset& data, int64_t count, int64_t held_out, uint64_t seed) {
  TORCH_CHECK(held_out > 0 && held_out < data.size() && count + held_out <= data.size(), data.name,
              ": ", held_out, " images to hold out",
              count > 0 ? " beside " + std::to_string(count) + " to train on" : std::string(),
              " asked for, it holds ", data.size(), "; train on fewer or hold out fewer");
  const at::Tensor order = dealt_order(data, seed);
  const int64_t trained = count > 0 ? count : data.size() - held_out;
  return {pick(data, order.slice(0, 0, trained)),
          pick(data, order.slice(0, trained, trained + held_out))};
}

/// FNV-1a over the bytes of a list of tensors: equal for equal bits, on any machine.
/// @note copies to the host where needed
inline uint64_t fingerprint(const std::vector<at::Tensor>& tensors) {
  uint64_t hash = 1469598103934665603ULL;
  for (const at::Tensor& tensor : tensors) {
    const at::Tensor host = tensor.detach().cpu().contiguous();
    const auto* bytes = static_cast<const unsigned char*>(host.const_data_ptr());
    for (size_t index = 0; index < host.nbytes(); ++index) {
      hash = (hash ^ bytes[index]) * 1099511628211ULL;
    }
  }
  return hash;
}

/// Of images and labels.
inline uint64_t fingerprint(const Dataset& data) { return fingerprint({data.images, data.labels}); }

}  // namespace examples
