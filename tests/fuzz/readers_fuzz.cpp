// SPDX-License-Identifier: Apache-2.0
//
//   fuzz_readers --reader=idx|cifar10|ratings|text|gzip [libFuzzer's options] [CORPUS]
//
// Gives bytes to one of the readers of data files. A reader either takes them, and then keeps what
// it promises, or refuses them by an error that names the file; anything else ends the program.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <string>

#include "examples/apps/support/cifar10.h"
#include "examples/apps/support/idx.h"
#include "examples/apps/support/movielens.h"
#include "examples/apps/support/text.h"

namespace {

/// The bytes of one input as a file in memory.
const int file = ::memfd_create("input", 0);
const std::filesystem::path path = "/proc/self/fd/" + std::to_string(file);

void require(bool holds, const std::string& what) {
  if (holds) return;
  std::cerr << "not as promised: " << what << '\n';
  std::abort();
}

void read_idx_of(int64_t dimensions) {
  const at::Tensor array = examples::read_idx(path, dimensions);
  require(array.dim() == dimensions && array.scalar_type() == at::kByte, "an array of bytes");
  if (dimensions != 3 || array.size(0) == 0) return;
  // Labels without memory of their own: images of no pixels may be many.
  const examples::Dataset data{path.string(), array.unsqueeze(1),
                               at::zeros({1}, at::kLong).expand({array.size(0)})};
  examples::check_dataset(data);
  require(data.images.numel() > 0, "images with pixels");
}

const std::map<std::string, std::function<void()>> kReaders = {
    {"idx",
     [] {
       uint8_t dimensions = 0;
       const bool given = ::pread(file, &dimensions, 1, 3) == 1;
       read_idx_of(given && dimensions == 1 ? 1 : 3);
     }},
    {"cifar10",
     [] {
       const examples::Dataset data = examples::read_cifar10_file(path, 2);
       require(data.size() == 2 && data.labels.max().item<int64_t>() < 10, "two labelled images");
     }},
    {"ratings",
     [] {
       const examples::Interactions data = examples::read_ratings(path, "\t", "ratings");
       require(data.items.max().item<int64_t>() + 1 == data.item_count, "items without gaps");
     }},
    {"text",
     [] {
       const examples::Text text = examples::load_text(path);
       require(text.size() == 0 || text.tokens.max().item<int64_t>() + 1 == text.vocabulary(),
               "characters that occur");
     }},
    {"gzip",
     [] {
       constexpr uint64_t kMost = 1 << 16;
       require(examples::read_file(path, kMost).size() <= kMost, "no more bytes than may be read");
     }},
};

std::function<void()> reader;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  const std::string flag = "--reader=";
  for (int index = 1; index < *count; ++index) {
    const std::string argument = (*arguments)[index];
    if (argument.compare(0, flag.size(), flag) == 0)
      reader = kReaders.at(argument.substr(flag.size()));
  }
  require(static_cast<bool>(reader) && file >= 0, "--reader=idx, cifar10, ratings, text or gzip");
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  require(::ftruncate(file, 0) == 0 && ::pwrite(file, bytes, size, 0) == static_cast<ssize_t>(size),
          "a file in memory");
  try {
    reader();
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    require(message.find(path.string()) != std::string::npos,
            "an error that names the file: " + message);
  }
  return 0;
}
