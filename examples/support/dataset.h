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
  const at::Tensor wrong = at::logical_or(data.labels < 0, data.labels >= data.classes).nonzero();
  TORCH_CHECK(wrong.size(0) == 0, data.name, ": label ",
              data.labels[wrong[0].item<int64_t>()].item<int64_t>(), " of image ",
              wrong[0].item<int64_t>(), " is out of range; expected 0 to ", data.classes - 1);
}

/// The first `count` images after a shuffle seeded with `seed`, with the classes in equal shares as
/// far as `count` and the data allow. `count` 0 or the full size keep everything, in the file's
/// order.
/// @throws c10::Error if `count` is larger than the data set
inline Dataset subset(const Dataset& data, int64_t count, uint64_t seed) {
  TORCH_CHECK(count >= 0 && count <= data.size(), data.name, ": ", count,
              " images asked for, it holds ", data.size());
  if (count == 0 || count == data.size()) return data;
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
  const at::Tensor chosen =
      order.index_select(0, dealt.slice(0, 0, count)).to(data.images.device());
  return {data.name, data.images.index_select(0, chosen), data.labels.index_select(0, chosen),
          data.classes};
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

}  // namespace examples
