// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <lawn/checkpoint.h>
#include <lawn/clip_grad_norm.h>
#include <lawn/grad_scaler.h>
#include <lawn/subnetwork/subnetwork.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/history.h"
#include "examples/apps/support/metrics.h"
#include "examples/apps/support/optimizers.h"
#include "examples/apps/support/progress.h"
#include "examples/apps/support/ranks.h"
#include "examples/apps/support/settings.h"
#include "examples/apps/support/step_clock.h"
#include "examples/apps/support/task.h"

namespace examples {

/// How a network is trained, whatever its task.
struct TrainerOptions {
  int64_t epochs = 1;
  int64_t batch_size = 128;      ///< a last, smaller batch of an epoch is left out
  uint64_t seed = 0;             ///< of all that the task draws
  bool scale_gradients = false;  ///< for autocast in float16: losses are scaled, bad steps skipped
  double max_gradient_norm = 0;  ///< all gradients as one vector are clipped to it; 0: they are not
  int64_t checkpoint_every = 0;  ///< epochs between checkpoints; 0 saves only at the end or a stop
  std::filesystem::path checkpoint;  ///< empty: nothing is saved
  std::filesystem::path csv;         ///< empty: nothing is written
};

/// Trains the network of a task. It can stop between any two steps and continue in another process
/// to the same bits: a checkpoint holds the network, the optimizer with its schedule, the gradient
/// scaler, the place in the epoch, and all generators. The generator of the epoch's samples is
/// saved as it was before they were drawn.
class Trainer {
 public:
  /// @param task      its network is trained in place
  /// @param stepper   steps the network's parameters
  /// @param measured  its constrained weights are measured every epoch, constrained or not
  /// @param settings  what a checkpoint must agree with to be resumed
  /// @throws c10::Error if an epoch has fewer samples than a batch
  Trainer(Task& task, Stepper& stepper, const lawn::Subnetwork& measured, TrainerOptions options,
          Settings settings)
      : task_(task),
        stepper_(stepper),
        ranks_(task.ranks()),
        measured_(measured.parameters()),
        options_(std::move(options)),
        settings_(std::move(settings)),
        generator_(at::make_generator<at::CPUGeneratorImpl>(options_.seed)),
        epoch_generator_(generator_.get_state()),
        sums_(at::zeros({static_cast<int64_t>(task_.batch_columns().size())},
                        at::TensorOptions(at::kDouble).device(task_.device()))),
        scaler_(lawn::GradScalerOptions().enabled(options_.scale_gradients)),
        history_(columns(task_, measured)),
        clock_(task_.device()) {
    TORCH_CHECK(options_.batch_size <= task_.size(), "--batch-size ", options_.batch_size,
                ": an epoch has only ", task_.size(), " ", task_.unit());
    for (const at::Tensor& parameter : task_.network().parameters()) {
      if (parameter.dim() >= 2) all_weights_.push_back(parameter);
    }
    initial_norm_ = joint_norm(norms(measured_));
    initial_norm_of_all_ = joint_norm(norms(all_weights_));
  }

  /// Batches in an epoch.
  static int64_t steps_per_epoch(int64_t samples, int64_t batch_size) {
    return std::max<int64_t>(1, samples / batch_size);
  }
  int64_t total_steps() const {
    return options_.epochs * steps_per_epoch(task_.size(), options_.batch_size);
  }
  int64_t steps() const { return step_; }
  bool finished() const { return step_ == total_steps(); }

  const History& history() const { return history_; }
  const StepTimes& times() const { return clock_.times(); }
  /// Norm of the measured weights before the first step.
  double initial_norm() const { return initial_norm_; }
  /// Norm of all weights, constrained or not, before the first step.
  double initial_norm_of_all() const { return initial_norm_of_all_; }
  /// Norm of the measured weights now, over that before the first step.
  double norm_growth() const { return joint_norm(norms(measured_)) / initial_norm_; }
  /// The same of all weights.
  double norm_growth_of_all() const {
    return joint_norm(norms(all_weights_)) / initial_norm_of_all_;
  }
  /// What losses are multiplied by; 1 without gradient scaling.
  double loss_scale() const { return scaler_.get_scale(); }
  /// Steps left out because a gradient overflowed.
  int64_t skipped_steps() const { return skipped_; }
  /// The task's score at the end of the epoch in which it was highest; -infinity and 0 if it never
  /// was a number.
  double best_score() const { return best_score_; }
  int64_t best_epoch() const { return best_epoch_; }

