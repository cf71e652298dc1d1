// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/Parallel.h>
#include <c10/util/ArrayRef.h>

#include <lawn/sphere/cpu/loops.h>
#include <lawn/sphere/flat.h>

/// How the work on a list of layers is cut up. Every cut depends on the shapes alone, and sums are
/// added in the order of the chunks: the same bits whatever the number of threads.
namespace lawn::sphere::cpu {

/// Elements of a chunk: with its gradient 320 KiB in float32, which a core's own cache holds.
constexpr std::int64_t kChunk = 40 * 1024;
/// Elements after which a batch of layers is closed. What the first pass over a batch has read, the
/// second finds in the cache.
constexpr std::int64_t kBatch = 256 * 1024;
/// The least number of elements that a further thread is worth.
constexpr std::int64_t kGrain = 16 * 1024;

/// Whole spheres of a layer, or a part of one.
struct Chunk {
  const Flat* layer;
  std::int64_t first_sphere;
  std::int64_t last_sphere;  ///< one past
  std::int64_t begin;        ///< first element, counted from the layer's first
  std::int64_t end;
  std::size_t split;    ///< of a part: which of the batch's split spheres it belongs to
  std::int64_t offset;  ///< elements of the batch before this chunk
  Sums sums;            ///< of a part

  /// A sphere of one chunk is finished in one visit.
  bool is_part() const { return end - begin < layer->sphere_numel; }
};

/// Appends the chunks of `layer`; counts its elements and its split spheres into the totals.
inline void append_chunks(const Flat& layer, std::vector<Chunk>& chunks, std::int64_t& elements,
                          std::size_t& split) {
  const std::int64_t numel = layer.sphere_numel;
  const auto append = [&](std::int64_t first, std::int64_t last, std::int64_t begin,
                          std::int64_t end) {
    chunks.push_back({&layer, first, last, begin, end, split, elements, {}});
    elements += end - begin;
  };
  if (numel > kChunk) {
    for (std::int64_t sphere = 0; sphere < layer.spheres; ++sphere, ++split) {
      const std::int64_t last = (sphere + 1) * numel;
      for (std::int64_t begin = sphere * numel; begin < last; begin += kChunk) {
        append(sphere, sphere + 1, begin, std::min(begin + kChunk, last));
      }
    }
  } else {
    const std::int64_t together = kChunk / std::max<std::int64_t>(numel, 1);
    for (std::int64_t sphere = 0; sphere < layer.spheres; sphere += together) {
      const std::int64_t last = std::min(sphere + together, layer.spheres);
      append(sphere, last, sphere * numel, last * numel);
    }
  }
}

/// Calls `visit(chunk)` for the chunks from `begin` to `end`, which hold `elements` in all, on
/// several threads where there is enough to do.
template <class Iterator, class Visit>
void parallel_for_each(Iterator begin, Iterator end, std::int64_t elements, const Visit& visit) {
  const auto threads = std::min<std::int64_t>(at::get_num_threads(), elements / kGrain);
  if (threads <= 1 || at::in_parallel_region()) {
    std::for_each(begin, end, visit);
    return;
  }
  at::parallel_for(0, threads, 1, [&](std::int64_t first, std::int64_t last) {
    std::for_each(begin, end, [&](Chunk& chunk) {
      const std::int64_t middle = chunk.offset + (chunk.end - chunk.begin) / 2;
      const std::int64_t share = middle * threads / elements;
      if (share >= first && share < last) visit(chunk);
    });
  });
}

/// For every sphere, `apply(layer, sphere, begin, end, sums)` over its elements, where `sums` is
/// what `reduce(layer, begin, end)` gave for all of them. A large sphere is reduced and applied in
/// parts.
template <class Reduce, class Apply>
void for_each_sphere(c10::ArrayRef<Flat> layers, const Reduce& reduce, const Apply& apply) {
  std::vector<Chunk> chunks;
  std::vector<Sums> totals;
  for (std::size_t next = 0; next < layers.size();) {
    chunks.clear();
    std::int64_t elements = 0;
    std::size_t split = 0;
    while (next < layers.size() && elements < kBatch) {
      append_chunks(layers[next++], chunks, elements, split);
    }
    parallel_for_each(chunks.begin(), chunks.end(), elements, [&](Chunk& chunk) {
      const Flat& layer = *chunk.layer;
      if (chunk.is_part()) {
        chunk.sums = reduce(layer, chunk.begin, chunk.end);
        return;
      }
      for (std::int64_t sphere = chunk.first_sphere; sphere < chunk.last_sphere; ++sphere) {
        const std::int64_t begin = sphere * layer.sphere_numel;
        const std::int64_t end = begin + layer.sphere_numel;
        apply(layer, sphere, begin, end, reduce(layer, begin, end));
      }
    });
    if (split == 0) continue;
    totals.assign(split, Sums());
    for (const Chunk& chunk : chunks) {
      if (chunk.is_part()) totals[chunk.split] += chunk.sums;
    }
    // Backwards: what the first pass read last is still in the cache.
    parallel_for_each(chunks.rbegin(), chunks.rend(), elements, [&](const Chunk& chunk) {
      if (!chunk.is_part()) return;
      apply(*chunk.layer, chunk.first_sphere, chunk.begin, chunk.end, totals[chunk.split]);
    });
  }
}

}  // namespace lawn::sphere::cpu
