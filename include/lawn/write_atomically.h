// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
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
  FileDescriptor(FileDescriptor&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;

  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

/// Whether `file` still has the name `path`, which another process may have given away since.
inline bool is_named(const FileDescriptor& file, const std::filesystem::path& path) {
  struct stat opened = {};
  struct stat named = {};
  return ::fstat(file.get(), &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/// Opens an empty file that no other writer has until it is closed; waits for one that does. What a
/// killed writer has left there is taken over. The descriptor is negative if that fails.
inline FileDescriptor open_alone(const std::filesystem::path& path) {
  for (;;) {
    FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    if (file.get() < 0) return file;
    while (::flock(file.get(), LOCK_EX) != 0 && errno == EINTR) {
    }
    if (!is_named(file, path)) continue;
    if (::ftruncate(file.get(), 0) != 0 && errno != EINVAL) return FileDescriptor(-1);
    return file;
  }
}

/// Writes all of `bytes` and has the disk take them, if `file` is on one (EINVAL: it is not).
/// Returns false with errno set if that fails.
inline bool write_through(const FileDescriptor& file, const std::string& bytes) {
  const char* next = bytes.data();
  std::size_t left = bytes.size();
  while (left > 0) {
    const ssize_t written = ::write(file.get(), next, left);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    next += written;
    left -= static_cast<std::size_t>(written);
  }
  return ::fsync(file.get()) == 0 || errno == EINVAL;
}

}  // namespace detail::checkpoint

/// Puts `bytes` into the file at `path`. At every moment, also if the machine stops, the path holds
/// either the old contents or the new, whole: they go to the file `path`.tmp, to disk, and take
/// over the name. Writers of one path wait for each other, in threads and in processes, except where
/// the file system has no flock.
/// @throws c10::Error if a step fails (a full disk, or a limit of the size of files, if the process
///         ignores SIGXFSZ); the file at `path` is then as before, and the temporary one is gone
inline void write_atomically(const std::filesystem::path& path, const std::string& bytes) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  std::filesystem::path folder = path.parent_path();
  if (folder.empty()) folder = ".";
  const auto file = detail::checkpoint::open_alone(temporary);
  const bool opened = file.get() >= 0;
  if (opened && detail::checkpoint::write_through(file, bytes) &&
      std::rename(temporary.c_str(), path.c_str()) == 0) {
    // The new name itself is safe on disk once the folder is.
    const detail::checkpoint::FileDescriptor directory(
        ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() >= 0) ::fsync(directory.get());
    return;
  }
  const int number = errno;
  if (opened) ::unlink(temporary.c_str());
  std::error_code error;
  TORCH_CHECK(false, path.string(), ": ", bytes.size(),
              " bytes could not be written: ", std::strerror(number),
              number == EFBIG ? " (a limit of this process, ulimit -f)" : "",
              std::filesystem::exists(path, error) ? "; the file that was there is unchanged" : "");
}

}  // namespace lawn
