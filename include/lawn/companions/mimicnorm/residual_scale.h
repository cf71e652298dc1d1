// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <ostream>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/relu.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <lawn/finite_math.h>

namespace lawn {

/// Gain that makes up for what centring removes from a layer's outputs after a ReLU. The mean holds
/// 1/pi of the mean square of a rectified Gaussian, and a centred weight does not see the mean.
/// sqrt(1 / (1 - 1/pi)) = 1.21, rounded as in the paper.
constexpr double kCenteringGain = 1.2;

/// Options of `ResidualScale`. Checked when it is constructed.
struct ResidualScaleOptions {
  /// @param block  index of the residual block in the network, counted from 1
  ResidualScaleOptions(int64_t block) : block_(block) {}  // NOLINT: as LibTorch's own
  /// Index of the block among the residual blocks, counted from 1.
  TORCH_ARG(int64_t, block);
  /// Number of convolutions in the branch: 2 in a basic block, 3 in a bottleneck; >= 0.
  TORCH_ARG(int64_t, convolutions) = 2;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(block() >= 1, "lawn::ResidualScale: block must be >= 1, counted from 1, got ",
                block());
    TORCH_CHECK(convolutions() >= 0, "lawn::ResidualScale: convolutions must be >= 0, got ",
                convolutions());
  }

  /// Initial value of the scale: 1.2^convolutions / block.
  double initial() const {
    return std::pow(kCenteringGain, static_cast<double>(convolutions())) /
           static_cast<double>(block());
  }
};

/// The end of a residual block without normalisation.
///
///   y = ReLU(s F(x) + shortcut)          s learned, from 1.2^convolutions / block
///
/// @source  Fei et al. 2020, arXiv 2010.09278
class ResidualScaleImpl : public torch::nn::Cloneable<ResidualScaleImpl> {
 public:
  /// @throws c10::Error that names the option that is out of range
  explicit ResidualScaleImpl(const ResidualScaleOptions& options) : options_(options) {
    options_.validate();
    reset();
  }

  /// Resets the scale to its initial value, in place.
  void reset() override {
    if (parameters_.contains("scale")) {
      const at::NoGradGuard no_grad;
      scale.fill_(options_.initial());
      return;
    }
    scale = register_parameter("scale", at::full({}, options_.initial(), at::kFloat));
  }

  /// @param branch    F(x), any shape, floating point
  /// @param shortcut  of the same shape
  /// @return the same shape
  /// @throws c10::Error if the shapes differ
  /// @note   does not wait for the device
  at::Tensor forward(const at::Tensor& branch, const at::Tensor& shortcut) {
    TORCH_CHECK(branch.sizes() == shortcut.sizes(),
                "lawn::ResidualScale: expected branch and shortcut of one shape, got ",
                branch.sizes(), " and ", shortcut.sizes(),
                "; bring the shortcut to the branch's channels and stride");
    return at::relu(scale * branch + shortcut);
  }

  /// Prints the name and the options.
  void pretty_print(std::ostream& stream) const override {
    stream << "lawn::ResidualScale(block=" << options_.block()
           << ", convolutions=" << options_.convolutions() << ")";
  }

  /// The options that the constructor got.
  const ResidualScaleOptions& options() const { return options_; }

  /// The learned scale s, 0-dim.
  at::Tensor scale;

 private:
  ResidualScaleOptions options_;
};

/// Handle of `ResidualScaleImpl`, which has the documentation.
TORCH_MODULE(ResidualScale);

}  // namespace lawn
