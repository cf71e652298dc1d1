// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>
#include <dirent.h>
#include <ftw.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>

/// A new, empty folder that is gone, with all in it, when the object is.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = "/tmp/lawn_test_XXXXXX";
    TORCH_CHECK(::mkdtemp(name.data()), "no temporary folder could be made");
    path_ = name;
  }
  ~TemporaryFolder() {
    // Not std::filesystem::remove_all: LibTorch's wheel exports one of its own, which jumps to 0.
    ::nftw(
        path_.c_str(),
        [](const char* path, const struct stat*, int, FTW*) { return std::remove(path); }, 16,
        FTW_DEPTH | FTW_PHYS);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

  /// Number of files and folders directly in it.
  size_t entries() const {
    size_t count = 0;
    DIR* folder = ::opendir(path_.c_str());
    while (const dirent* entry = ::readdir(folder)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") ++count;
    }
    ::closedir(folder);
    return count;
  }

 private:
  std::filesystem::path path_;
};
