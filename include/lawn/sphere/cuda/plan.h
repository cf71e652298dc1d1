// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/tuning.h>
#include <lawn/sphere/flat.h>

/// Assigns layers to blocks: turns layers into lists. Host code, without CUDA.
namespace lawn::sphere::cuda {

/// What an operation needs of a layer; a layer without it is skipped.
struct Needs {
  bool gradient = false;
  bool radius = false;
  /// Whether spheres without elements take part, too: their norm is 0.
  bool empty_spheres = false;
};

/// Largest number of elements of a span: it is counted in 32 bits, with room for a stride beyond.
constexpr std::int64_t kMaxSpan = std::int64_t{1} << 30;

/// How one layer is divided among blocks.
struct Partition {
  TileSettings setting{};
  /// Number of entries in the list: 0 if there is nothing to do; several if each sphere is treated
  /// as a layer of its own.
  std::int64_t entries = 0;
  std::int64_t blocks = 0;  ///< number of blocks of an entry
  std::int64_t unused_in_last_block = 0;
};

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// How `layer` is divided among blocks.
inline Partition partition_of(const Flat& layer, const Needs& needs, const Limits& limits) {
  const std::int64_t numel = layer.sphere_numel;
  Partition partition;
  if (layer.spheres == 0 || (numel == 0 && !needs.empty_spheres)) return partition;
  if (needs.gradient && layer.gradient == nullptr) return partition;
  if (needs.radius && layer.radius == nullptr) return partition;

  TileSettings& setting = partition.setting;
  setting.weight_dtype = layer.weight_dtype;
  setting.gradient_dtype = layer.weight_dtype;
  if (needs.gradient) {
    setting.weight_decay = layer.weight_decay;
    setting.gradient_dtype = layer.gradient_dtype;
  }
  partition.entries = 1;
  if (numel == 0 || (layer.spheres > 1 && numel <= limits.warp_sphere)) {
    setting.worker = Worker::kWarp;
    setting.sphere_numel = numel;
    setting.per_block = kWarps;
    partition.blocks = ceil_div(layer.spheres, kWarps);
    partition.unused_in_last_block = partition.blocks * kWarps - layer.spheres;
  } else if (layer.spheres == 1 && numel <= limits.block_sphere) {
    setting.worker = Worker::kBlock;
    setting.per_block = static_cast<std::int32_t>(limits.block_sphere);
    partition.blocks = 1;
    partition.unused_in_last_block = limits.block_sphere - numel;
  } else if (numel <= limits.block_sphere ||
             (layer.spheres >= limits.many_spheres && numel <= kMaxSpan)) {
    setting.worker = Worker::kBlock;
    setting.sphere_numel = numel;
    partition.blocks = layer.spheres;
  } else {
    setting.worker = Worker::kChunk;
    partition.entries = layer.spheres;
    std::int64_t chunk = limits.chunk;
    if (numel > chunk * limits.max_chunks) {
      // A multiple of 64 keeps every chunk as well aligned as the first.
      chunk = ceil_div(ceil_div(numel, limits.max_chunks), 64) * 64;
      setting.sphere_numel = numel;
    }
    setting.per_block = static_cast<std::int32_t>(chunk);
    partition.blocks = ceil_div(numel, chunk);
    if (setting.sphere_numel == 0)
      partition.unused_in_last_block = partition.blocks * chunk - numel;
  }
  return partition;
}

/// How `tensor` is divided among blocks: in chunks, however few elements it has.
inline Partition partition_of(const FlatTensor& tensor, const Needs& /*needs*/,
                              const Limits& limits) {
  Partition partition;
  if (tensor.sphere_numel == 0) return partition;
  partition.setting.worker = Worker::kChunk;
  partition.setting.weight_dtype = tensor.dtype;
  partition.setting.gradient_dtype = tensor.dtype;
  partition.setting.per_block = static_cast<std::int32_t>(limits.chunk);
  partition.entries = 1;
  partition.blocks = ceil_div(tensor.sphere_numel, limits.chunk);
  partition.unused_in_last_block = partition.blocks * limits.chunk - tensor.sphere_numel;
  return partition;
}

/// Number of bytes of the radius of one sphere.
inline std::int64_t radius_bytes(Dtype weight) { return weight == Dtype::kFloat64 ? 8 : 4; }

inline std::int64_t element_bytes(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
}

inline void* moved(void* pointer, std::int64_t bytes) {
  return pointer == nullptr ? nullptr : static_cast<char*>(pointer) + bytes;
}

/// Puts the arrays of `layer`, from `sphere` on, into entry `at`.
template <int kCapacity>
void put_arrays(LayerList<kCapacity>& list, int at, const Flat& layer, std::int64_t sphere) {
  const auto first = sphere * layer.sphere_numel;
  list.weight[at] = moved(layer.weight, first * element_bytes(layer.weight_dtype));
  list.gradient[at] = moved(layer.gradient, first * element_bytes(layer.gradient_dtype));
  list.radius[at] = moved(layer.radius, sphere * radius_bytes(layer.weight_dtype));
}

/// Puts layers into a list until there are no more or the list is full.
/// @tparam List  a `LayerList`, or one with more arrays and a `put_arrays` for them
template <class List>
class ListFiller {
 public:
  using Item = typename List::Item;

