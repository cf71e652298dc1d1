// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "examples/apps/support/cifar10.h"
#include "examples/apps/support/generated.h"
#include "examples/apps/support/idx.h"
#include "tests/support/contents.h"
#include "tests/support/refusal.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tolerance.h"

namespace {

namespace fs = std::filesystem;
using lawn::testing::refusal;
using lawn::testing::tolerance;

/// A folder of its own for each test.
class DataTest : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }

  TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string cifar_record(char label, char first_byte) {
  std::string record(1, label);
  for (int64_t index = 0; index < examples::kCifarImageBytes; ++index) {
    record += static_cast<char>(first_byte + static_cast<char>(index % 50));
  }
  return record;
}

std::string big_endian(uint32_t value) {
  std::string bytes;
  for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>((value >> shift) & 0xFFU);
  return bytes;
}

/// An IDX file of bytes 0, 1, 2, ... (modulo `modulus`).
std::string idx_file(const std::vector<uint32_t>& shape, int modulus = 256) {
  std::string bytes = {0, 0, 8, static_cast<char>(shape.size())};
  size_t elements = 1;
  for (const uint32_t extent : shape) {
    bytes += big_endian(extent);
    elements *= extent;
  }
  for (size_t index = 0; index < elements; ++index) {
    bytes += static_cast<char>(index % static_cast<size_t>(modulus));
  }
  return bytes;
}

using Cifar10 = DataTest;
using Idx = DataTest;

TEST_F(Cifar10, ReadsLabelsAndPlanesOfEachRecord) {
  const auto path = write("batch.bin", cifar_record(3, 0) + cifar_record(9, 100));
  const examples::Dataset data = examples::read_cifar10_file(path, 2);
  EXPECT_EQ(data.images.sizes(), (std::vector<int64_t>{2, 3, 32, 32}));
  EXPECT_TRUE(torch::equal(data.labels, torch::tensor({3, 9}, torch::kLong)));
  EXPECT_EQ(data.images[0][0][0][7].item<int>(), 7);
  EXPECT_EQ(data.images[0][1][0][0].item<int>(), 1024 % 50);  // green follows 1,024 bytes of red
  EXPECT_EQ(data.images[1][0][1][0].item<int>(), 100 + 32);
}

TEST_F(Cifar10, FindsTheFolderItselfAndItsParent) {
  fs::create_directories(folder_ / "cifar-10-batches-bin");
  std::ofstream(folder_ / "cifar-10-batches-bin" / "data_batch_1.bin") << "x";
  EXPECT_EQ(examples::find_cifar10(folder_), folder_ / "cifar-10-batches-bin");
  EXPECT_EQ(examples::find_cifar10(folder_ / "cifar-10-batches-bin"),
            folder_ / "cifar-10-batches-bin");
}

TEST_F(Cifar10, RefusesAWrongRootAndSaysWhereItLooked) {
  const std::string text = refusal([&] { examples::load_cifar10(folder_ / "nowhere"); });
  EXPECT_TRUE(contains(text, "no data_batch_1.bin in " + (folder_ / "nowhere").string())) << text;
  EXPECT_TRUE(contains(text, "cifar-10-batches-bin")) << text;
  EXPECT_TRUE(contains(text, "--root names the folder")) << text;
}

TEST_F(Cifar10, RefusesAMissingFile) {
  write("data_batch_1.bin", std::string(30'730'000, '\0'));
  const std::string text = refusal([&] { examples::load_cifar10(folder_); });
  EXPECT_TRUE(contains(text, "data_batch_2.bin: cannot be read: No such file")) << text;
}

TEST_F(Cifar10, RefusesAShortAndALongFile) {
  const auto cut = write("short.bin", cifar_record(3, 0).substr(0, 3000));
  EXPECT_TRUE(contains(refusal([&] { examples::read_cifar10_file(cut, 1); }),
                       "short.bin: too short: expected 3073 bytes (1 records of 3073), got 3000"));
  const auto grown = write("long.bin", cifar_record(3, 0) + "x");
  EXPECT_TRUE(contains(refusal([&] { examples::read_cifar10_file(grown, 1); }),
                       "long.bin: too long: expected 3073 bytes (1 records of 3073), got 3074"));
}

TEST_F(Cifar10, RefusesALabelOutOfRange) {
  const auto path = write("batch.bin", cifar_record(3, 0) + cifar_record(10, 0));
  EXPECT_TRUE(contains(refusal([&] { examples::read_cifar10_file(path, 2); }),
                       "batch.bin: label 10 of image 1 is out of range; expected 0 to 9"));
}

