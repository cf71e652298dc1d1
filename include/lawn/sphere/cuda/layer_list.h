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
enum class Role : std::uint8_t {
  kWarp,   ///< one warp; a block deals with `kWarps` spheres
  kBlock,  ///< one block
  kChunk,  ///< one block a chunk; a second kernel applies what the first one's sums give
};

/// What many layers of a list have in common.
struct Setting {
  double weight_decay;
  /// Elements of a sphere. 0 where a list's layers differ in it (see `LayerList::missing`).
  std::int64_t sphere_numel;
  /// Spheres of a block for `Role::kWarp`, else elements of a block.
  std::int32_t per_block;
  Role role;
  Dtype weight_dtype;
  Dtype gradient_dtype;
};

inline bool operator==(const Setting& a, const Setting& b) {
  return a.weight_decay == b.weight_decay && a.sphere_numel == b.sphere_numel &&
         a.per_block == b.per_block && a.role == b.role && a.weight_dtype == b.weight_dtype &&
         a.gradient_dtype == b.gradient_dtype;
}

/// What a launch's blocks do, for layers whose arrays a derived list has: a kernel's parameter, by
/// value, so that nothing has to be copied to the device or kept for a captured graph. Layers with
/// `Role::kChunk` come last: the others' blocks run longest and should start first, and the chunks'
/// data is then the last that was read when the second kernel starts.
template <int kCapacity>
struct BlockList {
  static constexpr int kLayers = kCapacity;

  Setting settings[kMaxSettings];
  /// Layer l is dealt with by the blocks from `first_block[l]` up to `first_block[l + 1]`.
  std::uint32_t first_block[kCapacity + 1];
  /// What the last block has less than `Setting::per_block`; so a layer's size is told by two bytes
  /// and layers of different size share a setting.
  std::uint16_t missing[kCapacity];
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
