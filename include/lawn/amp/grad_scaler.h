// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/optim/tensor_lists.h>

namespace lawn {

/// Options of `GradScaler`. Checked when the scaler is constructed.
struct GradScalerOptions {
  /// The first scale, > 0.
  TORCH_ARG(double, init_scale) = 65536;
  /// What the scale is multiplied by after `growth_interval` good steps in a row, > 1.
  TORCH_ARG(double, growth_factor) = 2;
  /// What the scale is multiplied by after a skipped step, in (0, 1).
  TORCH_ARG(double, backoff_factor) = 0.5;
  /// In steps, >= 1.
  TORCH_ARG(int64_t, growth_interval) = 2000;
  /// Without it the scaler does nothing, and `step` is the optimizer's own.
  TORCH_ARG(bool, enabled) = true;

 public:
  /// @throws c10::Error that names the option, what was expected and what came
  void validate() const {
    TORCH_CHECK(std::isfinite(init_scale()) && init_scale() > 0,
                "lawn::GradScaler: init_scale must be finite and > 0, got ", init_scale());
    TORCH_CHECK(std::isfinite(growth_factor()) && growth_factor() > 1,
                "lawn::GradScaler: growth_factor must be finite and > 1, got ", growth_factor());
    TORCH_CHECK(backoff_factor() > 0 && backoff_factor() < 1,
                "lawn::GradScaler: backoff_factor must be in (0, 1), got ", backoff_factor());
    TORCH_CHECK(growth_interval() >= 1, "lawn::GradScaler: growth_interval must be >= 1, got ",
                growth_interval());
  }
};

/// Scales losses up, so that small gradients do not vanish in half precision, and gradients down
/// again; skips steps whose gradients overflowed, and adapts the scale.
///
///   scaler.scale(loss).backward();
///   scaler.unscale_(optimizer);                        // only to see or clip the gradients
///   lawn::clip_grad_norm_(model->parameters(), 1.0);
///   scaler.step(optimizer);                            // steps, or skips the step
///   scaler.update();                                   // once for all optimizers
///
/// A skipped step calls nothing on the optimizer, so that under `LAWN` no weight, no moment and no
/// step count moves. The rules are those of `torch.amp.GradScaler`; any optimizer will do. The
/// scale lives on the device of the first loss.
/// @note   `step` waits for the device once, as PyTorch's does; `get_scale` and `save` wait too.
///         Nothing else does
/// @source Micikevicius et al. 2018, arXiv 1710.03740, section 3.2
class GradScaler {
 public:
  explicit GradScaler(const GradScalerOptions& options = {}) : options_(options) {
    options_.validate();
  }
  // Two scalers of one scale would both adapt it.
  GradScaler(const GradScaler&) = delete;
  GradScaler& operator=(const GradScaler&) = delete;
  GradScaler(GradScaler&&) = default;
  GradScaler& operator=(GradScaler&&) = default;
  ~GradScaler() = default;

  /// `loss` times the scale, for `backward`. Half losses of no dimension become float32.
  at::Tensor scale(const at::Tensor& loss) {
    if (!options_.enabled()) return loss;
    if (!scale_.defined()) place(loss.device());
    return loss * scale_.to(loss.device(), /*non_blocking=*/true);
  }

  /// The same for several losses, on any devices.
  std::vector<at::Tensor> scale(c10::ArrayRef<at::Tensor> losses) {
    std::vector<at::Tensor> scaled;
    scaled.reserve(losses.size());
    for (const at::Tensor& loss : losses) scaled.push_back(scale(loss));
    return scaled;
  }