TEST_F(Cifar10, RefusesAFolderInPlaceOfAFile) {
  fs::create_directories(folder_ / "batch.bin");
  EXPECT_TRUE(contains(refusal([&] { examples::read_cifar10_file(folder_ / "batch.bin", 1); }),
                       "batch.bin: cannot be read"));
}

TEST_F(Cifar10, RefusesASparseFileBeforeItReadsIt) {
  const auto path = write("batch.bin", cifar_record(3, 0));
  fs::resize_file(path, 100'000'000'000);
  EXPECT_TRUE(contains(refusal([&] { examples::read_cifar10_file(path, 1); }),
                       "batch.bin: too long: expected 3073 bytes (1 records of 3073), got "
                       "100000000000"));
}

TEST_F(Idx, ReadsShapeAndBytes) {
  const at::Tensor array = examples::read_idx(write("images", idx_file({2, 3, 4})), 3);
  EXPECT_TRUE(torch::equal(array, torch::arange(24, torch::kByte).view({2, 3, 4})));
}

TEST_F(Idx, LoadsBothHalvesWithAChannelDimension) {
  write("train-images-idx3-ubyte", idx_file({20, 28, 28}));
  write("train-labels-idx1-ubyte", idx_file({20}, 10));
  write("t10k-images-idx3-ubyte", idx_file({10, 28, 28}));
  write("t10k-labels-idx1-ubyte", idx_file({10}, 10));
  const examples::Split data = examples::load_mnist(folder_, "MNIST");
  EXPECT_EQ(data.train.images.sizes(), (std::vector<int64_t>{20, 1, 28, 28}));
  EXPECT_EQ(data.train.labels.scalar_type(), torch::kLong);
  EXPECT_EQ(data.test.size(), 10);
  EXPECT_EQ(data.train.name, "MNIST");
}

TEST_F(Idx, LoadsFilesWithADotBeforeIdx) {
  write("train-images.idx3-ubyte", idx_file({20, 28, 28}));
  write("train-labels.idx1-ubyte", idx_file({20}, 10));
  write("t10k-images.idx3-ubyte", idx_file({10, 28, 28}));
  write("t10k-labels-idx1-ubyte", idx_file({10}, 10));  // each file goes by a name of its own
  const examples::Split data = examples::load_mnist(folder_, "MNIST");
  EXPECT_EQ(data.train.size(), 20);
  EXPECT_EQ(data.test.size(), 10);
}

TEST_F(Idx, FindsAFileUnderEachOfItsNamesAndPassesOverFolders) {
  const std::vector<std::string> names = {"train-images.idx3-ubyte.gz",
                                          "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte",
                                          "train-images-idx3-ubyte"};  // the last comes first
  for (const std::string& name : names) {
    fs::create_directories(folder_ / name);
  }
  for (const std::string& name : names) {
    fs::remove(folder_ / name);
    write(name, idx_file({1}));
    EXPECT_EQ(examples::find_idx(folder_, "train-images", "idx3-ubyte"), folder_ / name);
  }
}

TEST_F(Idx, RefusesMissingFilesAndNamesEachSpelling) {
  EXPECT_EQ(refusal([&] { examples::load_mnist(folder_, "MNIST"); }),
            "none of train-images-idx3-ubyte, train-images.idx3-ubyte, "
            "train-images-idx3-ubyte.gz, train-images.idx3-ubyte.gz is in " +
                folder_.string() + "; --root names the folder that holds the four IDX files");
}

TEST_F(Idx, RefusesAPlainFileThatIsNamedAsAGzippedOne) {
  EXPECT_TRUE(contains(refusal([&] {
                         examples::read_idx(write("images.gz", idx_file({2, 3, 4})), 3);
                       }),
                       "images.gz: is not gzipped, as its name says; if it is unpacked already, "
                       "rename it to images"));
}

TEST_F(Idx, RefusesAFileThatIsNotIdx) {
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("a", "PK\x03\x04zip"), 1); }),
                       "not an IDX file: expected it to begin with two zero bytes, got 80 and 75"));
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("b", "ab"), 1); }),
                       "too short for an IDX file: 2 bytes"));
}

