// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <c10/util/Half.h>

/// As much of CUDA's header of this name as the kernels use; rounds to nearest even, as c10 does.
struct __half {
  std::uint16_t bits;
};

inline float __half2float(__half x) { return c10::Half(x.bits, c10::Half::from_bits()); }
inline __half __float2half_rn(float x) { return {c10::Half(x).x}; }
inline std::uint16_t __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(std::uint16_t bits) { return {bits}; }