  /// Divides the gradients of `optimizer` by the scale and notes whether one of them is not finite:
  /// for whoever reads or clips gradients between `backward` and `step`, which does it otherwise.
  /// @throws c10::Error if no loss was scaled, after `step` or a second time before `update`, and
  ///         for gradients in half, which have lost already what scaling is to keep: nothing is
  ///         changed then
  void unscale_(torch::optim::Optimizer& optimizer) {
    if (!options_.enabled()) return;
    check_scaled("unscale_");
    const auto known = progress_.find(&optimizer);
    if (known != progress_.end()) {
      TORCH_CHECK(!known->second.stepped,
                  "lawn::GradScaler: expected unscale_ before step, got it after step of the same "
                  "optimizer; call update() once in each iteration");
      TORCH_CHECK(false,
                  "lawn::GradScaler: expected unscale_ once for each optimizer, got it a second "
                  "time since the last update()");
    }
    const auto gradients = gradients_of(optimizer);
    const at::NoGradGuard no_grad;
    const auto inverse = scale_.to(at::kDouble).reciprocal().to(at::kFloat);
    Progress progress;
    for (const auto& list : detail::by_device_and_dtype(gradients)) {
      const auto chosen = detail::pick(gradients, list);
      const auto device = chosen.front().device();
      auto found = at::zeros({}, inverse.options().device(device));
      at::_amp_foreach_non_finite_check_and_unscale_(chosen, found,
                                                     inverse.to(device, /*non_blocking=*/true));
      found = found.to(scale_.device(), /*non_blocking=*/true);
      progress.found_inf = progress.found_inf.defined() ? progress.found_inf + found : found;
    }
    progress_[&optimizer] = progress;
  }

  /// Unscales the gradients if that is still to be done, and steps unless one is not finite.
  /// @param closure  for a disabled scaler alone: its gradients would come too late to be looked at
  /// @return whether the optimizer stepped
  /// @throws c10::Error as `unscale_` does, for a second call before `update`, for an optimizer
  ///         without any gradient and for a closure
  bool step(torch::optim::Optimizer& optimizer,
            const torch::optim::Optimizer::LossClosure& closure = nullptr) {
    if (!options_.enabled()) {
      optimizer.step(closure);
      return true;
    }
    TORCH_CHECK(!closure,
                "lawn::GradScaler: expected step without a closure, got one; scale the loss, call "
                "backward(), then step, or disable the scaler");
    check_scaled("step");
    if (progress_.find(&optimizer) == progress_.end()) unscale_(optimizer);
    Progress& progress = progress_.at(&optimizer);
    TORCH_CHECK(!progress.stepped,
                "lawn::GradScaler: expected step once for each optimizer, got it a second time "
                "since the last update()");
    TORCH_CHECK(progress.found_inf.defined(),
                "lawn::GradScaler: expected gradients, got an optimizer whose parameters have "
                "none; call scale(loss).backward() first");
    const bool finite = progress.found_inf.item<float>() == 0;
    if (finite) optimizer.step();
    progress.stepped = true;
    return finite;
  }

  /// Ends an iteration. Backs the scale off if a gradient of any optimizer was not finite, and lets
  /// it grow after `growth_interval` iterations in a row without one.
  /// @throws c10::Error if nothing was unscaled or stepped since the last time
  void update() {
    if (!options_.enabled()) return;
    check_scaled("update");
    at::Tensor found_inf;
    for (const auto& [optimizer, progress] : progress_) {
      if (!progress.found_inf.defined()) continue;
      found_inf = found_inf.defined() ? found_inf + progress.found_inf : progress.found_inf;
    }
    TORCH_CHECK(found_inf.defined(),
                "lawn::GradScaler: expected step or unscale_ before update, got neither since the "
                "last update()");
    const at::NoGradGuard no_grad;
    at::_amp_update_scale_(scale_, growth_tracker_, found_inf, options_.growth_factor(),
                           options_.backoff_factor(), options_.growth_interval());
    progress_.clear();
  }

  /// Ends an iteration with a scale of your own, finite and > 0; the count of good steps stays.
  void update(double new_scale) {
    TORCH_CHECK(std::isfinite(new_scale) && new_scale > 0,
                "lawn::GradScaler: update needs a scale that is finite and > 0, got ", new_scale);
    if (!options_.enabled()) return;
    check_scaled("update");
    scale_.fill_(new_scale);
    progress_.clear();
  }

  /// The scale, or 1 where the scaler is disabled. Waits for the device.
  double get_scale() const {
    if (!options_.enabled()) return 1;
    return scale_.defined() ? scale_.item<double>() : options_.init_scale();
  }

  bool is_enabled() const { return options_.enabled(); }
  /// As given or loaded; `init_scale` is not the present scale.
  const GradScalerOptions& options() const { return options_; }