TEST_F(Idx, RefusesAnotherElementType) {
  std::string bytes = idx_file({4});
  bytes[2] = 0x0D;  // float
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("a", bytes), 1); }),
                       "expected elements of IDX type 8 (unsigned byte), got 13"));
}

TEST_F(Idx, RefusesImagesInPlaceOfLabels) {
  EXPECT_TRUE(contains(refusal([&] {
                         examples::read_idx(write("a", idx_file({2, 2, 2})), 1);
                       }),
                       "expected 1 dimension(s), got 3; are images and labels swapped?"));
}

TEST_F(Idx, RefusesAShortAndALongFile) {
  const std::string whole = idx_file({2, 3, 4});
  EXPECT_TRUE(contains(
      refusal([&] { examples::read_idx(write("a", whole.substr(0, whole.size() - 5)), 3); }),
      "a: too short: expected 40 bytes (a header and [2, 3, 4] elements), got 35"));
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("b", whole + "xy"), 3); }),
                       "b: too long: expected 40 bytes (a header and [2, 3, 4] elements), got 42"));
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("c", whole.substr(0, 9)), 3); }),
                       "c: too short: the header is cut off"));
}

TEST_F(Idx, RefusesExtentsWhoseProductOverflows) {
  const std::string bytes = std::string("\0\0\x08\x03", 4) + big_endian(0xFFFFFFFFU) +
                            big_endian(0xFFFFFFFFU) + big_endian(0xFFFFFFFFU);
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("a", bytes), 3); }),
                       "a: too large: the extents in its header tell of more than 1073741824 "
                       "bytes, which is the most that is read; the file has 16"));
}

TEST_F(Idx, RefusesEmptyExtentsBesideOnesWhoseProductOverflows) {
  for (const size_t place : {size_t{0}, size_t{1}, size_t{2}}) {
    std::string bytes("\0\0\x08\x03", 4);
    for (size_t axis = 0; axis < 3; ++axis) bytes += big_endian(axis == place ? 0 : 0xFFFFFFFFU);
    EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("a", bytes), 3); }),
                         "a: too large: the extents in its header tell of more than"))
        << place;
  }
}

TEST_F(Idx, RefusesASparseFileBeforeItReadsItWhateverItsHeaderSays) {
  const auto path = write("images", idx_file({2, 3, 4}));
  fs::resize_file(path, 100'000'000'000);
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(path, 3); }),
                       "images: too long: expected 40 bytes (a header and [2, 3, 4] elements), got "
                       "100000000000"));
  // With a header that fits the file.
  write("images", std::string("\0\0\x08\x03", 4) + big_endian(1'724'137'931) + big_endian(29) +
                      big_endian(2));
  fs::resize_file(path, 16 + uint64_t{1'724'137'931} * 58);
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(path, 3); }),
                       "images: too large: the extents in its header tell of more than 1073741824 "
                       "bytes, which is the most that is read; the file has 100000000014"));
}

TEST_F(Idx, RefusesImagesOfNoPixels) {
  write("train-images-idx3-ubyte", idx_file({20, 0, 0}));
  write("train-labels-idx1-ubyte", idx_file({20}, 10));
  EXPECT_TRUE(contains(refusal([&] { examples::load_idx_half(folder_, "train", "MNIST"); }),
                       "train-labels-idx1-ubyte: images of no pixels: expected at least 1, got "
                       "[1, 0, 0]"));
}

TEST_F(Idx, RefusesHalvesWithImagesOfTwoSizes) {
  write("train-images-idx3-ubyte", idx_file({20, 28, 28}));
  write("train-labels-idx1-ubyte", idx_file({20}, 10));
  write("t10k-images-idx3-ubyte", idx_file({10, 14, 14}));
  write("t10k-labels-idx1-ubyte", idx_file({10}, 10));
  EXPECT_TRUE(contains(refusal([&] { examples::load_mnist(folder_, "MNIST"); }),
                       folder_.string() + ": expected images of one size, got 28 pixels across in "
                                          "train-images and 14 in t10k-images"));
}

TEST_F(Idx, RefusesAnotherNumberOfLabelsThanImages) {
  write("train-images-idx3-ubyte", idx_file({20, 28, 28}));
  write("train-labels-idx1-ubyte", idx_file({19}, 10));
  EXPECT_TRUE(contains(refusal([&] { examples::load_idx_half(folder_, "train", "MNIST"); }),
                       "20 images, but 19 labels"));
}

