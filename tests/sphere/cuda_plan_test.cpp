// SPDX-License-Identifier: Apache-2.0
//
// Which block of the CUDA kernels does what: host code, for sizes that no test could run.

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include <lawn/sphere/cuda/plan.h>

namespace {

using lawn::sphere::Dtype;
using lawn::sphere::Flat;
using lawn::sphere::cuda::kFewLayers;
using lawn::sphere::cuda::kManyLayers;
using lawn::sphere::cuda::kMaxSettings;
using lawn::sphere::cuda::LayerList;
using lawn::sphere::cuda::Limits;
using lawn::sphere::cuda::ListFiller;
using lawn::sphere::cuda::Needs;
using lawn::sphere::cuda::Partition;
using lawn::sphere::cuda::partition_of;
using lawn::sphere::cuda::TileSettings;
using lawn::sphere::cuda::Worker;

/// Memory that is pointed to and never read.
char* nowhere() { return reinterpret_cast<char*>(std::uintptr_t{1} << 40); }

Flat make_flat(std::int64_t spheres, std::int64_t numel, Dtype dtype = Dtype::kFloat32) {
  Flat flat;
  flat.weight = nowhere();
  flat.gradient = nowhere() + 16;
  flat.radius = nowhere() + 32;
  flat.spheres = spheres;
  flat.sphere_numel = numel;
  flat.weight_dtype = dtype;
  flat.gradient_dtype = dtype;
  return flat;
}

/// As the kernels work it out: spheres for `Worker::kWarp`, else elements of a sphere.
std::int64_t total(const Partition& partition) {
  const TileSettings& setting = partition.setting;
  if (setting.worker != Worker::kWarp && setting.sphere_numel > 0) return setting.sphere_numel;
  return partition.blocks * setting.per_block - partition.unused_in_last_block;
}

constexpr Needs kGradient{true, false, false};
constexpr Needs kRadius{false, true, false};
constexpr Needs kEmptySpheres{false, false, true};

Partition project(std::int64_t spheres, std::int64_t numel) {
  return partition_of(make_flat(spheres, numel), kGradient, {});
}

TEST(Plan, TellsTheSizeOfEveryLayer) {
  const Limits limits;
  for (const std::int64_t numel :
       {std::int64_t{1}, limits.warp_sphere, limits.warp_sphere + 1, limits.block_sphere,
        limits.block_sphere + 1, limits.chunk * limits.max_chunks - 1,
        limits.chunk * limits.max_chunks, limits.chunk * limits.max_chunks + 1,
        (std::int64_t{1} << 31) + 5, (std::int64_t{1} << 36) + 7}) {
    for (const std::int64_t spheres : {std::int64_t{1}, std::int64_t{2}, limits.many_spheres - 1,
                                       limits.many_spheres, std::int64_t{1} << 20}) {
      const Partition partition = project(spheres, numel);
      EXPECT_EQ(total(partition), partition.setting.worker == Worker::kWarp ? spheres : numel);
      EXPECT_GE(partition.unused_in_last_block, 0);
      EXPECT_LT(partition.unused_in_last_block, 65536);
      EXPECT_LE(partition.entries, partition.setting.worker == Worker::kChunk ? spheres : 1);
      if (partition.setting.worker == Worker::kChunk) {
        EXPECT_LE(partition.blocks, limits.max_chunks);
        EXPECT_EQ(partition.setting.per_block % 64, 0);
        EXPECT_GT(numel, (partition.blocks - 1) * partition.setting.per_block);  // none is empty
      }
    }
  }
}

TEST(Plan, GivesASphereToTheSmallestTeamThatSuits) {
  EXPECT_EQ(project(1, 9).setting.worker, Worker::kBlock);
  EXPECT_EQ(project(2, 1024).setting.worker, Worker::kWarp);
  EXPECT_EQ(project(2, 1025).setting.worker, Worker::kBlock);
  EXPECT_EQ(project(1, 36864).setting.worker, Worker::kBlock);
  EXPECT_EQ(project(1, 36865).setting.worker, Worker::kChunk);
  EXPECT_EQ(project(63, 36865).setting.worker, Worker::kChunk);
  EXPECT_EQ(project(63, 36865).entries, 63);
  EXPECT_EQ(project(64, 36865).setting.worker, Worker::kBlock);
}

TEST(Plan, PassesOverLayersWithNothingToDo) {
  Flat flat = make_flat(3, 5);
  flat.gradient = nullptr;
  EXPECT_EQ(partition_of(flat, kGradient, {}).entries, 0);
  EXPECT_EQ(partition_of(flat, kRadius, {}).entries, 1);
  flat.radius = nullptr;
  EXPECT_EQ(partition_of(flat, kRadius, {}).entries, 0);
  EXPECT_EQ(project(3, 0).entries, 0);
  EXPECT_EQ(partition_of(make_flat(3, 0), kEmptySpheres, {}).entries, 1);
  EXPECT_EQ(partition_of(make_flat(0, 3), kEmptySpheres, {}).entries, 0);
}

TEST(Plan, PutsChunkedLayersLastAndCountsBlocksThrough) {
  const std::vector<Flat> flats{make_flat(1, 40000), make_flat(1, 10), make_flat(100, 64),
                                make_flat(2, 40000, Dtype::kBFloat16)};
  LayerList<kFewLayers> list;
  ListFiller<LayerList<kFewLayers>> filler(list, kGradient, {});
  EXPECT_EQ(filler.fill(flats.data(), flats.data() + flats.size()), flats.data() + flats.size());
  ASSERT_EQ(list.layers, 5);
  EXPECT_EQ(list.first_chunked, 2);
  const std::vector<std::uint32_t> first{0, 1, 8, 13, 18, 23};
  EXPECT_EQ(std::vector<std::uint32_t>(list.first_block, list.first_block + 6), first);
  EXPECT_EQ(list.weight[3], nowhere());
  EXPECT_EQ(list.weight[4], nowhere() + 80000);
  EXPECT_EQ(list.gradient[4], nowhere() + 16 + 80000);
  EXPECT_EQ(list.radius[4], nowhere() + 32 + 4);
}

TEST(Plan, SplitsWhereLayersOrSettingsAreTooMany) {
  const auto list = std::make_unique<LayerList<kManyLayers>>();
  ListFiller<LayerList<kManyLayers>> filler(*list, kGradient, {});
  std::vector<Flat> flats(kManyLayers + 1, make_flat(1, 100));
  EXPECT_EQ(filler.fill(flats.data(), flats.data() + flats.size()), flats.data() + kManyLayers);
  EXPECT_EQ(filler.fill(flats.data() + kManyLayers, flats.data() + flats.size()),
            flats.data() + flats.size());
  EXPECT_EQ(list->layers, 1);
  for (std::size_t i = 0; i < flats.size(); ++i) {
    flats[i].weight_decay = static_cast<double>(i % (kMaxSettings + 1));
  }
  EXPECT_EQ(filler.fill(flats.data(), flats.data() + flats.size()), flats.data() + kMaxSettings);
}

TEST(Plan, TakesDecaysThatAreNotNumbersForOneSetting) {
  Flat flat = make_flat(1, 100);
  flat.weight_decay = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Flat> flats(30, flat);  // twice as many are more than kMaxSettings
  LayerList<kFewLayers> list;
  ListFiller<LayerList<kFewLayers>> filler(list, kGradient, {});
  EXPECT_EQ(filler.fill(flats.data(), flats.data() + flats.size()), flats.data() + flats.size());
  ASSERT_EQ(list.layers, 30);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(list.setting[i], 0) << i;
}

TEST(Plan, HasRoomInTheShortestListForALayerOfManyEntries) {
  const Flat flat = make_flat(Limits{}.many_spheres - 1, 40000);
  LayerList<kFewLayers> list;
  ListFiller<LayerList<kFewLayers>> filler(list, kGradient, {});
  EXPECT_EQ(filler.fill(&flat, &flat + 1), &flat + 1);
  EXPECT_EQ(list.layers, 63);
}

}  // namespace