  ListFiller(List& list, const Needs& needs, const Limits& limits)
      : list_(list), needs_(needs), limits_(limits) {}

  /// Fills the list anew with the layers from `begin`.
  /// @return the first layer for which there was no room; `end` if there was room for all
  const Item* fill(const Item* begin, const Item* end) {
    settings_ = 0;
    list_.layers = 0;
    list_.first_block[0] = 0;
    const Item* full = room_until(begin, end);
    append(begin, full, [](Worker worker) { return worker != Worker::kChunk; });
    list_.first_chunked = list_.layers;
    append(begin, full, [](Worker worker) { return worker == Worker::kChunk; });
    return full;
  }

 private:
  const Item* room_until(const Item* begin, const Item* end) {
    std::int64_t needed = 0;
    for (const Item* layer = begin; layer != end; ++layer) {
      const Partition partition = partition_of(*layer, needs_, limits_);
      needed += partition.entries;
      if (needed > List::kLayers) return layer;
      if (partition.entries > 0 && setting_index(partition.setting) == kMaxSettings) return layer;
    }
    return end;
  }

  /// Index of `setting` among the list's settings, to which it is added if needed; `kMaxSettings`
  /// if there is no room.
  int setting_index(const TileSettings& setting) {
    for (int i = settings_ - 1; i >= 0; --i) {  // neighbours tend to be alike
      if (list_.settings[i] == setting) return i;
    }
    if (settings_ == kMaxSettings) return kMaxSettings;
    list_.settings[settings_] = setting;
    return settings_++;
  }

  template <class Wanted>
  void append(const Item* begin, const Item* end, const Wanted& wanted) {
    for (const Item* layer = begin; layer != end; ++layer) {
      const Partition partition = partition_of(*layer, needs_, limits_);
      if (partition.entries == 0 || !wanted(partition.setting.worker)) continue;
      const auto setting = static_cast<std::uint8_t>(setting_index(partition.setting));
      for (std::int64_t e = 0; e < partition.entries; ++e) {
        const auto at = list_.layers++;
        put_arrays(list_, at, *layer, e);
        list_.setting[at] = setting;
        list_.unused_in_last_block[at] = static_cast<std::uint16_t>(partition.unused_in_last_block);
        list_.first_block[at + 1] =
            list_.first_block[at] + static_cast<std::uint32_t>(partition.blocks);
      }
    }
  }

  List& list_;
  const Needs& needs_;
  Limits limits_;
  int settings_ = 0;
};

}  // namespace lawn::sphere::cuda