TEST_F(Idx, RefusesALabelOutOfRange) {
  write("train-images-idx3-ubyte", idx_file({20, 28, 28}));
  write("train-labels-idx1-ubyte", idx_file({20}, 12));
  EXPECT_TRUE(contains(refusal([&] { examples::load_idx_half(folder_, "train", "MNIST"); }),
                       "label 10 of image 10 is out of range; expected 0 to 9"));
}

TEST_F(Idx, RefusesAnEmptyDataSet) {
  write("train-images-idx3-ubyte", idx_file({0, 28, 28}));
  write("train-labels-idx1-ubyte", idx_file({0}));
  EXPECT_TRUE(contains(refusal([&] { examples::load_idx_half(folder_, "train", "MNIST"); }),
                       "holds no images"));
}

#ifdef LAWN_EXAMPLES_ZLIB

void write_gzipped(const fs::path& path, const std::string& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())),
            static_cast<int>(bytes.size()));
  gzclose(file);
}

TEST_F(Idx, ReadsAGzippedFileWhateverItsName) {
  for (const char* name : {"images.gz", "train-images-idx3-ubyte"}) {
    write_gzipped(folder_ / name, idx_file({2, 3, 4}));
    const at::Tensor array = examples::read_idx(folder_ / name, 3);
    EXPECT_TRUE(torch::equal(array, torch::arange(24, torch::kByte).view({2, 3, 4})));
  }
}

TEST_F(Cifar10, ReadsAGzippedFile) {
  write_gzipped(folder_ / "batch.bin", cifar_record(3, 0) + cifar_record(9, 100));
  const examples::Dataset data = examples::read_cifar10_file(folder_ / "batch.bin", 2);
  EXPECT_TRUE(torch::equal(data.labels, torch::tensor({3, 9}, torch::kLong)));
}

TEST_F(Idx, RefusesAGzippedFileThatIsCutOff) {
  write_gzipped(folder_ / "images", idx_file({200, 28, 28}));
  const auto whole = fs::file_size(folder_ / "images");
  for (const auto size : {whole - 1, whole / 2, decltype(whole){2}}) {
    fs::resize_file(folder_ / "images", size);
    EXPECT_TRUE(contains(refusal([&] { examples::read_idx(folder_ / "images", 3); }),
                         "images: cannot be unpacked: "))
        << size;
  }
}

std::string gzipped(const fs::path& path, const std::string& bytes) {
  write_gzipped(path, bytes);
  return lawn::testing::contents(path);
}

TEST_F(Idx, UnpacksNoMoreThanTheHeaderTellsOf) {
  const auto path = folder_ / "images";
  write_gzipped(path, idx_file({2, 3, 4}) + std::string(50'000'000, '\0'));
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(path, 3); }),
                       "images: too long: expected 40 bytes (a header and [2, 3, 4] elements), got "
                       "more"));
  EXPECT_EQ(examples::unpack_file(path, 41).capacity(), 41U);
  write_gzipped(path, idx_file({2, 3, 4}).substr(0, 35));
  EXPECT_TRUE(
      contains(refusal([&] { examples::read_idx(path, 3); }),
               "images: too short: expected 40 bytes (a header and [2, 3, 4] elements), got "
               "35"));
}

TEST_F(Idx, IsRefusedWhereItUnpacksToMoreThanMayBeRead) {
  write_gzipped(folder_ / "text", std::string(5000, 'x'));
  EXPECT_EQ(examples::read_file(folder_ / "text", 5000).size(), 5000U);
  const auto packed = std::to_string(fs::file_size(folder_ / "text"));
  EXPECT_EQ(refusal([&] { examples::read_file(folder_ / "text", 4999); }),
            (folder_ / "text").string() + ": too large: expected at most 4999 bytes, got " +
                packed + " that unpack to more; all of them would be kept in memory");
}

TEST_F(Idx, ReadsSeveralGzipStreamsAsOneAndRefusesGarbageAfterThem) {
  const std::string whole = idx_file({2, 3, 4});
  const std::string both =
      gzipped(folder_ / "a", whole.substr(0, 20)) + gzipped(folder_ / "a", whole.substr(20));
  EXPECT_TRUE(torch::equal(examples::read_idx(write("images", both), 3),
                           torch::arange(24, torch::kByte).view({2, 3, 4})));
  for (const std::string& garbage : {std::string("x"), std::string(1, '\0'), whole}) {
    EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("images", both + garbage), 3); }),
                         "images: something else follows where what was gzipped ends"))
        << garbage;
  }
  const auto refused = [&](const std::string& more) {
    return refusal([&] { examples::read_idx(write("images", both + more), 3); });
  };
  EXPECT_TRUE(contains(refused("\x1f\x8b"), "images: cannot be unpacked: the file is cut off"));
  EXPECT_TRUE(contains(refused("\x1f\x8b\x07 and so on"),
                       "images: cannot be unpacked: unknown compression method"));
}

