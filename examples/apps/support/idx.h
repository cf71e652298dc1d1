// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "examples/apps/support/binary_file.h"
#include "examples/apps/support/dataset.h"

namespace examples {

/// Reads an array of bytes in IDX format, plain or gzipped: two zero bytes, the element type (8 is
/// unsigned byte), the number of dimensions, each extent as big-endian 32-bit number, then the
/// elements in row-major order. The header is read first: it says how much there is to read.
/// @param dimensions  how many the array must have: 3 for images, 1 for labels
/// @throws c10::Error that names the file if it is missing, of another type or number of
///         dimensions, too short, too long or of more than kLargestFile bytes
/// @source LeCun, Cortes and Burges, "The MNIST database"
inline at::Tensor read_idx(const std::filesystem::path& path, int64_t dimensions) {
  const size_t header = 4 + 4 * static_cast<size_t>(dimensions);
  std::vector<uint8_t> bytes = read_beginning(path, header);
  TORCH_CHECK(bytes.size() >= 4, path.string(), ": too short for an IDX file: ", bytes.size(),
              " bytes");
  TORCH_CHECK(bytes[0] == 0 && bytes[1] == 0, path.string(),
              ": not an IDX file: expected it to begin with two zero bytes, got ", int{bytes[0]},
              " and ", int{bytes[1]});
  TORCH_CHECK(bytes[2] == 8, path.string(),
              ": expected elements of IDX type 8 (unsigned byte), got ", int{bytes[2]});
  TORCH_CHECK(bytes[3] == dimensions, path.string(), ": expected ", dimensions,
              " dimension(s), got ", int{bytes[3]}, "; are images and labels swapped?");
  TORCH_CHECK(bytes.size() >= header, path.string(), ": too short: the header is cut off");
  std::vector<int64_t> shape;
  uint64_t elements = 1;
  bool empty = false;
  for (size_t at = 4; at < header; at += 4) {
    const uint64_t extent = (uint64_t{bytes[at]} << 24) | (uint64_t{bytes[at + 1]} << 16) |
                            (uint64_t{bytes[at + 2]} << 8) | uint64_t{bytes[at + 3]};
    empty = empty || extent == 0;
    // An extent of zero counts as one: the strides of an empty tensor, too, must not overflow.
    const uint64_t factor = std::max<uint64_t>(extent, 1);
    TORCH_CHECK(elements <= kLargestFile / factor, path.string(),
                ": too large: the extents in its header tell of more than ", kLargestFile,
                " bytes, which is the most that is read; the file has ", size_on_disk(path));
    elements *= factor;
    shape.push_back(static_cast<int64_t>(extent));
  }
  bytes = read_exactly(path, header + (empty ? 0 : elements),
                       "a header and " + c10::str(c10::IntArrayRef(shape)) + " elements");
  return byte_tensor(bytes.data() + header, shape);
}

/// The first file in `root` of those that an array of MNIST's goes by: with - or . before "idx",
/// with or without .gz.
/// @param begin  "train-images"
/// @param end    "idx3-ubyte"
/// @throws c10::Error that lists the names if there is none
inline std::filesystem::path find_idx(const std::filesystem::path& root, const std::string& begin,
                                      const std::string& end) {
  std::string names;
  for (const char* zipped : {"", ".gz"}) {
    for (const char* joint : {"-", "."}) {
      const std::string name = begin + joint + end + zipped;
      // Some archives unpack into a folder of this name, beside the file of the other.
      if (std::filesystem::is_regular_file(root / name)) return root / name;
      names += (names.empty() ? "" : ", ") + name;
    }
  }
  TORCH_CHECK(false, "none of ", names, " is in ", root.string(),
              "; --root names the folder that holds the four IDX files");
  return {};  // not reached; gcc does not see that without optimisation
}

/// Images and labels of one half of MNIST's layout.
/// @param prefix  "train" or "t10k"
inline Dataset load_idx_half(const std::filesystem::path& root, const std::string& prefix,
                             const std::string& name) {
  const auto images_path = find_idx(root, prefix + "-images", "idx3-ubyte");
  const auto labels_path = find_idx(root, prefix + "-labels", "idx1-ubyte");
  Dataset data{images_path.string() + ", " + labels_path.string(),
               read_idx(images_path, 3).unsqueeze(1), read_idx(labels_path, 1).to(at::kLong)};
  check_dataset(data);
  TORCH_CHECK(data.images.size(2) == data.images.size(3), data.name,
              ": expected square images, got ", data.images.size(2), " x ", data.images.size(3));
  data.name = name;
  return data;
}

/// MNIST, or a data set in its layout such as Fashion-MNIST: 60,000 training and 10,000 test images
/// of 28 x 28 grey pixels in ten classes.
/// @throws c10::Error as read_idx() and check_dataset() do, and if the halves have images of two
///         sizes
inline Split load_mnist(const std::filesystem::path& root, const std::string& name) {
  Split data = {load_idx_half(root, "train", name), load_idx_half(root, "t10k", name + " test")};
  TORCH_CHECK(data.train.image_size() == data.test.image_size(), root.string(),
              ": expected images of one size, got ", data.train.image_size(),
              " pixels across in train-images and ", data.test.image_size(), " in t10k-images");
  return data;
}

}  // namespace examples
