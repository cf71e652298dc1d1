// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>

#include <cstdint>

/// The purposes for which a task of a stream draws random numbers. Each purpose has its own seed,
/// so that draws do not depend on earlier ones, and any task can be drawn again.
enum class Draw : uint64_t { kData = 1, kOrder = 2, kWeights = 3 };

/// A seed for each stream, task and purpose.
/// @source Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"
inline uint64_t stream_seed(uint64_t stream, int64_t task, Draw what) {
  const auto mix = [](uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
  };
  return mix(mix(mix(stream) ^ static_cast<uint64_t>(task)) ^ static_cast<uint64_t>(what));
}

/// A generator of that seed.
inline at::Generator stream_generator(uint64_t stream, int64_t task, Draw what) {
  return at::make_generator<at::CPUGeneratorImpl>(stream_seed(stream, task, what));
}
