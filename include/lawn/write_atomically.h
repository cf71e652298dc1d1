// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <c10/util/Exception.h>

namespace lawn {

namespace detail::checkpoint {

/// A file descriptor that is closed in every case.
class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  ~FileDescriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return descriptor_; }
  /// Closes now; false if what was written could not be kept.
  bool close() { return ::close(std::exchange(descriptor_, -1)) == 0; }

 private:
  int descriptor_;
};

/// Writes all of `bytes` and has the disk take them, if `file` is on one (EINVAL: it is not).
/// Returns false with errno set if that fails.
inline bool write_through(FileDescriptor& file, const std::string& bytes) {
  const char* next = bytes.data();
  std::size_t left = bytes.size();
  while (left > 0) {
    const ssize_t written = ::write(file.get(), next, left);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    next += written;
    left -= static_cast<std::size_t>(written);
  }
  return (::fsync(file.get()) == 0 || errno == EINVAL) && file.close();
}

/// A name beside `path` that no other process or thread of this machine takes at the same time.
inline std::filesystem::path temporary_beside(const std::filesystem::path& path) {
  static std::atomic<unsigned> count{0};
  return path.string() + "." + std::to_string(::getpid()) + "-" + std::to_string(count++) + ".tmp";
}

}  // namespace detail::checkpoint

/// Puts `bytes` into the file at `path`. At every moment, also if the machine stops, the path holds
/// either the old contents or the new, whole: they go to a temporary file in the same folder, to
/// disk, and take over the name. Of two writers at once, the later one prevails.
/// @throws c10::Error if a step fails (a full disk); the file at `path` is then as before, and the
///         temporary is gone
inline void write_atomically(const std::filesystem::path& path, const std::string& bytes) {
  const std::filesystem::path temporary = detail::checkpoint::temporary_beside(path);
  std::filesystem::path folder = path.parent_path();
  if (folder.empty()) folder = ".";
  detail::checkpoint::FileDescriptor file(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  const bool opened = file.get() >= 0;
  if (opened && detail::checkpoint::write_through(file, bytes) &&
      std::rename(temporary.c_str(), path.c_str()) == 0) {
    // The new name itself is safe on disk once the folder is.
    const detail::checkpoint::FileDescriptor directory(
        ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() >= 0) ::fsync(directory.get());
    return;
  }
  const std::string reason = std::strerror(errno);
  if (opened) ::unlink(temporary.c_str());
  TORCH_CHECK(false, path.string(), ": ", bytes.size(), " bytes could not be written: ", reason,
              std::filesystem::exists(path) ? "; the file that was there is unchanged" : "");
}

}  // namespace lawn
