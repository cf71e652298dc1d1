// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "examples/apps/support/gzip.h"

namespace examples {

/// The most bytes that are read of a file, unpacked: all of them are kept in memory.
constexpr uint64_t kLargestFile = uint64_t{1} << 30;

/// Number of bytes of a file, packed if it is gzipped. Nothing is read.
/// @throws c10::Error that names the file, if it is missing or not a regular file
inline uint64_t size_on_disk(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  TORCH_CHECK(!error, path.string(), ": cannot be read: ", error.message());
  return size;
}

/// Reads bytes from the beginning of a file as they are there.
inline void read_bytes(const std::filesystem::path& path, uint8_t* bytes, uint64_t count) {
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes), static_cast<std::streamsize>(count));
  TORCH_CHECK(file, path.string(), ": cannot be read: ", std::strerror(errno));
}

/// Whether a file is gzipped. Its first two bytes decide: a gzipped file may lack .gz in its name.
/// No format that is read here begins with these two bytes.
/// @throws c10::Error if the name ends in .gz and the file is not gzipped: it is damaged, and might
///         be taken for a text, or somebody unpacked it and kept the name
inline bool is_gzipped(const std::filesystem::path& path) {
  std::array<uint8_t, 2> first = {};
  if (size_on_disk(path) >= first.size()) read_bytes(path, first.data(), first.size());
  const bool gzipped = first[0] == 0x1F && first[1] == 0x8B;
  TORCH_CHECK(gzipped || path.extension() != ".gz", path.string(),
              ": is not gzipped, as its name says; if it is unpacked already, rename it to ",
              path.stem().string());
  return gzipped;
}

/// The first `most` bytes of what a file holds, unpacked if it is gzipped; all if there are fewer.
/// @throws c10::Error that names the file, if it is missing, cannot be read or not be unpacked
inline std::vector<uint8_t> read_beginning(const std::filesystem::path& path, uint64_t most) {
  if (is_gzipped(path)) return unpack_file(path, most);
  std::vector<uint8_t> bytes(std::min(size_on_disk(path), most));
  read_bytes(path, bytes.data(), bytes.size());
  return bytes;
}

/// What a file holds, unpacked if it is gzipped.
/// @param most  bytes that it may hold
/// @throws c10::Error as read_beginning() does, and for a larger file before it is read
inline std::vector<uint8_t> read_file(const std::filesystem::path& path,
                                      uint64_t most = kLargestFile) {
  const uint64_t size = size_on_disk(path);
  TORCH_CHECK(size <= most, path.string(), ": too large: expected at most ", most, " bytes, got ",
              size, "; all of them would be kept in memory");
  std::vector<uint8_t> bytes = read_beginning(path, most + 1);
  TORCH_CHECK(bytes.size() <= most, path.string(), ": too large: expected at most ", most,
              " bytes, got ", size, " that unpack to more; all of them would be kept in memory");
  return bytes;
}

/// What a file holds that must hold `expected` bytes, unpacked if it is gzipped.
/// @param what  these bytes are, for the message
/// @throws c10::Error as read_beginning() does, and for a file of another size: a plain one is not
///         read, of a gzipped one no more than `expected` bytes and one are unpacked
inline std::vector<uint8_t> read_exactly(const std::filesystem::path& path, uint64_t expected,
                                         const std::string& what) {
  const bool gzipped = is_gzipped(path);
  uint64_t size = size_on_disk(path);
  std::vector<uint8_t> bytes;
  if (gzipped || size == expected) {
    bytes = read_beginning(path, expected + 1);
    size = bytes.size();
  }
  TORCH_CHECK(size == expected, path.string(), ": ", size < expected ? "too short" : "too long",
              ": expected ", expected, " bytes (", what, "), got ",
              gzipped && size > expected ? "more" : std::to_string(size));
  return bytes;
}

/// Copies bytes into a uint8 tensor of the given shape, which must hold just as many.
inline at::Tensor byte_tensor(const uint8_t* bytes, at::IntArrayRef shape) {
  at::Tensor tensor = at::empty(shape, at::kByte);
  if (tensor.nbytes() > 0) {  // an empty tensor may have no address
    std::memcpy(tensor.mutable_data_ptr<uint8_t>(), bytes, tensor.nbytes());
  }
  return tensor;
}

}  // namespace examples
