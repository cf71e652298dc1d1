// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/Parallel.h>

#include <lawn/sphere/cpu/loops.h>
#include <lawn/sphere/flat.h>

/// Cuts the work on a list of layers into chunks. The cuts depend only on the shapes, and sums are
/// added in the order of the chunks: the bits are the same for any number of threads.
namespace lawn::sphere::cpu {

/// Number of elements of a chunk: with its gradient 320 KiB in float32, which a core's own cache
/// holds.
constexpr std::int64_t kChunk = std::int64_t{40} * 1024;
/// Number of elements after which a batch of layers is closed. The second pass over a batch finds
/// in the cache what the first has read.
constexpr std::int64_t kBatch = std::int64_t{256} * 1024;
/// Least number of elements that justifies a further thread.
constexpr std::int64_t kGrain = std::int64_t{16} * 1024;

/// Whole spheres of a layer, or a part of one.
/// @tparam Layer  Flat, or a class derived from it
template <class Layer>
struct Chunk {
  const Layer* layer;
  std::int64_t first_sphere;
  std::int64_t last_sphere;  ///< one past
  std::int64_t begin;        ///< first element, counted from the layer's first
  std::int64_t end;
  std::size_t split;    ///< for a part: index of its sphere among the batch's split spheres
  std::int64_t offset;  ///< number of the batch's elements before this chunk
  Sums sums;            ///< for a part: its sums

  /// Whether the chunk is a part of a sphere; a sphere in one chunk is finished in one visit.
  bool is_part() const { return end - begin < layer->sphere_numel; }
};

/// Layers whose chunks are processed together: every pass over them ends before the next begins,
/// and finds in the cache what the pass before has read.
template <class Layer>
class Batch {
 public:
  /// Takes layers from `next` on until the batch is full.
  /// @return the first layer that is not taken
  const Layer* fill(const Layer* next, const Layer* end) {
    chunks_.clear();
    elements_ = 0;
    split_ = 0;
    while (next != end && elements_ < kBatch) append(*next++);
    return next;
  }

  /// Runs the first stage of each sphere that is split, and every stage of the others.
  template <class First, class... Stages>
  void begin(const First& first, const Stages&... stages) {
    parallel_for_each(chunks_.begin(), chunks_.end(), [&](Chunk<Layer>& chunk) {
      const Layer& layer = *chunk.layer;
      if (chunk.is_part()) {
        chunk.sums = first(layer, chunk.first_sphere, chunk.begin, chunk.end, Sums());
        return;
      }
      for (std::int64_t sphere = chunk.first_sphere; sphere < chunk.last_sphere; ++sphere) {
        const std::int64_t from = sphere * layer.sphere_numel;
        const std::int64_t to = from + layer.sphere_numel;
        [[maybe_unused]] Sums sums = first(layer, sphere, from, to, Sums());
        ((sums = stages(layer, sphere, from, to, sums)), ...);
      }
    });
  }

  /// Runs a later stage of each sphere that is split.
  template <class Stage>
  void go_on(const Stage& stage) {
    if (split_ == 0) return;
    totals_.assign(split_, Sums());
    for (const auto& chunk : chunks_) {
      if (chunk.is_part()) totals_[chunk.split] += chunk.sums;
    }
    const auto visit = [&](Chunk<Layer>& chunk) {
      if (!chunk.is_part()) return;
      chunk.sums =
          stage(*chunk.layer, chunk.first_sphere, chunk.begin, chunk.end, totals_[chunk.split]);
    };
    // Alternate the direction: what the last pass touched last is still in the cache.
    backwards_ = !backwards_;
    if (backwards_) {
      parallel_for_each(chunks_.rbegin(), chunks_.rend(), visit);
    } else {
      parallel_for_each(chunks_.begin(), chunks_.end(), visit);
    }
  }

 private:
  void append(const Layer& layer) {
    const std::int64_t numel = layer.sphere_numel;
    const auto append_chunk = [&](std::int64_t first, std::int64_t last, std::int64_t begin,
                                  std::int64_t end) {
      chunks_.push_back({&layer, first, last, begin, end, split_, elements_, {}});
      elements_ += end - begin;
    };
    if (numel > kChunk) {
      for (std::int64_t sphere = 0; sphere < layer.spheres; ++sphere, ++split_) {
        const std::int64_t last = (sphere + 1) * numel;
        for (std::int64_t begin = sphere * numel; begin < last; begin += kChunk) {
          append_chunk(sphere, sphere + 1, begin, std::min(begin + kChunk, last));
        }
      }
    } else {
      const std::int64_t together = kChunk / std::max<std::int64_t>(numel, 1);
      for (std::int64_t sphere = 0; sphere < layer.spheres; sphere += together) {
        const std::int64_t last = std::min(sphere + together, layer.spheres);
        append_chunk(sphere, last, sphere * numel, last * numel);
      }
    }
  }

  /// Calls `visit(chunk)` for the chunks from `begin` to `end`, on several threads if there are
  /// enough elements. The same thread takes a chunk in every pass, whatever the direction.
  template <class Iterator, class Visit>
  void parallel_for_each(Iterator begin, Iterator end, const Visit& visit) const {
    const auto threads = std::min<std::int64_t>(at::get_num_threads(), elements_ / kGrain);
    if (threads <= 1 || at::in_parallel_region()) {
      std::for_each(begin, end, visit);
      return;
    }
    at::parallel_for(0, threads, 1, [&](std::int64_t first, std::int64_t last) {
      std::for_each(begin, end, [&](Chunk<Layer>& chunk) {
        const std::int64_t middle = chunk.offset + (chunk.end - chunk.begin) / 2;
        // An empty chunk may lie behind the last element.
        const std::int64_t share = std::min(middle * threads / elements_, threads - 1);
        if (share >= first && share < last) visit(chunk);
      });
    });
  }

  std::vector<Chunk<Layer>> chunks_;
  std::vector<Sums> totals_;
  std::int64_t elements_ = 0;
  std::size_t split_ = 0;
  bool backwards_ = false;
};

/// Runs the stages of every sphere in turn. Each stage is called as
///   stage(layer, sphere, begin, end, sums) -> Sums
/// over all of the sphere's elements or a part of them; `sums` is the previous stage's result for
/// all of them.
template <class Layer, class First, class... Stages>
void for_each_sphere(const std::vector<Layer>& layers, const First& first,
                     const Stages&... stages) {
  Batch<Layer> batch;
  const Layer* const end = layers.data() + layers.size();
  for (const Layer* next = layers.data(); next != end;) {
    next = batch.fill(next, end);
    batch.begin(first, stages...);
    (batch.go_on(stages), ...);
  }
}

}  // namespace lawn::sphere::cpu
