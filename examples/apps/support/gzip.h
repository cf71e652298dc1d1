// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#ifdef LAWN_EXAMPLES_ZLIB
#include <zlib.h>
#endif

namespace examples {

#ifdef LAWN_EXAMPLES_ZLIB

/// zlib's state while a gzip stream is unpacked.
class GzipStream {
 public:
  GzipStream() {
    constexpr int kGzip = 16;  // added to the window's size: a gzip header, and no other
    TORCH_CHECK(inflateInit2(&stream_, MAX_WBITS + kGzip) == Z_OK,
                "zlib: ", stream_.msg != nullptr ? stream_.msg : "no memory");
  }
  ~GzipStream() { inflateEnd(&stream_); }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  z_stream* operator->() { return &stream_; }
  z_stream* get() { return &stream_; }

 private:
  z_stream stream_ = {};
};

/// Unpacks the first `most` bytes of a file that begins as gzip's do, or all if there are fewer.
/// Several gzip streams one after the other are read as one, as gzip reads them.
/// @throws c10::Error that names the file, if it is cut off or damaged before these bytes end, or
///         goes on with anything but another gzip stream; without zlib always, saying how to unpack
///         the file
inline std::vector<uint8_t> unpack_file(const std::filesystem::path& path, uint64_t most) {
  constexpr uint64_t kChunk = uint64_t{1} << 16;
  std::ifstream file(path, std::ios::binary);
  GzipStream stream;
  std::vector<uint8_t> packed(kChunk);
  std::vector<uint8_t> bytes;
  bool between = false;  // one stream has ended, and the next has not begun
  while (bytes.size() < most) {
    if (stream->avail_in == 0) {
      file.read(reinterpret_cast<char*>(packed.data()), static_cast<std::streamsize>(kChunk));
      stream->next_in = packed.data();
      stream->avail_in = static_cast<unsigned>(file.gcount());
    }
    if (stream->avail_in == 0) {
      TORCH_CHECK(between, path.string(), ": cannot be unpacked: the file is cut off");
      return bytes;
    }
    if (between) {
      TORCH_CHECK(*stream->next_in == 0x1F, path.string(),
                  ": something else follows where what was gzipped ends; cut it off");
      inflateReset(stream.get());
    }
    const size_t old = bytes.size();
    bytes.resize(std::min(old + kChunk, most));
    stream->next_out = bytes.data() + old;
    stream->avail_out = static_cast<unsigned>(bytes.size() - old);
    const int code = inflate(stream.get(), Z_NO_FLUSH);
    bytes.resize(bytes.size() - stream->avail_out);
    between = code == Z_STREAM_END;
    TORCH_CHECK(between || code == Z_OK || code == Z_BUF_ERROR, path.string(),
                ": cannot be unpacked: ", stream->msg != nullptr ? stream->msg : "no memory");
  }
  return bytes;
}

#else

inline std::vector<uint8_t> unpack_file(const std::filesystem::path& path, uint64_t) {
  const std::string name = path.string();
  TORCH_CHECK(
      false, name,
      ": the file is gzipped, and this program was built without zlib; build it where CMake "
      "finds zlib, or unpack the file with\n  ",
      path.extension() == ".gz" ? "gunzip --keep " + name
                                : "mv " + name + " " + name + ".gz && gunzip " + name + ".gz");
  return {};  // not reached; gcc does not see that without optimisation
}

#endif

}  // namespace examples
