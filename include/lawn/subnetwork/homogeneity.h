// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <c10/core/GradMode.h>
#include <torch/arg.h>

#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

/// Options of `check_homogeneity`.
struct HomogeneityCheckOptions {
  /// Factor of every constrained parameter: a power of two other than 1, so that the scaling itself
  /// does not round. Take 0.5 if the scaled logits overflow.
  TORCH_ARG(double, factor) = 2.0;
};

/// What `check_homogeneity` measured.
struct HomogeneityCheck {
  /// Whether the logits scaled by exactly `expected_ratio`, to the bit.
  bool exact = false;
  /// k of f(a w) = a^k f(w): the sub-network's degree, or, if it has none, the integer that fits
  /// the norms of the logits best; nothing if those norms are zero or not finite.
  std::optional<int64_t> degree;
  /// a^k; 1 if there is no degree.
  double expected_ratio = 1;
  /// max |f(a w) - a^k f(w)| / max |a^k f(w)|; infinite or NaN if a logit is, or if f(w) is zero
  /// and f(a w) is not.
  double largest_error = 0;
};

/// Prints the result in one line.
inline std::ostream& operator<<(std::ostream& stream, const HomogeneityCheck& check) {
  stream << (check.exact ? "exact" : "not exact") << ": degree ";
  if (check.degree) {
    stream << *check.degree;
  } else {
    stream << "unknown";
  }
  return stream << ", ratio " << check.expected_ratio << ", relative error " << check.largest_error;
}

namespace detail::subnetwork {

/// Scales tensors while it lives, and then restores them bit for bit, also after an exception. It
/// works on detached data: no version counter changes, so that a graph that is waiting for
/// backward() stays valid.
class ScaledForNow {
 public:
  ScaledForNow(const std::vector<at::Tensor>& tensors, double factor) {
    for (const at::Tensor& tensor : tensors)
      saved_.emplace_back(tensor.data(), tensor.data().clone());
    for (auto& [data, copy] : saved_) data.mul_(factor);
  }
  ScaledForNow(const ScaledForNow&) = delete;
  ScaledForNow& operator=(const ScaledForNow&) = delete;
  ~ScaledForNow() {
    const at::NoGradGuard no_grad;
    for (auto& [data, copy] : saved_) data.copy_(copy);
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> saved_;
};

inline double max_abs(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0.0 : tensor.to(at::kDouble).abs().max().item<double>();
}

}  // namespace detail::subnetwork

/// Measures the homogeneity of a network: multiplies every constrained parameter by a = 2 (or
/// another power of two), and compares the logits with a^k times what they were. Powers of two are
/// exact in floating point, so a strictly homogeneous network scales to the last bit, unless values
/// overflow or become subnormal.
///
/// @param forward     computes the logits from the parameters; must give the same bits when called
///                    twice (evaluation mode, no dropout). Called three times, without gradients
/// @param subnetwork  the parameters to scale; its degree is k. If it has none (selected by hand,
///                    or branches of different degree), k is estimated from the norms of the logits
/// @param options     the factor
/// @return whether the logits scaled exactly, and by how much they missed; biases that are not zero
///         and adds of different degree show up here
/// @throws c10::Error if the factor is not a power of two or is 1, if `forward` returns an
///         undefined tensor, or something else the second time; and whatever `forward` throws
/// @note   waits for the device. The parameters come back bit for bit, also after an exception;
///         buffers that `forward` changes (running statistics in training mode) do not
inline HomogeneityCheck check_homogeneity(const std::function<at::Tensor()>& forward,
                                          const Subnetwork& subnetwork,
                                          const HomogeneityCheckOptions& options = {}) {
  int exponent = 0;
  const double factor = options.factor();
  TORCH_CHECK(
      std::isfinite(factor) && factor != 1.0 && std::frexp(factor, &exponent) == 0.5,
      "lawn::check_homogeneity: expected a factor that is a power of two other than 1, got ",
      factor, "; take 2 or 0.5");
  exponent -= 1;

  const at::NoGradGuard no_grad;
  const at::Tensor output = forward();
  TORCH_CHECK(output.defined(),
              "lawn::check_homogeneity: expected logits from forward, got an undefined tensor; "
              "return them");
  const at::Tensor before = output.clone();
  TORCH_CHECK(
      at::equal(forward(), before),
      "lawn::check_homogeneity: expected a forward that gives the same finite logits twice, "
      "got different ones; call eval() on the network, and fix its input");
  const at::Tensor after = [&] {
    const detail::subnetwork::ScaledForNow scaled(subnetwork.parameters(), factor);
    return forward().clone();
  }();

  HomogeneityCheck check;
  check.degree = subnetwork.degree();
  if (!check.degree) {
    const double degree = std::log2(after.to(at::kDouble).norm().item<double>() /
                                    before.to(at::kDouble).norm().item<double>()) /
                          exponent;
    if (std::isfinite(degree)) check.degree = std::llround(degree);
  }
  check.expected_ratio = std::exp2(static_cast<double>(check.degree.value_or(0)) * exponent);
  const at::Tensor expected = before.mul(check.expected_ratio);
  check.exact = at::equal(after, expected);
  const double error =
      detail::subnetwork::max_abs(after.to(at::kDouble).sub(expected.to(at::kDouble)));
  check.largest_error = error == 0 ? 0 : error / detail::subnetwork::max_abs(expected);
  return check;
}

}  // namespace lawn
