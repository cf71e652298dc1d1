// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <lawn/write_atomically.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

namespace examples {

/// The folder of a run's files, made if it is not there. While the object lives, no other run can
/// have the folder: they would replace each other's files. A file run.lock in it names the process.
/// It is gone with the object; what a killed process leaves of it does not hinder the next run.
class OutputFolder {
 public:
  /// @throws c10::Error if the folder cannot be made or written to, or if another run has it: with
  ///         its process and host
  explicit OutputFolder(const std::filesystem::path& folder)
      : folder_(folder.string()), path_(folder / "run.lock") {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    TORCH_CHECK(!error, "--out ", folder_, ": the folder cannot be made: ", error.message());
    do {
      file_.emplace(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
      check_written(file_->get() >= 0);
      lock();
    } while (!lawn::detail::checkpoint::is_named(*file_, path_));
    std::string host(HOST_NAME_MAX + 1, '\0');
    ::gethostname(host.data(), host.size() - 1);
    const std::string owner =
        "process " + std::to_string(::getpid()) + " on " + host.substr(0, host.find('\0'));
    const bool written =
        ::ftruncate(file_->get(), 0) == 0 &&
        ::write(file_->get(), owner.data(), owner.size()) == static_cast<ssize_t>(owner.size());
    const int reason = errno;
    if (!written) ::unlink(path_.c_str());
    errno = reason;
    check_written(written);
  }
  ~OutputFolder() { ::unlink(path_.c_str()); }  // the lock goes with the file's descriptor
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

 private:
  void check_written(bool written) const {
    TORCH_CHECK(written, "--out ", folder_, ": cannot be written to: ", std::strerror(errno),
                "; name another folder");
  }

  void lock() {
    if (::flock(file_->get(), LOCK_EX | LOCK_NB) == 0) return;
    const int reason = errno;
    if (reason != EWOULDBLOCK) {  // there are network file systems without locks
      TORCH_WARN("--out ", folder_, ": cannot be locked: ", std::strerror(reason),
                 "; see to it that no other run has this folder");
      return;
    }
    std::array<char, 512> owner = {};
    if (::read(file_->get(), owner.data(), owner.size() - 1) <= 0) owner = {"a process"};
    TORCH_CHECK(false, "--out ", folder_, ": another run has this folder: ", owner.data(),
                "; wait for its end, or name another folder");
  }

  std::string folder_;
  std::filesystem::path path_;
  std::optional<lawn::detail::checkpoint::FileDescriptor> file_;
};

}  // namespace examples