  /// Trains on until the last epoch is done or `stop` holds after a step, on any rank, and saves a
  /// checkpoint.
  /// @return whether training is finished
  bool run(Progress& progress, const std::function<bool()>& stop) {
    task_.network().train();
    ranks_.begin(task_.network(), agreed());
    clock_.start();
    while (!finished()) {
      train_step();
      if (progress.due()) progress.show(step_ * options_.batch_size, running_mean(0));
      if (position_ == 0) end_epoch(progress);
      if (!finished() && ranks_.any(stop())) break;
    }
    clock_.stop();
    if (history_.size() > 0) write_csv();  // also of a run that was resumed into another folder
    if (!options_.checkpoint.empty()) save(options_.checkpoint);
    return finished();
  }

  /// Writes a checkpoint, on rank 0 for all.
  void save(const std::filesystem::path& path) {
    if (ranks_.is_root()) checkpoint().save(path);
  }

  /// Takes over the state of a checkpoint; run() then goes on from there.
  /// @throws c10::Error as lawn::Checkpoint does
  void load(const std::filesystem::path& path) {
    checkpoint().load(path);
    if (position_ == 0) return;
    const at::Tensor now = generator_.get_state();
    generator_.set_state(epoch_generator_);
    task_.enter_epoch(epochs_done(), /*anew=*/false);
    task_.begin_epoch(generator_);
    generator_.set_state(now);
  }

 private:
  /// Everything on which the rest of the run depends.
  lawn::Checkpoint checkpoint() {
    lawn::Checkpoint all;
    for (const auto& [name, value] : settings_) all.require(name, value);
    all.add("network", task_.network());
    stepper_.add_to(all);
    task_.add_to(all);
    all.add("scaler", scaler_)
        .add("step", step_)
        .add("position", position_)
        .add("skipped", skipped_)
        .add("sums", sums_)
        .add("generator", generator_)
        .add("epoch_generator", epoch_generator_)
        .add_random_state();
    all.add("history", history_)
        .add("initial_norm", initial_norm_)
        .add("initial_norm_of_all", initial_norm_of_all_)
        .add("best_score", best_score_)
        .add("best_epoch", best_epoch_)
        .add("seconds", clock_.times().whole)
        .add("optimizer_seconds", clock_.times().optimizer)
        .add("timed_steps", clock_.times().timed);
    return all;
  }

  static std::vector<std::string> columns(const Task& task, const lawn::Subnetwork& measured) {
    std::vector<std::string> names = {task.epoch_name(), "step", "constrained", "learning_rate"};
    const auto add = [&names](const std::vector<std::string>& more) {
      names.insert(names.end(), more.begin(), more.end());
    };
    add(task.batch_columns());
    add(task.columns());
    add({"weight_norm", "all_weights_norm", "update_norm", "seconds", task.unit() + "_per_second"});
    for (const std::string& name : measured.names()) names.push_back("norm:" + name);
    return names;
  }

  int64_t epochs_done() const { return step_ / steps_per_epoch(task_.size(), options_.batch_size); }

  /// What ranks that train together have in common.
  std::string agreed() const {
    return lines(settings_) + "steps done " + std::to_string(step_) + "\n";
  }

  void train_step() {
    const int64_t batch_size = options_.batch_size;
    if (position_ == 0) {
      epoch_generator_ = generator_.get_state();
      task_.enter_epoch(epochs_done(), /*anew=*/true);
      task_.begin_epoch(generator_);
      sums_.zero_();
    }
    const bool last_of_epoch = position_ + 2 * batch_size > task_.size();
    stepper_.optimizer().zero_grad();
    const Task::Batch batch = task_.batch(position_, position_ + batch_size, generator_);
    const Part mine = ranks_.part(position_, position_ + batch_size);
    ranks_.backward(scaler_.scale(batch.loss), mine.size(), step_);
    if (options_.max_gradient_norm > 0) {
      scaler_.unscale_(stepper_.optimizer());
      lawn::clip_grad_norm_(task_.network().parameters(), options_.max_gradient_norm);
    }
    const std::vector<at::Tensor> before =
        last_of_epoch ? copies(measured_) : std::vector<at::Tensor>();
    rate_ = stepper_.learning_rate();
    bool stepped = true;
    clock_.time_optimizer(step_, [&] { stepped = scaler_.step(stepper_.optimizer()); });
    scaler_.update();
    if (stepped) task_.after_step();
    // A skipped step does not count for the schedule, as it does not for LAWN's switch.
    if (stepped) stepper_.advance_schedule();
    if (!stepped) ++skipped_;
    if (last_of_epoch) update_norm_ = distance(before, measured_);
    ranks_.sum_(batch.sums);
    sums_ += batch.sums;
    ++step_;
    position_ += batch_size;
    if (last_of_epoch) position_ = 0;
  }

