// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

/// Every constant of the CUDA kernels that is a choice and not a fact. None of them changes the
/// results, except by rounding.
namespace lawn::sphere::cuda {

/// Number of threads of a block, and of blocks for which a multiprocessor must have registers.
constexpr int kThreads = 512;
constexpr int kMinBlocks = 2;

/// Number of elements of each array that a thread has in flight, and the largest number of packs.
constexpr int kElementsInFlight = 16;
constexpr int kMaxPacksInFlight = 4;

/// The same for an optimizer's step, which reads up to four arrays side by side: bytes of a pack,
/// and packs in flight. Float64 has one pack in flight, since its roots and quotients take the
/// longest code.
constexpr int kStepPackBytes = 8;
constexpr int kStepPacksInFlight = 2;

/// Number of packs in flight of ADMM's penalty, which reads four arrays side by side.
constexpr int kPenaltyPacksInFlight = 2;

/// Number of partial sums of a thread: with several, one addition need not wait for the one before.
/// The partial sums and the packs in flight fill the registers.
constexpr int kAccumulators = 2;

/// Number of bytes of an array that one load or store moves.
constexpr int kPackBytes = 16;

/// Capacity of a launch's list for many layers and for few. The list travels with each launch, and
/// a small network should not pay for a long one.
constexpr int kManyLayers = 1024;
constexpr int kFewLayers = 64;
/// Replaces `kManyLayers` if layers have an optimizer's state.
constexpr int kManySteppedLayers = 640;
/// Replaces `kManyLayers` if an entry has 32 bytes: ADMM's four arrays, or a matrix in blocks.
constexpr int kManyWideEntries = 768;

/// Number of distinct `TileSettings` of one launch, for which a kernel's parameters have room
/// beside `kManyLayers`.
constexpr int kMaxSettings = 40;

/// Limits, in elements, between the ways in which a sphere is processed. They are in a struct, so
/// that tests can change them.
struct Limits {
  /// Up to this size, one warp takes a sphere of a layer that has several.
  std::int64_t warp_sphere = 1024;
  /// Up to this size, one block takes a sphere, in one launch. ResNet-20's largest convolution has
  /// this many elements. Must be below 2^16 (`LayerList::unused_in_last_block`).
  std::int64_t block_sphere = 36864;
  /// From this number of spheres on, one block for each sphere of a layer keeps every
  /// multiprocessor busy, however large the spheres are.
  std::int64_t many_spheres = 64;
  /// Number of elements of the chunks into which larger spheres are cut: a multiple of 64, below
  /// 2^16.
  std::int64_t chunk = 8192;
  /// Up to this size, one thread takes a block of a unified weight; a warp takes a larger one.
  std::int64_t thread_block = 64;
  /// Largest number of chunks of a sphere, since the block of each chunk adds the sums of all.
  /// Chunks of larger spheres grow instead.
  std::int64_t max_chunks = 1024;
};

}  // namespace lawn::sphere::cuda
