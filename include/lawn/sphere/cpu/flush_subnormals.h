// SPDX-License-Identifier: Apache-2.0
#pragma once

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

#include <lawn/finite_math.h>

namespace lawn::sphere::cpu {

/// While it lives, results of this thread below the least normal number (1.2e-38 in float32) are 0,
/// if they are nothing beside the radius of the sphere that is worked on.
///
/// Where the gradient wants larger weights, the projection shrinks the weights of a dead unit in
/// each step of Adam, and their moments with them. In some tens of steps they are subnormal, where
/// rounding holds them for ever. x86 computes with subnormal numbers up to a hundred times slower,
/// also in every matrix product that reads such a weight. Other machines compute with them at full
/// speed, and nothing is done there.
class FlushSubnormals {
 public:
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

#if defined(__SSE__) || defined(_M_X64)
  explicit FlushSubnormals(double radius) : before_(_mm_getcsr()) {
    if (radius > kLeastRadius) _mm_setcsr(before_ | _MM_FLUSH_ZERO_ON);
  }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  static constexpr double kLeastRadius = 1e-19;  ///< what is flushed is less than 2e-19 of it
  unsigned before_;
#else
  explicit FlushSubnormals(double /*radius*/) {}
  ~FlushSubnormals() {}
#endif
};

}  // namespace lawn::sphere::cpu
