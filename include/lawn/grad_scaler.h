// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/full.h>
#include <c10/core/Device.h>
#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/checked_read.h>
#include <lawn/distributed/collective.h>
#include <lawn/distributed/shard_ranks.h>
#include <lawn/grad_scaler/options.h>
#include <lawn/grad_scaler/unscale.h>
#include <lawn/parameters/gradient_values.h>

namespace lawn {

/// Scales losses up, so that small gradients do not vanish in half precision, and gradients down
/// again; skips steps whose gradients overflowed, and adapts the scale.
///
///   scaler.scale(loss).backward();
///   scaler.unscale_(optimizer);                        // only to see or clip the gradients
///   lawn::clip_grad_norm_(model->parameters(), 1.0);
///   if (scaler.step(optimizer)) schedule.step();       // false: the step was skipped
///   scaler.update();                                   // once for all optimizers
///
/// A skipped step calls nothing on the optimizer, so that under `LAWN` no weight, no moment and no
/// step count changes. The rules are those of `torch.amp.GradScaler`; any optimizer will do. The
/// scale lives on the device of the first loss. Unlike PyTorch's, it never falls below the smallest
/// normal float32 (about 1.2e-38): PyTorch's becomes 0 there, and all later gradients NaN.
///
/// The gradients of one optimizer may share memory, and a parameter may be listed twice: each
/// gradient is divided once. A gradient that shares memory with one of another optimizer is divided
/// for each of them.
///
/// If the optimizer's parameters are sharded over ranks (the parts of `ParameterShards`, or those
/// given to `ShardedSpheres`), all ranks step or skip together, and their scales stay the same:
/// every rank learns of a gradient that is not finite. Every rank makes the same calls, even if its
/// parts have no elements or no gradients. A rank that has no samples in the first step scales a
/// zero, `scaler.scale(torch::zeros({}, device))`.
/// @note   `step` waits for the device once, as PyTorch's does; `get_scale` and `save` wait too.
///         Nothing else waits, except for copies from a GPU to a scale on the host. Over shards,
///         `unscale_` (or the `step` that does its work) takes one sum over the ranks, of two
///         numbers
/// @source Micikevicius et al. 2018, arXiv 1710.03740, section 3.2
class GradScaler {
 public:
  /// @throws c10::Error that names an option out of its range
  explicit GradScaler(const GradScalerOptions& options = {}) : options_(options) {
    options_.validate();
  }
  // Two scalers with one scale would both adapt it.
  GradScaler(const GradScaler&) = delete;
  GradScaler& operator=(const GradScaler&) = delete;
  /// Moved, not copied: each optimizer belongs to one scaler.
  GradScaler(GradScaler&&) = default;
  GradScaler& operator=(GradScaler&&) = default;
  ~GradScaler() = default;

  /// Returns `loss` times the scale, for `backward`. A 0-dim loss in half becomes float32.
  at::Tensor scale(const at::Tensor& loss) {
    if (!options_.enabled()) return loss;
    if (!scale_.defined()) place(loss.device());
    return loss * detail::parameters::to_device(scale_, loss.device());
  }

  /// The same for several losses, on any devices.
  std::vector<at::Tensor> scale(c10::ArrayRef<at::Tensor> losses) {
    std::vector<at::Tensor> scaled;
    scaled.reserve(losses.size());
    for (const at::Tensor& loss : losses) scaled.push_back(scale(loss));
    return scaled;
  }

  /// Divides the gradients of `optimizer` by the scale and notes whether one of them is not finite.
  /// Call it to read or clip gradients between `backward` and `step`; otherwise `step` does it.
  /// @throws c10::Error if no loss was scaled; after `step`, or a second time before `update`; for
  ///         gradients in half, which have already lost what scaling preserves; for others that
  ///         LibTorch cannot divide in place (bfloat16 on CUDA); and over shards if a rank does not
  ///         call, as the ranks' collective reports it. In all cases except the last, nothing is
  ///         changed
  void unscale_(torch::optim::Optimizer& optimizer) {
    if (options_.enabled()) unscale(optimizer, "unscale_");
  }

  /// Unscales the gradients if `unscale_` has not, and steps unless one of them is not finite.
  /// @param optimizer  with gradients of a scaled loss
  /// @param closure    only for a disabled scaler: its gradients would come too late to be checked
  /// @return whether the optimizer stepped
  /// @throws c10::Error as `unscale_` does; also for a second call before `update`, for an
  ///         optimizer without any gradient (over shards: on any rank) and for a closure
  bool step(torch::optim::Optimizer& optimizer,
            const torch::optim::Optimizer::LossClosure& closure = nullptr) {
    if (!options_.enabled()) {
      optimizer.step(closure);
      return true;
    }
    TORCH_CHECK(!closure,
                "lawn::GradScaler: expected step without a closure, got one; scale the loss, call "
                "backward(), then step, or disable the scaler");
    if (progress_.find(&optimizer) == progress_.end()) unscale(optimizer, "step");
    Progress& progress = progress_.at(&optimizer);
    TORCH_CHECK(!progress.stepped,
                "lawn::GradScaler: expected step once for each optimizer, got it a second time "
                "since the last update()");
    const auto found = progress.found.read();
    if (!found.gradients) progress_.erase(&optimizer);  // so that it can be stepped with gradients
    TORCH_CHECK(found.gradients,
                "lawn::GradScaler: expected gradients, got an optimizer whose parameters have "
                "none; call scale(loss).backward() first");
    if (found.finite) optimizer.step();
    progress.stepped = true;
    return found.finite;
  }

