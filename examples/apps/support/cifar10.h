// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "examples/apps/support/binary_file.h"
#include "examples/apps/support/dataset.h"

namespace examples {

/// CIFAR-10's binary layout: 10,000 records a file, each one byte of label and 3 x 32 x 32 bytes of
/// image (red, green, blue plane).
constexpr int64_t kCifarRecords = 10'000;
constexpr int64_t kCifarImageBytes = 3 * 32 * 32;

/// Reads one file of CIFAR-10.
/// @param records  how many the file must hold
/// @throws c10::Error that names the file if it is missing, too short, too long, or holds a label
///         above 9
inline Dataset read_cifar10_file(const std::filesystem::path& path,
                                 int64_t records = kCifarRecords) {
  const std::vector<uint8_t> bytes =
      read_exactly(path, static_cast<uint64_t>(records * (1 + kCifarImageBytes)),
                   std::to_string(records) + " records of " + std::to_string(1 + kCifarImageBytes));
  const at::Tensor rows = byte_tensor(bytes.data(), {records, 1 + kCifarImageBytes});
  Dataset data{path.string(), rows.slice(1, 1).reshape({records, 3, 32, 32}),
               rows.select(1, 0).to(at::kLong)};
  check_dataset(data);
  return data;
}

/// The folder that holds the files: `root` itself or its cifar-10-batches-bin.
/// @throws c10::Error that lists where it looked
inline std::filesystem::path find_cifar10(const std::filesystem::path& root) {
  const std::filesystem::path inner = root / "cifar-10-batches-bin";
  const bool at_root = std::filesystem::exists(root / "data_batch_1.bin");
  TORCH_CHECK(
      at_root || std::filesystem::exists(inner / "data_batch_1.bin"),
      "CIFAR-10: no data_batch_1.bin in ", root.string(), " nor in ", inner.string(),
      "; --root names the folder that holds CIFAR-10's binary version (*.bin), or its parent");
  return at_root ? root : inner;
}

/// CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in ten classes.
/// @source Krizhevsky 2009, "Learning multiple layers of features from tiny images"
inline Split load_cifar10(const std::filesystem::path& root) {
  const std::filesystem::path folder = find_cifar10(root);
  std::vector<at::Tensor> images;
  std::vector<at::Tensor> labels;
  for (int batch = 1; batch <= 5; ++batch) {
    Dataset part = read_cifar10_file(folder / ("data_batch_" + std::to_string(batch) + ".bin"));
    images.push_back(part.images);
    labels.push_back(part.labels);
  }
  Dataset test = read_cifar10_file(folder / "test_batch.bin");
  test.name = "CIFAR-10 test";
  return {{"CIFAR-10", at::cat(images), at::cat(labels)}, test};
}

}  // namespace examples
