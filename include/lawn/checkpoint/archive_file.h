// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <locale>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <ATen/core/ivalue.h>
#include <c10/core/Device.h>
#include <c10/util/ConstexprCrc.h>
#include <c10/util/Exception.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

namespace lawn::detail::checkpoint {

/// Reads a whole file.
/// @throws c10::Error if it cannot be read
inline std::string read_whole(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  TORCH_CHECK(!error, path.string(), ": cannot be read: ", error.message());
  std::string bytes(static_cast<std::size_t>(size), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  TORCH_CHECK(file.good(), path.string(), ": cannot be read, or was cut off meanwhile");
  return bytes;
}

/// Text in front of the checksum, at the end of a file.
constexpr const char* kSeal = "lawn checkpoint, crc64 ";
/// Hexadecimal digits of the checksum.
constexpr std::size_t kDigits = 16;

/// What `archive` saves, as bytes.
inline std::string bytes_of(torch::serialize::OutputArchive& archive) {
  std::string bytes;
  archive.save_to([&bytes](const void* data, std::size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return size;
  });
  return bytes;
}

/// Reads an archive. Its tensors go to `device`, or each to where it was saved.
/// @throws c10::Error also for what LibTorch throws of other types: where names are such that an
///         archive, which is a TorchScript class, cannot be parsed
inline void read_bytes(const std::string& bytes, std::optional<at::Device> device,
                       torch::serialize::InputArchive& archive) {
  try {
    archive.load_from(bytes.data(), bytes.size(), device);
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    TORCH_CHECK(false, error.what());
  }
}

/// Has an archive read back what it holds. LibTorch's own functions write names that they do not
/// read: keywords of Python, quotes, backslashes, line breaks.
/// @throws c10::Error if that fails
inline void check_readable(const std::string& bytes) {
  torch::serialize::InputArchive archive;
  try {
    read_bytes(bytes, at::kCPU, archive);
  } catch (const c10::Error& error) {
    TORCH_CHECK(false,
                "lawn::Checkpoint: expected names with which LibTorch reads an archive back, got "
                "one that is a keyword of Python, as 'in' is, or holds a quote, a backslash or a "
                "line break; rename the entry, parameter, buffer or module. LibTorch says: ",
                error.what_without_backtrace());
  }
}

/// The checksum of the first `size` bytes, in hexadecimal.
inline std::string checksum(const std::string& bytes, std::size_t size) {
  std::ostringstream digits;
  digits.imbue(std::locale::classic());
  digits << std::hex << std::setfill('0') << std::setw(kDigits)
         << c10::util::crc64(bytes.data(), size).checksum();
  return digits.str();
}

/// Adds a checksum of everything before it to the bytes of an archive, as the comment at the end of
/// the zip file that an archive is. LibTorch's own functions, which check nothing, still read it.
inline void seal(std::string& bytes) {
  const std::size_t size = std::string(kSeal).size() + kDigits;
  TORCH_INTERNAL_ASSERT(bytes.size() > 2 && size < 256);
  bytes[bytes.size() - 2] = static_cast<char>(size);  // of the comment, which was 0
  bytes += kSeal;
  bytes += checksum(bytes, bytes.size());
}

/// @throws c10::Error for bytes that are not as `seal` left them
inline void check_seal(const std::filesystem::path& path, const std::string& bytes) {
  const std::string text = kSeal;
  const std::size_t size = text.size() + kDigits;
  TORCH_CHECK(bytes.size() > size && bytes.compare(bytes.size() - size, text.size(), text) == 0,
              path.string(), ": not a checkpoint, or cut off (", bytes.size(),
              " bytes): expected a file that lawn::Checkpoint saved; nothing was changed");
  const std::size_t before = bytes.size() - kDigits;
  TORCH_CHECK(bytes.compare(before, kDigits, checksum(bytes, before)) == 0, path.string(),
              ": damaged: the checksum is not that of its ", bytes.size(),
              " bytes; take an earlier checkpoint. Nothing was changed");
}

/// The archive of a sealed file, read onto the devices that are asked for.
class ArchiveFile {
 public:
  /// @throws c10::Error for a file that is missing, cut off or damaged
  explicit ArchiveFile(const std::filesystem::path& path) : path_(path) {
    std::error_code error;  // a name that is too long is none of a file either
    TORCH_CHECK(std::filesystem::is_regular_file(path, error), path.string(),
                ": there is no such checkpoint");
    bytes_ = read_whole(path);
    check_seal(path, bytes_);
  }

  /// The archive with its tensors on `device`, or each where it was saved. Each device is read
  /// once.
  torch::serialize::InputArchive& on(std::optional<at::Device> device) {
    for (auto& [where, archive] : archives_) {
      if (where == device) return *archive;
    }
    auto archive = std::make_unique<torch::serialize::InputArchive>();
    read_bytes(bytes_, device, *archive);
    archives_.emplace_back(device, std::move(archive));
    return *archives_.back().second;
  }

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::string bytes_;
  std::vector<std::pair<std::optional<at::Device>, std::unique_ptr<torch::serialize::InputArchive>>>
      archives_;
};

}  // namespace lawn::detail::checkpoint
