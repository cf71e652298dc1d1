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

/// The whole of a file.
/// @throws c10::Error that names the file, if it is missing or cannot be read
inline std::vector<uint8_t> read_file(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  TORCH_CHECK(!error, path.string(), ": cannot be read: ", error.message());
  std::vector<uint8_t> bytes(size);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  TORCH_CHECK(file, path.string(), ": cannot be read: ", std::strerror(errno));
  return bytes;
}

/// The whole of a gzipped file, unpacked.
/// @throws c10::Error if the file is missing, cut off or not in gzip format; without zlib always,
///         saying how to unpack it
inline std::vector<uint8_t> read_gzip_file(const std::filesystem::path& path) {
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
  TORCH_CHECK(false, path.string(),
              ": this program was built without zlib; unpack the file with\n  ", "gunzip --keep ",
              path.string());
  return {};  // not reached; gcc does not see that without optimisation
#endif
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
