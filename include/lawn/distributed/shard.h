// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>
#include <c10/util/irange.h>

#include <lawn/distributed/collective.h>
#include <lawn/sphere/layer.h>
#include <lawn/sphere/parts.h>

namespace lawn {

/// The part of one parameter that a rank holds: a range of its elements, counted in row-major
/// order.
struct Shard {
  /// Name of the parameter in messages; the same on every rank.
  std::string name;
  /// The part, which the rank's optimizer holds: contiguous, of any shape and device, float64,
  /// float32, bfloat16 or half; without elements if the rank holds nothing of the parameter.
  at::Tensor part;
  /// The shape of the whole parameter.
  std::vector<int64_t> shape;
  /// Place of the part's first element in the whole.
  int64_t begin = 0;
};

namespace detail::distributed {

/// Cuts a rank's shard of a layer at the borders of output units, and appends the parts.
///
/// `unit_dim` divides the shape into [outer, units, inner]. In row-major order such a tensor has a
/// run of `inner` elements of each unit in turn, `outer` times. A shard may begin and end within a
/// run: its parts are these two ends, and between them whole runs, of which one part takes as many
/// as there are up to the last unit. A layer on one sphere is one part.
/// @param place  place of the layer's first sphere
inline void append_parts(std::vector<sphere::Part>& parts, const Shard& shard,
                         const sphere::Layer& layer, int64_t place) {
  const int64_t numel = layer.weight.numel();
  if (numel == 0) return;
  if (layer.unit_dim == sphere::kWholeTensor) {
    parts.push_back({&layer, 0, 1, numel, 0, place});
    return;
  }
  const int64_t units = shard.shape[static_cast<std::size_t>(layer.unit_dim)];
  const int64_t inner =
      c10::multiply_integers(shard.shape.begin() + layer.unit_dim + 1, shard.shape.end());
  for (int64_t at = shard.begin; at < shard.begin + numel;) {
    const int64_t unit = at / inner % units;
    const int64_t left = shard.begin + numel - at;
    const int64_t to_border = inner - at % inner;
    sphere::Part part{&layer, at - shard.begin, 1, std::min(to_border, left), unit, place + unit};
    if (part.numel == inner) part.spheres = std::min(units - unit, left / inner);
    parts.push_back(part);
    at += part.spheres * part.numel;
  }
}

/// @throws c10::Error that names the shard
inline void check_shard(const Shard& shard) {
  const char* const who = "lawn::ShardedSpheres";
  TORCH_CHECK(shard.part.defined(), who, ": expected a tensor for the shard of ", shard.name,
              ", got an undefined one; a rank without a part of it has one without elements");
  TORCH_CHECK(shard.part.layout() == at::kStrided && shard.part.is_contiguous(), who,
              ": expected a dense, contiguous shard of ", shard.name, ", got layout ",
              shard.part.layout(), ", strides ", shard.part.strides(), "; call contiguous() first");
  for (const int64_t size : shard.shape) {
    TORCH_CHECK(size >= 0, who, ": expected sizes >= 0 in the shape of ", shard.name, ", got ",
                at::IntArrayRef(shard.shape));
  }
  const int64_t whole = c10::multiply_integers(shard.shape);
  TORCH_CHECK(shard.begin >= 0 && shard.begin + shard.part.numel() <= whole, who,
              ": expected the shard of ", shard.name, " within its ", whole, " elements, got [",
              shard.begin, ", ", shard.begin + shard.part.numel(), ")");
}

/// Checks on every rank that the parts of each parameter cover it, each element once.
/// @throws c10::Error on every rank; the message names the parameter, the elements and the ranks
/// @note   gathers one text
inline void check_cover(Collective& ranks, const std::vector<Shard>& shards) {
  struct Range {
    int64_t begin, end;
    int rank;
  };
  std::ostringstream mine;
  for (const Shard& shard : shards) {
    mine << shard.begin << ' ' << shard.begin + shard.part.numel() << '\n';
  }
  std::vector<std::istringstream> texts;
  for (const auto& text : ranks.gather(mine.str())) texts.emplace_back(text);
  for (const Shard& shard : shards) {
    std::vector<Range> ranges;
    for (const auto rank : c10::irange(ranks.size())) {
      Range range{0, 0, rank};
      texts[static_cast<std::size_t>(rank)] >> range.begin >> range.end;
      if (range.begin < range.end) ranges.push_back(range);
    }
    const int64_t whole = c10::multiply_integers(shard.shape);
    ranges.push_back({whole, whole, -1});
    std::sort(ranges.begin(), ranges.end(),
              [](const Range& a, const Range& b) { return a.begin < b.begin; });
    int64_t covered = 0;
    int last = -1;
    for (const Range& range : ranges) {
      TORCH_CHECK(range.begin <= covered, "lawn::ShardedSpheres: expected every element of ",
                  shard.name, " on one rank, got [", covered, ", ", range.begin, ") on none");
      TORCH_CHECK(range.begin == covered, "lawn::ShardedSpheres: expected every element of ",
                  shard.name, " on one rank, got [", range.begin, ", ",
                  std::min(covered, range.end), ") on rank ", last, " and rank ", range.rank);
      covered = range.end;
      last = range.rank;
    }
  }
}

}  // namespace detail::distributed
}  // namespace lawn