  /// Writes the scale, the factors and the count of good steps; also through `torch::save`. Waits
  /// for the device.
  /// @throws c10::Error between `unscale_` or `step` and `update`
  void save(torch::serialize::OutputArchive& archive) const {
    TORCH_CHECK(progress_.empty(),
                "lawn::GradScaler: expected save at the end of an iteration, after update(), got "
                "it between unscale_ or step and update()");
    archive.write("enabled", c10::IValue(options_.enabled()));
    archive.write("scale", c10::IValue(get_scale()));
    archive.write("growth_factor", c10::IValue(options_.growth_factor()));
    archive.write("backoff_factor", c10::IValue(options_.backoff_factor()));
    archive.write("growth_interval", c10::IValue(options_.growth_interval()));
    archive.write(
        "growth_tracker",
        c10::IValue(growth_tracker_.defined() ? growth_tracker_.item<int64_t>() : good_steps_));
  }

  /// Reads what `save` wrote; also through `torch::load`. A disabled scaler reads nothing.
  /// @throws c10::Error for the checkpoint of a disabled scaler, and for values out of range:
  ///         nothing is changed then
  void load(torch::serialize::InputArchive& archive) {
    if (!options_.enabled()) return;
    const auto read = [&archive](const char* key) {
      c10::IValue value;
      archive.read(key, value);
      return value;
    };
    TORCH_CHECK(read("enabled").toBool(),
                "lawn::GradScaler: expected the checkpoint of an enabled scaler, got that of a "
                "disabled one; nothing was changed");
    auto loaded = GradScalerOptions()
                      .init_scale(read("scale").toDouble())
                      .growth_factor(read("growth_factor").toDouble())
                      .backoff_factor(read("backoff_factor").toDouble())
                      .growth_interval(read("growth_interval").toInt());
    const int64_t good_steps = read("growth_tracker").toInt();
    loaded.validate();
    options_ = loaded;
    good_steps_ = good_steps;
    progress_.clear();
    if (scale_.defined()) place(scale_.device());
  }

  friend torch::serialize::OutputArchive& operator<<(torch::serialize::OutputArchive& archive,
                                                     const GradScaler& scaler) {
    scaler.save(archive);
    return archive;
  }
  friend torch::serialize::InputArchive& operator>>(torch::serialize::InputArchive& archive,
                                                    GradScaler& scaler) {
    scaler.load(archive);
    return archive;
  }

 private:
  /// What was done to an optimizer in this iteration. It is in the map once it was unscaled.
  struct Progress {
    bool stepped = false;
    /// How many lists of gradients had one that is not finite, 0-dim; undefined without gradients.
    at::Tensor found_inf;
  };

  void place(at::Device device) {
    const auto options = at::TensorOptions().device(device);
    scale_ = at::full({}, options_.init_scale(), options.dtype(at::kFloat));
    growth_tracker_ = at::full({}, good_steps_, options.dtype(at::kInt));
  }

  void check_scaled(const char* what) const {
    TORCH_CHECK(scale_.defined(), "lawn::GradScaler: expected scale(loss) before ", what,
                ", got no loss to scale yet");
  }

  /// What is to be divided: of a sparse gradient, its values.
  static std::vector<at::Tensor> gradients_of(torch::optim::Optimizer& optimizer) {
    std::vector<at::Tensor> gradients;
    for (const auto& group : optimizer.param_groups()) {
      for (const at::Tensor& parameter : group.params()) {
        const at::Tensor& gradient = parameter.grad();
        if (!gradient.defined()) continue;
        TORCH_CHECK(gradient.scalar_type() != at::kHalf,
                    "lawn::GradScaler: attempting to unscale FP16 gradients: expected gradients in "
                    "float32, as autocast leaves those of float32 parameters, got Half for a "
                    "parameter of shape ",
                    parameter.sizes());
        gradients.push_back(gradient.is_sparse() ? gradient._values() : gradient);
      }
    }
    return gradients;
  }

  GradScalerOptions options_;
  at::Tensor scale_;
  at::Tensor growth_tracker_;
  /// The growth tracker until it has a device.
  int64_t good_steps_ = 0;
  std::map<const torch::optim::Optimizer*, Progress> progress_;
};

}  // namespace lawn
