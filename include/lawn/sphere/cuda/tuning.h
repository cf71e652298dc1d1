// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

/// Every constant of the CUDA kernels that is a choice and not a fact. None of them changes what is
/// computed but by rounding.
namespace lawn::sphere::cuda {

/// Threads of a block, and how many blocks a multiprocessor must have registers for.
constexpr int kThreads = 512;
constexpr int kMinBlocks = 2;

/// Elements of each array that a thread has in flight, and the most packs.
constexpr int kElementsInFlight = 16;
constexpr int kMaxPacksInFlight = 4;

/// The same for an optimizer's step, which reads up to four arrays side by side: bytes of a pack,
/// and packs in flight. Float64, whose roots and quotients are the longest code, has one.
constexpr int kStepPackBytes = 8;
constexpr int kStepPacksInFlight = 2;

/// Packs in flight of ADMM's penalty, which reads four arrays side by side.
constexpr int kPenaltyPacksInFlight = 2;

/// Partial sums of a thread, so that one addition need not wait for the one before. With the packs
/// in flight they are what fills the registers.
constexpr int kAccumulators = 2;

/// Bytes of an array that one load or store moves.
constexpr int kPackBytes = 16;

/// Layers of one launch, where there are many and where there are few: the list travels with each
/// launch, so that a small network should not pay for a long one.
constexpr int kManyLayers = 1024;
constexpr int kFewLayers = 64;
/// In place of `kManyLayers` where layers have an optimizer's state.
constexpr int kManySteppedLayers = 640;
/// The same where an entry has 32 bytes: ADMM's four arrays, or a matrix in blocks.
constexpr int kManyWideEntries = 768;

/// Distinct `TileSettings`s of one launch: what the parameters have room for beside `kManyLayers`.
constexpr int kMaxSettings = 40;

/// Where one way of dealing with a sphere ends and the next begins, in elements. A struct, so that
/// tests can move the borders.
struct Limits {
  /// Spheres of a layer of many are dealt with by one warp each, up to here.
  std::int64_t warp_sphere = 1024;
  /// A sphere is dealt with by one block up to here, in one launch. ResNet-20's largest convolution
  /// has this many elements. Below 2^16 (`LayerList::unused_in_last_block`).
  std::int64_t block_sphere = 36864;
  /// A layer of at least so many spheres keeps every multiprocessor busy with one block a sphere,
  /// however large these are.
  std::int64_t many_spheres = 64;
  /// Larger spheres are cut into chunks of so many elements: a multiple of 64, below 2^16.
  std::int64_t chunk = 8192;
  /// A block of a unified weight is dealt with by one thread up to here, else by a warp.
  std::int64_t thread_block = 64;
  /// Chunks of a sphere, each of which adds the others' sums; from here on they grow instead.
  std::int64_t max_chunks = 1024;
};

}  // namespace lawn::sphere::cuda
