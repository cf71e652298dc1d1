// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#ifdef LAWN_EXAMPLES_ZLIB
#include <zlib.h>
#endif

namespace examples {

/// Unpacks a file that begins as gzip's do.
/// @throws c10::Error if the file is cut off or damaged; without zlib always, saying how to unpack
///         the file
inline std::vector<uint8_t> unpack_file(const std::filesystem::path& path) {
#ifdef LAWN_EXAMPLES_ZLIB
  gzFile file = gzopen(path.c_str(), "rb");
  TORCH_CHECK(file, path.string(), ": cannot be read: ", std::strerror(errno));
  std::vector<uint8_t> bytes;
  constexpr unsigned kChunk = 1U << 20;
  int got = 0;
  do {
    const size_t old = bytes.size();
    bytes.resize(old + kChunk);
    got = gzread(file, bytes.data() + old, kChunk);
    bytes.resize(old + static_cast<size_t>(std::max(got, 0)));
  } while (got == static_cast<int>(kChunk));
  int code = Z_OK;
  const std::string message = gzerror(file, &code);
  const int closed = gzclose(file);
  TORCH_CHECK(got >= 0 && code == Z_OK && closed == Z_OK, path.string(),
              ": cannot be unpacked: ", message.empty() ? "the file is cut off" : message);
  return bytes;
#else
  const std::string name = path.string();
  TORCH_CHECK(
      false, name,
      ": the file is gzipped, and this program was built without zlib; build it where CMake "
      "finds zlib, or unpack the file with\n  ",
      path.extension() == ".gz" ? "gunzip --keep " + name
                                : "mv " + name + " " + name + ".gz && gunzip " + name + ".gz");
  return {};  // not reached; gcc does not see that without optimisation
#endif
}

/// The contents of a file, unpacked if it is gzipped. The first two bytes decide, not the name: a
/// gzipped file may lack .gz in its name, and an unpacked one may have it. No format that is read
/// here begins with these two bytes.
/// @throws c10::Error that names the file, if it is missing, cannot be read or not be unpacked
inline std::vector<uint8_t> read_file(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  TORCH_CHECK(!error, path.string(), ": cannot be read: ", error.message());
  std::vector<uint8_t> bytes(size);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  TORCH_CHECK(file, path.string(), ": cannot be read: ", std::strerror(errno));
  const bool gzipped = bytes.size() >= 2 && bytes[0] == 0x1F && bytes[1] == 0x8B;
  return gzipped ? unpack_file(path) : bytes;
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
