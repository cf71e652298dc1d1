// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include <lawn/sphere/cuda/layer_list.h>
#include <lawn/sphere/cuda/tuning.h>
#include <lawn/sphere/flat.h>

/// Which block does what: how layers become lists. Host code, without CUDA.
namespace lawn::sphere::cuda {

/// What a list is for.
enum class Purpose : std::uint8_t {
  kNorms,
  kProjection,
  kRescaling,
  kStep,
  kCentring,
  kElements,
  kBlocks
};

/// Elements of a run are counted in 32 bits, with room for a stride beyond.
constexpr std::int64_t kMaxRun = std::int64_t{1} << 30;

/// How one layer is dealt with.
struct Share {
  Setting setting{};
  /// Entries in the list: 0 where there is nothing to do; several where each sphere is dealt with
  /// as a layer of its own.
  std::int64_t entries = 0;
  std::int64_t blocks = 0;  ///< of an entry
  std::int64_t missing = 0;
};

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// How `layer` is dealt with.
inline Share share_of(const Flat& layer, Purpose purpose, const Limits& limits) {
  const std::int64_t numel = layer.sphere_numel;
  Share share;
  if (layer.spheres == 0 || (numel == 0 && purpose != Purpose::kNorms)) return share;
  const bool reads_gradient = purpose == Purpose::kProjection || purpose == Purpose::kStep;
  if (reads_gradient && layer.gradient == nullptr) return share;
  if (purpose == Purpose::kRescaling && layer.radius == nullptr) return share;

  Setting& setting = share.setting;
  setting.weight_dtype = layer.weight_dtype;
  setting.gradient_dtype = layer.weight_dtype;
  if (reads_gradient) {
    setting.weight_decay = layer.weight_decay;
    setting.gradient_dtype = layer.gradient_dtype;
  }
  share.entries = 1;
  if (numel == 0 || (layer.spheres > 1 && numel <= limits.warp_sphere)) {
    setting.role = Role::kWarp;
    setting.sphere_numel = numel;
    setting.per_block = kWarps;
    share.blocks = ceil_div(layer.spheres, kWarps);
    share.missing = share.blocks * kWarps - layer.spheres;
  } else if (layer.spheres == 1 && numel <= limits.block_sphere) {
    setting.role = Role::kBlock;
    setting.per_block = static_cast<std::int32_t>(limits.block_sphere);
    share.blocks = 1;
    share.missing = limits.block_sphere - numel;
  } else if (numel <= limits.block_sphere ||
             (layer.spheres >= limits.many_spheres && numel <= kMaxRun)) {
    setting.role = Role::kBlock;
    setting.sphere_numel = numel;
    share.blocks = layer.spheres;
  } else {
    setting.role = Role::kChunk;
    share.entries = layer.spheres;
    std::int64_t chunk = limits.chunk;
    if (numel > chunk * limits.max_chunks) {
      // A multiple of 64 keeps every chunk as well aligned as the first.
      chunk = ceil_div(ceil_div(numel, limits.max_chunks), 64) * 64;
      setting.sphere_numel = numel;
    }
    setting.per_block = static_cast<std::int32_t>(chunk);
    share.blocks = ceil_div(numel, chunk);
    if (setting.sphere_numel == 0) share.missing = share.blocks * chunk - numel;
  }
  return share;
}

/// How `tensor` is dealt with: in chunks, however few elements it has.
inline Share share_of(const FlatTensor& tensor, Purpose /*purpose*/, const Limits& limits) {
  Share share;
  if (tensor.sphere_numel == 0) return share;
  share.setting.role = Role::kChunk;
  share.setting.weight_dtype = tensor.dtype;
  share.setting.gradient_dtype = tensor.dtype;
  share.setting.per_block = static_cast<std::int32_t>(limits.chunk);
  share.entries = 1;
  share.blocks = ceil_div(tensor.sphere_numel, limits.chunk);
  share.missing = share.blocks * limits.chunk - tensor.sphere_numel;
  return share;
}

/// Bytes of the radius of one sphere.
inline std::int64_t radius_bytes(Dtype weight) { return weight == Dtype::kFloat64 ? 8 : 4; }

inline std::int64_t element_bytes(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
}

inline void* moved(void* pointer, std::int64_t bytes) {
  return pointer == nullptr ? nullptr : static_cast<char*>(pointer) + bytes;
}

/// Puts the arrays of `layer` from `sphere` on into entry `at`.
template <int kCapacity>
void put_arrays(LayerList<kCapacity>& list, int at, const Flat& layer, std::int64_t sphere) {
  const auto first = sphere * layer.sphere_numel;
  list.weight[at] = moved(layer.weight, first * element_bytes(layer.weight_dtype));
  list.gradient[at] = moved(layer.gradient, first * element_bytes(layer.gradient_dtype));
  list.radius[at] = moved(layer.radius, sphere * radius_bytes(layer.weight_dtype));
}

/// Puts layers into a list until they end or the list is full.
/// @tparam List  a `LayerList`, or one with more arrays, for which there is a `put_arrays`
template <class List>
class ListFiller {
 public:
  using Item = typename List::Item;

  ListFiller(List& list, Purpose purpose, const Limits& limits)
      : list_(list), purpose_(purpose), limits_(limits) {}

  /// Fills the list anew with the layers from `begin`.
  /// @return the first layer that had no room; `end` if all had
  const Item* fill(const Item* begin, const Item* end) {
    settings_ = 0;
    list_.layers = 0;
    list_.first_block[0] = 0;
    const Item* full = room_until(begin, end);
    append(begin, full, [](Role role) { return role != Role::kChunk; });
    list_.first_chunked = list_.layers;
    append(begin, full, [](Role role) { return role == Role::kChunk; });
    return full;
  }

 private:
  const Item* room_until(const Item* begin, const Item* end) {
    std::int64_t entries = 0;
    for (const Item* layer = begin; layer != end; ++layer) {
      const Share share = share_of(*layer, purpose_, limits_);
      entries += share.entries;
      if (entries > List::kLayers) return layer;
      if (share.entries > 0 && setting_index(share.setting) == kMaxSettings) return layer;
    }
    return end;
  }

  /// The place of `setting` among the list's, made if need be; `kMaxSettings` if there is no room.
  int setting_index(const Setting& setting) {
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
      const Share share = share_of(*layer, purpose_, limits_);
      if (share.entries == 0 || !wanted(share.setting.role)) continue;
      const auto setting = static_cast<std::uint8_t>(setting_index(share.setting));
      for (std::int64_t e = 0; e < share.entries; ++e) {
        const auto at = list_.layers++;
        put_arrays(list_, at, *layer, e);
        list_.setting[at] = setting;
        list_.missing[at] = static_cast<std::uint16_t>(share.missing);
        list_.first_block[at + 1] =
            list_.first_block[at] + static_cast<std::uint32_t>(share.blocks);
      }
    }
  }

  List& list_;
  Purpose purpose_;
  Limits limits_;
  int settings_ = 0;
};

}  // namespace lawn::sphere::cuda
