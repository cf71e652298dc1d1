// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <lawn/sphere/cuda/tuning.h>
#include <lawn/sphere/flat.h>

namespace lawn::sphere::cuda {

constexpr int kLanes = 32;
constexpr int kWarps = kThreads / kLanes;

/// Who deals with a sphere.
enum class Worker : std::uint8_t {
  kWarp,   ///< one warp; a block deals with `kWarps` spheres
  kBlock,  ///< one block
  kChunk,  ///< one block a chunk; a second kernel applies what the first one's sums give
};

/// What many layers of a list have in common.
struct TileSettings {
  double weight_decay;
  /// Elements of a sphere. 0 where a list's layers differ in it (see `LayerList::unused_in_last_block`).
  std::int64_t sphere_numel;
  /// Spheres of a block for `Worker::kWarp`, else elements of a block.
  std::int32_t per_block;
  Worker worker;
  Dtype weight_dtype;
  Dtype gradient_dtype;
};

inline bool operator==(const TileSettings& a, const TileSettings& b) {
  return a.weight_decay == b.weight_decay && a.sphere_numel == b.sphere_numel &&
         a.per_block == b.per_block && a.worker == b.worker && a.weight_dtype == b.weight_dtype &&
         a.gradient_dtype == b.gradient_dtype;
}

/// What a launch's blocks do, for layers whose arrays a derived list has: a kernel's parameter, by
/// value, so that nothing has to be copied to the device or kept for a captured graph. Layers with
/// `Worker::kChunk` come last: the others' blocks run longest and should start first, and the chunks'
/// data is then the last that was read when the second kernel starts.
template <int kCapacity>
struct BlockList {
  static constexpr int kLayers = kCapacity;

  TileSettings settings[kMaxSettings];
  /// Layer l is dealt with by the blocks from `first_block[l]` up to `first_block[l + 1]`.
  std::uint32_t first_block[kCapacity + 1];
  /// By how much the last block falls short of `TileSettings::per_block`. With these two bytes for its
  /// size, layers of different sizes share one setting.
  std::uint16_t unused_in_last_block[kCapacity];
  std::uint8_t setting[kCapacity];
  std::uint16_t layers;
  std::uint16_t first_chunked;
};

/// The layers of a launch.
template <int kCapacity>
struct LayerList : BlockList<kCapacity> {
  using Item = Flat;

  void* weight[kCapacity];
  void* gradient[kCapacity];
  void* radius[kCapacity];
};

/// What CUDA allows as parameters of a kernel (12.1 and later).
constexpr std::size_t kMaxParameterBytes = 32764;

static_assert(sizeof(LayerList<kManyLayers>) + sizeof(void*) <= kMaxParameterBytes,
              "the list and the workspace's address must fit a kernel's parameters");
static_assert(kMaxSettings <= 256 && kManyLayers < 65536, "indices are kept in 8 and 16 bits");

}  // namespace lawn::sphere::cuda