  /// Ends an iteration. The scale shrinks by `backoff_factor` if a gradient of any optimizer was
  /// not finite, and grows by `growth_factor` after `growth_interval` good iterations in a row.
  /// @throws c10::Error if nothing was unscaled or stepped since the last call
  void update() {
    if (!options_.enabled()) return;
    check_scaled("update");
    at::Tensor found_inf;
    for (const auto& [optimizer, progress] : progress_) {
      const at::Tensor& found = progress.found.not_finite;
      if (!found.defined()) continue;
      found_inf = found_inf.defined() ? found_inf + found : found;
    }
    TORCH_CHECK(found_inf.defined(),
                "lawn::GradScaler: expected step or unscale_ before update, got neither since the "
                "last update()");
    const at::NoGradGuard no_grad;
    at::_amp_update_scale_(scale_, growth_tracker_, found_inf, options_.growth_factor(),
                           options_.backoff_factor(), options_.growth_interval());
    scale_.clamp_min_(std::numeric_limits<float>::min());
    progress_.clear();
  }

  /// Ends an iteration with a scale of your own, within the limits of `init_scale`; the count of
  /// good steps stays.
  void update(double new_scale) {
    TORCH_CHECK(detail::grad_scaler::can_be_scale(new_scale),
                "lawn::GradScaler: update needs a scale that is finite and > 0 as a normal float32 "
                "(1.2e-38 to 3.4e38), got ",
                new_scale);
    if (!options_.enabled()) return;
    check_scaled("update");
    scale_.fill_(new_scale);
    progress_.clear();
  }

  /// Returns the scale, or 1 if the scaler is disabled. Waits for the device.
  double get_scale() const {
    if (!options_.enabled()) return 1;
    return scale_.defined() ? scale_.item<double>() : options_.init_scale();
  }

  /// Whether the scaler is enabled.
  bool is_enabled() const { return options_.enabled(); }
  /// The options as given or loaded; `init_scale` is not the present scale.
  const GradScalerOptions& options() const { return options_; }

  /// Writes the scale, the factors and the count of good steps; `torch::save` calls it. Waits for
  /// the device.
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

  /// Reads what `save` wrote; `torch::load` calls it. A disabled scaler reads nothing.
  /// @throws c10::Error for the checkpoint of a disabled scaler, and for values out of range:
  ///         nothing is changed then
  void load(torch::serialize::InputArchive& archive) {
    if (!options_.enabled()) return;
    using namespace detail::archive;
    TORCH_CHECK(read_bool(kWho, archive, "enabled"), kWho,
                ": expected the checkpoint of an enabled scaler, got that of a disabled one; "
                "nothing was changed");
    const double scale = read_double(kWho, archive, "scale");
    TORCH_CHECK(detail::grad_scaler::can_be_scale(scale), kWho,
                ": expected a checkpoint whose scale is finite and > 0 as a normal float32 "
                "(1.2e-38 to 3.4e38), got ",
                scale, "; nothing was changed");
    auto loaded = GradScalerOptions()
                      .init_scale(scale)
                      .growth_factor(read_double(kWho, archive, "growth_factor"))
                      .backoff_factor(read_double(kWho, archive, "backoff_factor"))
                      .growth_interval(read_int(kWho, archive, "growth_interval"));
    loaded.validate();
    const int64_t good_steps =
        read_int(kWho, archive, "growth_tracker", 0, loaded.growth_interval() - 1);
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
  static constexpr const char* kWho = "lawn::GradScaler";

  /// What was done to an optimizer in this iteration. An optimizer has an entry once its gradients
  /// are unscaled.
  struct Progress {
    bool stepped = false;
    detail::grad_scaler::Unscaled found;
  };

  /// @param what  name of the function that was called, for messages
  void unscale(const torch::optim::Optimizer& optimizer, const char* what) {
    const auto parameters = detail::grad_scaler::parameters_of(optimizer);
    Collective* const ranks = detail::distributed::ranks_of("lawn::GradScaler", parameters);
    Progress progress;
    detail::distributed::tell_ranks_of_errors(ranks, [&] {
      check_scaled(what);
      check_order(optimizer);
      progress.found = detail::grad_scaler::unscale_(parameters, scale_, ranks != nullptr);
    });
    if (ranks != nullptr) detail::grad_scaler::share(*ranks, progress.found, scale_.device());
    progress_[&optimizer] = progress;
  }

  void place(at::Device device) {
    const auto options = at::TensorOptions().device(device);
    scale_ = at::full({}, options_.init_scale(), options.dtype(at::kFloat));
    growth_tracker_ = at::full({}, good_steps_, options.dtype(at::kInt));
  }

  void check_scaled(const char* what) const {
    TORCH_CHECK(scale_.defined(), "lawn::GradScaler: expected scale(loss) before ", what,
                ", got no loss to scale yet");
  }

  /// Refuses `optimizer` if its gradients are already unscaled or stepped in this iteration.
  void check_order(const torch::optim::Optimizer& optimizer) const {
    const auto known = progress_.find(&optimizer);
    if (known == progress_.end()) return;
    TORCH_CHECK(!known->second.stepped,
                "lawn::GradScaler: expected unscale_ before step, got it after step of the same "
                "optimizer; call update() once in each iteration");
    TORCH_CHECK(false,
                "lawn::GradScaler: expected unscale_ once for each optimizer, got it a second "
                "time since the last update()");
  }

  GradScalerOptions options_;
  at::Tensor scale_;
  at::Tensor growth_tracker_;
  /// Value of the growth tracker until the tracker has a device.
  int64_t good_steps_ = 0;
  std::map<const torch::optim::Optimizer*, Progress> progress_;
};

}  // namespace lawn