TEST_F(Idx, RefusesAGzippedFileInWhichABitHasFlipped) {
  std::string bytes = gzipped(folder_ / "images", idx_file({2, 3, 4}));
  bytes[bytes.size() - 7] ^= 1;  // in the checksum
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(write("images", bytes), 3); }),
                       "images: cannot be unpacked: incorrect data check"));
}

#else

TEST_F(Idx, SaysWhatIsMissingAndHowToUnpackAGzippedFileWithoutZlib) {
  const auto named = write("images.gz", "\x1f\x8b");
  EXPECT_EQ(refusal([&] { examples::read_idx(named, 3); }),
            named.string() +
                ": the file is gzipped, and this program was built without zlib; build it where "
                "CMake finds zlib, or unpack the file with\n  gunzip --keep " +
                named.string());
  const auto unnamed = write("images", "\x1f\x8b").string();
  EXPECT_TRUE(contains(refusal([&] { examples::read_idx(unnamed, 3); }),
                       "unpack the file with\n  mv " + unnamed + " " + unnamed + ".gz && gunzip " +
                           unnamed + ".gz"));
}

#endif

examples::Dataset numbered(int64_t count) {
  return {"numbers", torch::arange(count, torch::kByte).view({count, 1, 1, 1}),
          torch::arange(count, torch::kLong) % 4, 4};
}

TEST(Subset, HoldsEachClassInEqualShare) {
  const examples::Dataset part = examples::subset(numbered(100), 40, 7);
  EXPECT_EQ(part.size(), 40);
  for (int64_t label = 0; label < 4; ++label) {
    EXPECT_EQ(part.labels.eq(label).sum().item<int64_t>(), 10);
  }
  EXPECT_EQ(std::get<0>(torch::_unique(part.images)).numel(), 40);  // no image twice
  EXPECT_TRUE(torch::equal(part.images.view(-1) % 4, part.labels.to(torch::kByte)));
}

TEST(Subset, DependsOnTheSeedAlone) {
  const auto images = [](int64_t count, uint64_t seed) {
    return examples::subset(numbered(100), count, seed).images;
  };
  EXPECT_TRUE(torch::equal(images(40, 7), images(40, 7)));
  EXPECT_FALSE(torch::equal(images(40, 7), images(40, 8)));
  EXPECT_TRUE(torch::equal(images(40, 7).slice(0, 0, 20), images(20, 7)));  // smaller ones nest
}

TEST(Subset, KeepsAllWithoutACountAndRefusesTooMany) {
  EXPECT_TRUE(torch::equal(examples::subset(numbered(100), 0, 7).images, numbered(100).images));
  EXPECT_TRUE(contains(refusal([] { examples::subset(numbered(100), 101, 7); }),
                       "numbers: 101 images asked for, it holds 100"));
}

/// How many images of `a` are in `b`, too, by their bytes.
int64_t shared(const examples::Dataset& a, const examples::Dataset& b) {
  std::set<uint64_t> known;
  for (int64_t index = 0; index < a.size(); ++index) {
    known.insert(examples::fingerprint({a.images[index]}));
  }
  int64_t count = 0;
  for (int64_t index = 0; index < b.size(); ++index) {
    count += static_cast<int64_t>(known.count(examples::fingerprint({b.images[index]})));
  }
  return count;
}

TEST(HoldOut, TrainsOnTheSameSubsetAsARunOnTestImagesAndTestsOnOthers) {
  const examples::Dataset data = examples::generate_images({}).train;
  const examples::Split split = examples::hold_out(data, 300, 200, 7);
  const examples::Dataset trained = examples::subset(data, 300, 7);
  EXPECT_TRUE(torch::equal(split.train.images, trained.images));
  EXPECT_TRUE(torch::equal(split.train.labels, trained.labels));
  EXPECT_EQ(split.test.size(), 200);
  EXPECT_EQ(shared(split.train, split.test), 0);
  EXPECT_EQ(shared(data, split.test), 200);
  EXPECT_TRUE(torch::equal(split.test.labels.bincount(), torch::full({10}, 20, torch::kLong)));
}

