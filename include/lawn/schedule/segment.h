// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <ostream>
#include <vector>

#include <lawn/finite_math.h>

namespace lawn {

/// How a learning rate goes from one value to another; `detail::schedule::Segment` has the
/// equations.
enum class Decay {
  kNone,        ///< stays where it is
  kLinear,      ///< a straight line
  kCosine,      ///< half a period of a cosine: level at both ends
  kPolynomial,  ///< (1 - p)^power; power 1 is the straight line, larger ones fall faster at first
};

/// Prints the name that a table or a checkpoint shows: none, linear, cosine, polynomial.
inline std::ostream& operator<<(std::ostream& stream, Decay decay) {
  switch (decay) {
    case Decay::kNone:
      return stream << "none";
    case Decay::kLinear:
      return stream << "linear";
    case Decay::kCosine:
      return stream << "cosine";
    case Decay::kPolynomial:
      break;
  }
  return stream << "polynomial";
}

namespace detail::schedule {

/// One piece of a schedule: a factor that goes from `from` to `to` over `steps` steps. Let i = 0
/// ... steps-1 be the step inside the segment and p = i / steps:
///   factor(i) = from r + to (1 - r),   r = 1 - p                  linear
///                                      r = (1 + cos(pi p)) / 2    cosine
///                                      r = (1 - p)^power          polynomial
///                                      r = 1                      none
/// The first step has `from`; `to` belongs to the first step after the segment, so that segments
/// join without a repeated value.
struct Segment {
  int64_t steps = 0;
  Decay shape = Decay::kNone;
  double from = 1;
  double to = 1;
  double power = 1;

  double factor(int64_t i) const {
    const double left = static_cast<double>(steps - i) / static_cast<double>(steps);
    const double r = remaining(left);
    return from * r + to * (1 - r);
  }

 private:
  /// r, given `left` = 1 - p. Near the end of the segment `left` is exact, while computing 1 - p
  /// would cancel.
  double remaining(double left) const {
    constexpr double kPi = 3.141592653589793238462643383279502884;
    switch (shape) {
      case Decay::kNone:
        return 1;
      case Decay::kLinear:
        return left;
      case Decay::kCosine: {
        const double s = std::sin(kPi / 2 * left);  // (1 + cos(pi p)) / 2 = sin(pi (1 - p) / 2)^2
        return s * s;
      }
      case Decay::kPolynomial:
        break;
    }
    return std::pow(left, power);
  }
};

/// Warm-up over `steps` steps: factor(i) = (i + 1) / (steps + 1), and 1 at the first step after it.
inline Segment warmup(int64_t steps) {
  return {steps, Decay::kLinear, 1.0 / static_cast<double>(steps + 1), 1, 1};
}

/// Decay from 1 to `to` over `steps` steps; with Decay::kNone the factor stays at 1.
inline Segment decay(int64_t steps, Decay shape, double to, double power) {
  return {steps, shape, 1, shape == Decay::kNone ? 1 : to, power};
}

/// Factor at `step` >= 0 of a sequence of segments; past the last segment it is the value at which
/// that ends. Empty segments are skipped.
inline double factor_at(const std::vector<Segment>& segments, int64_t step) {
  for (const Segment& segment : segments) {
    if (step < segment.steps) {
      return segment.factor(step);
    }
    step -= segment.steps;
  }
  return segments.back().to;
}

}  // namespace detail::schedule
}  // namespace lawn