  static std::vector<at::Tensor> copies(const std::vector<at::Tensor>& tensors) {
    std::vector<at::Tensor> all;
    for (const at::Tensor& tensor : tensors) all.push_back(tensor.detach().clone());
    return all;
  }

  /// Euclidean, of all tensors as one vector.
  static double distance(const std::vector<at::Tensor>& from, const std::vector<at::Tensor>& to) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> differences;
    for (size_t index = 0; index < from.size(); ++index) {
      differences.push_back(to[index] - from[index]);
    }
    return joint_norm(norms(differences));
  }

  /// Samples of this epoch that were trained on so far.
  double seen() const {
    const int64_t per_epoch = steps_per_epoch(task_.size(), options_.batch_size);
    const int64_t steps = (step_ - 1) % per_epoch + 1;
    return static_cast<double>(steps * options_.batch_size);
  }

  /// Of one of the task's sums, over this epoch so far.
  double running_mean(int64_t column) const { return sums_[column].item<double>() / seen(); }

  void write_csv() const {
    if (!options_.csv.empty() && ranks_.is_root()) history_.write_csv(options_.csv);
  }

  void end_epoch(Progress& progress) {
    clock_.stop();
    const int64_t epoch = epochs_done();
    const Task::Measured measured = task_.measure();
    const std::vector<double> layer_norms = norms(measured_);
    const double samples = static_cast<double>(step_ * options_.batch_size);
    std::vector<double> row = {static_cast<double>(epoch), static_cast<double>(step_),
                               stepper_.constrained() ? 1.0 : 0.0, rate_};
    for (int64_t column = 0; column < sums_.size(0); ++column) row.push_back(running_mean(column));
    const auto add = [&row](const std::vector<double>& more) {
      row.insert(row.end(), more.begin(), more.end());
    };
    add(measured.figures);
    add({joint_norm(layer_norms), joint_norm(norms(all_weights_)), update_norm_,
         clock_.times().whole, samples / clock_.times().whole});
    add(layer_norms);
    history_.add(std::move(row));
    if (measured.score > best_score_ || (best_epoch_ == 0 && !std::isnan(measured.score))) {
      best_score_ = measured.score;
      best_epoch_ = epoch;
    }
    progress.print(task_.epoch_name() + " " + std::to_string(epoch) + "/" +
                   std::to_string(options_.epochs) +
                   (stepper_.constrained() ? " (constrained)" : "") + "  " + measured.text +
                   "  weight norm " + fixed(joint_norm(layer_norms), 3));
    write_csv();
    if (!options_.checkpoint.empty() && options_.checkpoint_every > 0 && !finished() &&
        epoch % options_.checkpoint_every == 0) {
      save(options_.checkpoint);
    }
    clock_.start();
  }

  Task& task_;
  Stepper& stepper_;
  Ranks& ranks_;
  std::vector<at::Tensor> measured_;
  std::vector<at::Tensor> all_weights_;
  TrainerOptions options_;
  Settings settings_;

  at::Generator generator_;     ///< what the task draws from
  at::Tensor epoch_generator_;  ///< its state when the samples of this epoch were drawn
  at::Tensor sums_;             ///< of the task's batches in this epoch
  lawn::GradScaler scaler_;
  int64_t step_ = 0;
  int64_t position_ = 0;  ///< in the epoch's samples; 0 between epochs
  int64_t skipped_ = 0;
  double rate_ = 0;         ///< the learning rate of the last step
  double update_norm_ = 0;  ///< of the measured weights in the last step of the last epoch
  History history_;
  double initial_norm_ = 0;
  double initial_norm_of_all_ = 0;
  double best_score_ = -std::numeric_limits<double>::infinity();
  int64_t best_epoch_ = 0;
  StepClock clock_;
};

}  // namespace examples