TEST(HoldOut, TrainsOnAllTheRestWithoutACount) {
  const examples::Dataset data = examples::generate_images({}).train;
  const examples::Split split = examples::hold_out(data, 0, 200, 7);
  EXPECT_EQ(split.train.size(), data.size() - 200);
  EXPECT_EQ(shared(split.train, split.test), 0);
}

TEST(HoldOut, RefusesMoreThanThereIs) {
  const examples::Dataset data = examples::generate_images({}).train;  // 1,000
  EXPECT_TRUE(contains(refusal([&] { examples::hold_out(data, 900, 200, 0); }),
                       ": 200 images to hold out beside 900 to train on asked for, it holds 1000"));
  EXPECT_TRUE(contains(refusal([&] { examples::hold_out(data, 0, 1000, 0); }),
                       ": 1000 images to hold out asked for, it holds 1000; train on fewer"));
}

TEST(GeneratedImages, AreEqualForEqualSeeds) {
  examples::GeneratedOptions options;
  options.train_size = 30;
  options.test_size = 20;
  const auto first = examples::generate_images(options);
  const auto again = examples::generate_images(options);
  EXPECT_TRUE(torch::equal(first.train.images, again.train.images));
  EXPECT_TRUE(torch::equal(first.test.labels, again.test.labels));
  options.seed = 1;
  EXPECT_FALSE(torch::equal(first.train.images, examples::generate_images(options).train.images));
}

TEST(GeneratedImages, ThatAreHeldOutAreNeitherTrainingNorTestImages) {
  examples::GeneratedOptions options;
  options.train_size = 1000;  // images are drawn in chunks of 500
  options.test_size = 500;
  const auto split = examples::generate_images(options);
  const auto held_out = examples::generate_images(options, 500);
  EXPECT_TRUE(torch::equal(held_out.train.images, split.train.images));
  EXPECT_EQ(held_out.test.size(), 500);
  const auto seen = torch::cat({split.train.images, split.test.images}).flatten(1);
  for (int64_t image = 0; image < 500; image += 50) {
    const auto one = held_out.test.images[image].flatten();
    EXPECT_FALSE(seen.eq(one).all(1).any().item<bool>()) << image;
  }
}

TEST(GeneratedImages, HaveTheShapeThatWasAskedFor) {
  examples::GeneratedOptions options;
  options.train_size = 30;
  options.test_size = 20;
  options.channels = 1;
  options.image_size = 28;
  const auto data = examples::generate_images(options);
  EXPECT_EQ(data.train.images.sizes(), (std::vector<int64_t>{30, 1, 28, 28}));
  EXPECT_EQ(data.test.size(), 20);
  examples::check_dataset(data.train);
}

TEST(GeneratedImages, OverlapSoThatTheBestAccuracyIsOneHalfPlusHalfOfLogTwo) {
  // The best guess from m itself is the likelier of the two classes.
  const at::Tensor m = torch::linspace(0, 1, 100'001, torch::kDouble);
  const at::Tensor first = examples::ImageGenerator::probability_of_first(m);
  const double best = torch::maximum(first, 1 - first).mean().item<double>();
  EXPECT_NEAR(best, 0.5 + 0.5 * std::log(2.0), tolerance(torch::kFloat).step);
}

TEST(GeneratedImages, FillTheRangeOfAByteWithoutSaturating) {
  examples::GeneratedOptions options;
  options.train_size = 200;
  options.test_size = 1;
  const at::Tensor images = examples::generate_images(options).train.images;
  const auto share = [&](int value) {
    return images.eq(value).to(torch::kDouble).mean().item<double>();
  };
  EXPECT_LT(share(0) + share(255), 0.05);
  EXPECT_GT(images.to(torch::kDouble).std().item<double>(), 30);
}

TEST(GeneratedImages, AreRefusedForAbsurdOptions) {
  examples::GeneratedOptions options;
  options.classes = 1;
  EXPECT_TRUE(contains(refusal([&] { examples::generate_images(options); }),
                       "expected at least 2 classes, got 1"));
  options.classes = 10;
  options.train_size = 0;
  EXPECT_TRUE(contains(refusal([&] { examples::generate_images(options); }),
                       "sizes must be > 0, got 0 and 2000"));
}

}  // namespace
