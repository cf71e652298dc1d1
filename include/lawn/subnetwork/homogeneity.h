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

/// What `check_homogeneity` measured, with the added biases at zero.
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
  /// The same error with the biases as they are; `largest_error` if there are none.
  double error_with_biases = 0;
};

/// Prints the result in one line, for example "exact except for biases: degree 2, ratio 4, relative
/// error 0; with biases 0.12".
inline std::ostream& operator<<(std::ostream& stream, const HomogeneityCheck& check) {
  const bool biases =
      check.error_with_biases != check.largest_error && !std::isnan(check.largest_error);
  stream << (check.exact ? "exact" : "not exact")
         << (check.exact && biases ? " except for biases" : "") << ": degree ";
  if (check.degree) {
    stream << *check.degree;
  } else {
    stream << "unknown";
  }
  stream << ", ratio " << check.expected_ratio << ", relative error " << check.largest_error;
  if (biases) stream << "; with biases " << check.error_with_biases;
  return stream;
}

namespace detail::subnetwork {

/// Lets tensors be changed while it lives, and then restores them bit for bit, also after an
/// exception. It works on detached data: no version counter changes, so that a graph that is
/// waiting for backward() stays valid.
class ChangedForNow {
 public:
  explicit ChangedForNow(const std::vector<at::Tensor>& tensors) {
    for (const at::Tensor& tensor : tensors)
      saved_.emplace_back(tensor.data(), tensor.data().clone());
  }
  ChangedForNow(const ChangedForNow&) = delete;
  ChangedForNow& operator=(const ChangedForNow&) = delete;
  ~ChangedForNow() {
    const at::NoGradGuard no_grad;
    for (auto& [data, copy] : saved_) data.copy_(copy);
  }

  void scale(double factor) {
    for (auto& [data, copy] : saved_) data.mul_(factor);
  }
  void zero() {
    for (auto& [data, copy] : saved_) data.zero_();
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> saved_;
};

inline double max_abs(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0.0 : tensor.to(at::kDouble).abs().max().item<double>();
}

/// The largest difference relative to the largest that was expected.
inline double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  const double error = max_abs(got.to(at::kDouble).sub(expected.to(at::kDouble)));
  return error == 0 ? 0 : error / max_abs(expected);
}

}  // namespace detail::subnetwork

/// Measures the homogeneity of a network: multiplies every constrained parameter by a = 2 (or
/// another power of two), and compares the logits with a^k times what they were. Powers of two are
/// exact in floating point, so a strictly homogeneous network scales to the last bit, unless values
/// overflow or become subnormal. Biases that are added do not scale, and hide whether the rest
/// does: `added_biases()` of the sub-network are zero while the logits are compared. What they
/// change is measured beside it.
///
/// @param forward     computes the logits from the parameters; must give the same bits when called
///                    twice (evaluation mode, no dropout). Called three times, without gradients,
///                    and twice more if there are biases
/// @param subnetwork  the parameters to scale; its degree is k. If it has none (selected by hand,
///                    or branches of different degree), k is estimated from the norms of the logits
/// @param options     the factor
/// @return whether the logits scaled exactly, and by how much they missed; adds of different degree
///         show up here, and so do biases that are no parameters
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
  const at::Tensor with_biases = output.clone();
  TORCH_CHECK(
      at::equal(forward(), with_biases),
      "lawn::check_homogeneity: expected a forward that gives the same finite logits twice, "
      "got different ones; call eval() on the network, and fix its input");
  const auto scaled_logits = [&] {
    detail::subnetwork::ChangedForNow weights(subnetwork.parameters());
    weights.scale(factor);
    return forward().clone();
  };
  const at::Tensor scaled_with_biases = scaled_logits();
  at::Tensor before = with_biases;
  at::Tensor after = scaled_with_biases;
  const std::vector<at::Tensor> added = subnetwork.added_biases();
  if (!added.empty()) {
    detail::subnetwork::ChangedForNow biases(added);
    biases.zero();
    before = forward().clone();
    after = scaled_logits();
  }

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
  check.largest_error = detail::subnetwork::relative_error(after, expected);
  check.error_with_biases =
      detail::subnetwork::relative_error(scaled_with_biases, with_biases.mul(check.expected_ratio));
  return check;
}

}  // namespace lawn
