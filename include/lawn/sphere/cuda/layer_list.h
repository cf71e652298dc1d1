// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include <lawn/sphere/cuda/tuning.h>
#include <lawn/sphere/flat.h>

namespace lawn::sphere::cuda {

constexpr int kLanes = 32;
constexpr int kWarps = kThreads / kLanes;

/// Which threads work on a sphere.
enum class Worker : std::uint8_t {
  kWarp,   ///< one warp; a block takes `kWarps` spheres
  kBlock,  ///< one block
  kChunk,  ///< one block for each chunk; a second kernel applies the first one's sums
};

/// Settings that many layers of a list have in common.
struct TileSettings {
  double weight_decay;
  /// Number of elements of a sphere; 0 if layers of different sizes share the settings (see
  /// `LayerList::unused_in_last_block`).
  std::int64_t sphere_numel;
  /// Number of spheres of a block for `Worker::kWarp`, else of elements of a block.
  std::int32_t per_block;
  Worker worker;
  Dtype weight_dtype;
  Dtype gradient_dtype;
};

/// Whether layers of `a` and `b` can share settings. A decay that is NaN equals another one that
/// is: else a list would never find it again, and run out of room.
inline bool operator==(const TileSettings& a, const TileSettings& b) {
  const bool same_decay = a.weight_decay == b.weight_decay ||
                          (std::isnan(a.weight_decay) && std::isnan(b.weight_decay));
  return same_decay && a.sphere_numel == b.sphere_numel && a.per_block == b.per_block &&
         a.worker == b.worker && a.weight_dtype == b.weight_dtype &&
         a.gradient_dtype == b.gradient_dtype;
}

/// Assigns a launch's blocks to layers; a derived list has the layers' arrays. It is a kernel's
/// parameter, by value, so that nothing has to be copied to the device or kept for a captured
/// graph. Layers with `Worker::kChunk` come last: the other blocks run longest and should start
/// first, and when the second kernel starts, the chunks are the data that was read last.
template <int kCapacity>
struct BlockList {
  static constexpr int kLayers = kCapacity;

  TileSettings settings[kMaxSettings];
  /// The blocks from `first_block[l]` up to `first_block[l + 1]` work on layer l.
  std::uint32_t first_block[kCapacity + 1];
  /// By how much the last block falls short of `TileSettings::per_block`. These two bytes for its
  /// size let layers of different sizes share one setting.
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

/// Bytes that CUDA allows for the parameters of a kernel: 12.1 and later, on sm_70 and later.
/// LawnWantsCuda.cmake and LawnCudaArchitectures.cmake keep older ones out.
constexpr std::size_t kMaxParameterBytes = 32764;

static_assert(sizeof(LayerList<kManyLayers>) + sizeof(void*) <= kMaxParameterBytes,
              "the list and the workspace's address must fit a kernel's parameters");
static_assert(kMaxSettings <= 256 && kManyLayers < 65536, "indices are kept in 8 and 16 bits");

}  // namespace lawn::sphere::cuda
