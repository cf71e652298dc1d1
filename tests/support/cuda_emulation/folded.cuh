// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/folded/step.h>
#include <lawn/sphere/flatten.h>
#include <lawn/folded/cuda/launchers.cuh>

#include "tests/support/cuda_emulation/heap_tensor.h"
#include "tests/support/cuda_emulation/kernels.cuh"

/// What tests of the folded steps' kernels on the host have in common: layers with moments, and the
/// step in plain loops over float64 to compare with.
namespace {

using lawn::detail::folded::Adam;
using lawn::detail::folded::SGD;
using Step = std::variant<Adam, SGD>;

/// A step and its name. Every number tells in the result.
struct Named {
  const char* name;
  Step step;
};

inline const Named kSteps[] = {{"Adam", Adam{0.5, 0.75, 0.01, 0.3, 0.6, 1}},
                               {"AdamW", Adam{0.5, 0.75, 0.01, 0.3, 0.6, 0.875}},
                               {"SGD", SGD{0.3, 0, 0.5, false, false}},
                               {"Momentum", SGD{0.3, 0.75, 0.25, false, false}},
                               {"FirstMomentum", SGD{0.3, 0.75, 0.25, false, true}},
                               {"Nesterov", SGD{0.3, 0.75, 0, true, false}},
                               {"FirstNesterov", SGD{0.3, 0.75, 0, true, true}}};

struct Stepped {
  Layer layer;
  torch::Tensor first_moment;
  torch::Tensor second_moment;
};

/// Elements in front of each array, which misalign it.
struct Skips {
  int64_t weight = 0;
  int64_t gradient = 0;
  int64_t first_moment = 0;
  int64_t second_moment = 0;
};

/// A layer whose radii are not its norms, with what moments `step` has.
inline Stepped make_stepped(const Step& step, torch::ScalarType type, int64_t spheres,
                            int64_t numel, Skips skips = {}, double decay = 0) {
  Stepped made;
  made.layer = make_layer({type, type}, spheres, numel, {skips.weight, skips.gradient}, decay);
  made.layer.radius.mul_(lawn::sphere::aten::norm(made.layer));
  const auto shape = made.layer.weight.sizes();
  const auto* sgd = std::get_if<SGD>(&step);
  if (sgd == nullptr || sgd->momentum != 0) {
    auto first = torch::randn(shape, torch::kDouble);
    if (sgd != nullptr && sgd->first) first.fill_(std::nan(""));
    made.first_moment = heap_tensor(first.to(type), skips.first_moment);
  }
  if (sgd == nullptr) {
    const auto second = torch::rand(shape, torch::kDouble) + 0.125;
    made.second_moment = heap_tensor(second.to(type), skips.second_moment);
  }
  return made;
}

inline torch::Tensor in_float64(const torch::Tensor& tensor) {
  return tensor.defined() ? tensor.to(torch::kDouble).clone() : tensor;
}

inline Stepped twin_of(const Stepped& stepped) {
  return {twin_of(stepped.layer), in_float64(stepped.first_moment),
          in_float64(stepped.second_moment)};
}

inline void update_by(const Adam& step, double g, double& w, double* m, double* v) {
  *m = step.beta1 * *m + (1 - step.beta1) * g;
  *v = step.beta2 * *v + (1 - step.beta2) * g * g;
  w = step.decay * w -
      step.step_size * *m / (std::sqrt(*v) / step.bias_correction2_sqrt + step.eps);
}

inline void update_by(const SGD& step, double g, double& w, double* m, const double*) {
  double direction = g;
  if (m != nullptr) {
    *m = step.first ? g : step.momentum * *m + (1 - step.dampening) * g;
    direction = step.nesterov ? g + step.momentum * *m : *m;
  }
  w -= step.lr * direction;
}

/// The step as `folded/step.h` describes it, one sphere after the other.
inline void step_twin(const Stepped& twin, const Step& step) {
  const Layer& layer = twin.layer;
  if (!layer.gradient.defined() || layer.weight.numel() == 0) return;
  const auto data = [](const torch::Tensor& tensor, int64_t at) {
    return tensor.defined() ? tensor.data_ptr<double>() + at : nullptr;
  };
  const int64_t spheres = layer.unit_dim == kWholeTensor ? 1 : layer.weight.size(0);
  const int64_t numel = layer.weight.numel() / spheres;
  for (int64_t s = 0; s < spheres; ++s) {
    double* w = data(layer.weight, s * numel);
    const double* g = data(layer.gradient, s * numel);
    double* m = data(twin.first_moment, s * numel);
    double* v = data(twin.second_moment, s * numel);
    const double* radius = data(layer.radius, s);
    double c = -layer.weight_decay;
    if (radius == nullptr || *radius > 0) {
      double ww = 0;
      double gw = 0;
      for (int64_t i = 0; i < numel; ++i) {
        ww += w[i] * w[i];
        gw += g[i] * w[i];
      }
      c = std::isfinite(gw / ww) ? gw / ww : 0;
    }
    double squares = 0;
    for (int64_t i = 0; i < numel; ++i) {
      std::visit(
          [&](const auto& base) {
            update_by(base, g[i] - c * w[i], w[i], m == nullptr ? m : m + i,
                      v == nullptr ? v : v + i);
          },
          step);
      squares += w[i] * w[i];
    }
    if (radius == nullptr || !(*radius > 0)) continue;
    const double scale = *radius / std::sqrt(squares);
    if (!std::isfinite(scale) || !(scale > 0)) continue;
    for (int64_t i = 0; i < numel; ++i) w[i] *= scale;
  }
}

/// Element by element; what is not finite must be the same.
inline void expect_near(const torch::Tensor& actual, const torch::Tensor& expected,
                        torch::ScalarType type, const std::string& what) {
  ASSERT_EQ(actual.defined(), expected.defined()) << what;
  if (!expected.defined()) return;
  const double relative = tolerance(type).step;
  EXPECT_TRUE(torch::allclose(actual.to(torch::kDouble), expected, relative, relative, true))
      << what << ": " << (actual.to(torch::kDouble) - expected).abs().max().item<double>();
}

class FoldedKernels : public Kernels {
 protected:
  /// Steps all layers.
  /// @return how many launches it took
  static int run_step(const std::vector<Stepped>& layers, const Step& step,
                      const Limits* limits = nullptr) {
    namespace cuda = lawn::detail::folded::cuda;
    std::vector<lawn::detail::folded::FlatLayer> flats;
    for (const Stepped& stepped : layers) {
      EXPECT_TRUE(lawn::sphere::is_flat(stepped.layer));
      lawn::detail::folded::FlatLayer flat{lawn::sphere::flatten(stepped.layer), nullptr, nullptr};
      if (stepped.first_moment.defined()) flat.first_moment = stepped.first_moment.data_ptr();
      if (stepped.second_moment.defined()) flat.second_moment = stepped.second_moment.data_ptr();
      flats.push_back(flat);
    }
    const auto count = static_cast<int64_t>(flats.size());
    const auto& entries = cuda::kEntries;
    const auto bytes = static_cast<std::size_t>(
        limits == nullptr ? entries.workspace_bytes(flats.data(), count)
                          : cuda::workspace_bytes(flats.data(), count, *limits));
    const std::unique_ptr<char[]> workspace(new char[bytes]);
    std::memset(workspace.get(), 0xff, bytes);

    const int before = Machine::get().launches;
    const char* error = nullptr;
    if (const auto* adam = std::get_if<Adam>(&step)) {
      error = limits == nullptr
                  ? entries.adam(flats.data(), count, *adam, workspace.get(), nullptr)
                  : cuda::launch_step<cuda::AdamStep>(flats.data(), count, *adam, workspace.get(),
                                                      nullptr, *limits);
    } else {
      const auto& sgd = std::get<SGD>(step);
      error = limits == nullptr ? entries.sgd(flats.data(), count, sgd, workspace.get(), nullptr)
                                : cuda::launch_step<cuda::SGDStep>(
                                      flats.data(), count, sgd, workspace.get(), nullptr, *limits);
    }
    EXPECT_EQ(error, nullptr) << error;
    return Machine::get().launches - before;
  }

