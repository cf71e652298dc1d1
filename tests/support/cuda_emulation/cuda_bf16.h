// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <c10/util/BFloat16.h>

/// As much of CUDA's header of this name as the kernels use; rounds to nearest even, as c10 does.
struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) {
  return c10::BFloat16(x.bits, c10::BFloat16::from_bits());
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {c10::BFloat16(x).x}; }
inline std::uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(std::uint16_t bits) { return {bits}; }