  /// Steps all layers, and a twin of each.
  /// @return how many launches it took
  static int step_and_compare(const std::vector<Stepped>& layers, const Step& step,
                              const Limits* limits = nullptr) {
    std::vector<Stepped> twins;
    for (const Stepped& stepped : layers) twins.push_back(twin_of(stepped));
    const int launches = run_step(layers, step, limits);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto& [layer, first_moment, second_moment] = layers[i];
      const auto type = layer.weight.scalar_type();
      const auto what = "layer " + std::to_string(i) + " of " +
                        std::to_string(layer.weight.numel()) + ' ' + c10::toString(type) + ", ";
      const auto gradient = in_float64(twins[i].layer.gradient);
      const auto radius = in_float64(twins[i].layer.radius);
      step_twin(twins[i], step);
      expect_near(layer.weight, twins[i].layer.weight, type, what + "weight");
      expect_near(first_moment, twins[i].first_moment, type, what + "first moment");
      expect_near(second_moment, twins[i].second_moment, type, what + "second moment");
      if (gradient.defined()) {
        EXPECT_TRUE(torch::equal(layer.gradient.to(torch::kDouble), gradient)) << what;
      }
      if (radius.defined()) {
        EXPECT_TRUE(torch::equal(layer.radius.to(torch::kDouble), radius)) << what;
      }
    }
    return launches;
  }
};

}  // namespace
