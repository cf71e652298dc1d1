// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <lawn/amp/grad_scaler.h>
#include <lawn/subnetwork/subnetwork.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/support/checkpoint.h"
#include "examples/support/history.h"
#include "examples/support/metrics.h"
#include "examples/support/optimizers.h"
#include "examples/support/progress.h"
#include "examples/support/step_clock.h"

namespace examples {

/// How a network is trained.
struct TrainerOptions {
  int64_t epochs = 1;
  int64_t batch_size = 128;      ///< a last, smaller batch of an epoch is left out
  bool augment = false;          ///< random crops with 4 pixels of padding, and flips
  uint64_t seed = 0;             ///< of the order of the images, and of crops and flips
  bool scale_gradients = false;  ///< for autocast in float16: losses are scaled, bad steps skipped
  int64_t probe_size = 1000;     ///< images of each half of the data that are measured every epoch
  int64_t checkpoint_every = 0;  ///< epochs between checkpoints; 0 saves only at the end or a stop
  std::filesystem::path checkpoint;  ///< empty: nothing is saved
  std::filesystem::path csv;         ///< empty: nothing is written
};

/// Trains a classifier, and can stop between any two steps and go on in another process to the same
/// bits: a checkpoint holds the network, the optimizer with its schedule, the gradient scaler, the
/// order of the images and where in it the run is, and all generators.
class Trainer {
 public:
  /// @param network   trained in place; must stay on feeding.device
  /// @param stepper   steps the network's parameters
  /// @param data      on feeding.device
  /// @param measured  its constrained weights are measured every epoch, constrained or not
  /// @param settings  what a checkpoint must agree with to be resumed
  Trainer(std::shared_ptr<Classifier> network, Stepper& stepper, Split data, Feeding feeding,
          const lawn::Subnetwork& measured, TrainerOptions options, Settings settings)
      : network_(std::move(network)),
        stepper_(stepper),
        data_(std::move(data)),
        feeding_(std::move(feeding)),
        measured_(measured.parameters()),
        options_(std::move(options)),
        settings_(std::move(settings)),
        probe_{subset(data_.train, std::min(options_.probe_size, data_.train.size()), 1),
               subset(data_.test, std::min(options_.probe_size, data_.test.size()), 2)},
        generator_(at::make_generator<at::CPUGeneratorImpl>(options_.seed)),
        sums_(at::zeros({4}, data_.train.images.options().dtype(at::kDouble))),
        scaler_(lawn::GradScalerOptions().enabled(options_.scale_gradients)),
        history_(columns(measured)),
        clock_(feeding_.device) {
    for (const at::Tensor& parameter : network_->parameters()) {
      if (parameter.dim() >= 2) all_weights_.push_back(parameter);
    }
    initial_norm_ = joint_norm(norms(measured_));
    initial_norm_of_all_ = joint_norm(norms(all_weights_));
  }

  /// Batches in an epoch.
  static int64_t steps_per_epoch(int64_t images, int64_t batch_size) {
    return std::max<int64_t>(1, images / batch_size);
  }
  int64_t total_steps() const {
    return options_.epochs * steps_per_epoch(data_.train.size(), options_.batch_size);
  }
  int64_t steps() const { return step_; }
  bool finished() const { return step_ == total_steps(); }

  const History& history() const { return history_; }
  const StepTimes& times() const { return clock_.times(); }
  /// Norm of the measured weights before the first step.
  double initial_norm() const { return initial_norm_; }
  /// Norm of all weights, constrained or not, before the first step.
  double initial_norm_of_all() const { return initial_norm_of_all_; }
  /// What losses are multiplied by; 1 without gradient scaling.
  double loss_scale() const { return scaler_.get_scale(); }
  /// Steps left out because a gradient overflowed.
  int64_t skipped_steps() const { return skipped_; }
  double best_accuracy() const { return best_accuracy_; }
  int64_t best_epoch() const { return best_epoch_; }

  /// Trains on until the last epoch is done or `stop` holds after a step, and saves a checkpoint.
  /// @return whether training is finished
  bool run(Progress& progress, const std::function<bool()>& stop) {
    network_->train();
    clock_.start();
    while (!finished()) {
      train_step();
      if (progress.due()) progress.show(step_ * options_.batch_size, running_loss());
      if (position_ == 0) end_epoch(progress);
      if (!finished() && stop()) break;
    }
    clock_.stop();
    if (!options_.checkpoint.empty()) save(options_.checkpoint);
    return finished();
  }

  void save(const std::filesystem::path& path) const {
    save_checkpoint(path, settings_, [this](torch::serialize::OutputArchive& archive) {
      torch::serialize::OutputArchive network;
      torch::serialize::OutputArchive stepper;
      torch::serialize::OutputArchive scaler;
      network_->save(network);
      stepper_.save(stepper);
      scaler_.save(scaler);
      archive.write("network", network);
      archive.write("stepper", stepper);
      archive.write("scaler", scaler);
      archive.write("history", history_.to_tensor());
      archive.write("order", order_);
      archive.write("sums", sums_);
      archive.write("generator", generator_.get_state());
      archive.write("default_generator", default_generator(at::kCPU).get_state());
      archive.write("device_generator", default_generator(feeding_.device).get_state());
      archive.write("counters", c10::IValue(std::vector<int64_t>{step_, position_, best_epoch_,
                                                                 clock_.times().timed, skipped_}));
      archive.write("figures", c10::IValue(std::vector<double>{
                                   initial_norm_, best_accuracy_, clock_.times().whole,
                                   clock_.times().optimizer, initial_norm_of_all_}));
    });
  }

  /// Takes over the state of a checkpoint; run() then goes on from there.
  /// @throws c10::Error as open_checkpoint() does
  void load(const std::filesystem::path& path) {
    torch::serialize::InputArchive archive = open_checkpoint(path, settings_, feeding_.device);
    torch::serialize::InputArchive network;
    torch::serialize::InputArchive stepper;
    torch::serialize::InputArchive scaler;
    at::Tensor history, generator, default_state, device_state;
    c10::IValue counters, figures;
    archive.read("network", network);
    archive.read("stepper", stepper);
    archive.read("scaler", scaler);
    archive.read("history", history);
    archive.read("order", order_);
    archive.read("sums", sums_);
    archive.read("generator", generator);
    archive.read("default_generator", default_state);
    archive.read("device_generator", device_state);
    archive.read("counters", counters);
    archive.read("figures", figures);
    network_->load(network);
    stepper_.load(stepper);
    scaler_.load(scaler);
    history_.from_tensor(history.cpu());
    generator_.set_state(generator.cpu());
    default_generator(feeding_.device).set_state(device_state.cpu());
    default_generator(at::kCPU).set_state(default_state.cpu());
    set_order(order_.cpu());
    step_ = counters.toIntVector().at(0);
    position_ = counters.toIntVector().at(1);
    best_epoch_ = counters.toIntVector().at(2);
    skipped_ = counters.toIntVector().at(4);
    initial_norm_ = figures.toDoubleVector().at(0);
    best_accuracy_ = figures.toDoubleVector().at(1);
    initial_norm_of_all_ = figures.toDoubleVector().at(4);
    clock_.set_times({figures.toDoubleVector().at(2), figures.toDoubleVector().at(3),
                      counters.toIntVector().at(3)});
  }

 private:
  static at::Generator default_generator(at::Device device) {
    return at::globalContext().defaultGenerator(device);
  }

  static std::vector<std::string> columns(const lawn::Subnetwork& measured) {
    std::vector<std::string> names = {"epoch",
                                      "step",
                                      "constrained",
                                      "learning_rate",
                                      "batch_loss",
                                      "batch_accuracy",
                                      "train_loss",
                                      "train_accuracy",
                                      "train_logit_norm",
                                      "train_vanished",
                                      "train_calibration",
                                      "test_loss",
                                      "test_accuracy",
                                      "test_logit_norm",
                                      "test_calibration",
                                      "weight_norm",
                                      "all_weights_norm",
                                      "update_norm",
                                      "seconds",
                                      "images_per_second"};
    for (const std::string& name : measured.names()) names.push_back("norm:" + name);
    return names;
  }

  /// Takes the order of an epoch, and has a copy of it beside the data: one for each step would
  /// make the host wait for the device.
  void set_order(const at::Tensor& order) {
    order_ = order;
    order_beside_data_ = order.to(feeding_.device);
  }

  void train_step() {
    const int64_t batch = std::min(options_.batch_size, data_.train.size());
    if (position_ == 0) {
      set_order(at::randperm(data_.train.size(), generator_, at::TensorOptions(at::kLong)));
      sums_.zero_();
    }
    const bool last_of_epoch = position_ + 2 * batch > data_.train.size();
    const at::Tensor chosen = order_beside_data_.slice(0, position_, position_ + batch);
    at::Tensor images = data_.train.images.index_select(0, chosen);
    const at::Tensor labels = data_.train.labels.index_select(0, chosen);
    if (options_.augment) {
      images = crop_and_flip(images, draw_crop_and_flip(batch, kPadding, generator_), kPadding);
    }
    stepper_.optimizer().zero_grad();
    const at::Tensor logits = feeding_.logits(*network_, images);
    scaler_.scale(at::cross_entropy_loss(logits, labels)).backward();
    const std::vector<at::Tensor> before =
        last_of_epoch ? copies(measured_) : std::vector<at::Tensor>();
    bool stepped = true;
    clock_.time_optimizer(step_, [&] { stepped = scaler_.step(stepper_.optimizer()); });
    scaler_.update();
    // A skipped step does not count for the schedule, as it does not for LAWN's switch.
    if (stepped) stepper_.advance_schedule();
    if (!stepped) ++skipped_;
    if (last_of_epoch) update_norm_ = distance(before, measured_);
    {
      const at::NoGradGuard no_grad;
      sums_ += metric_sums(logits, labels);
    }
    ++step_;
    position_ += batch;
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

  /// Images of this epoch that were trained on so far.
  double seen() const {
    const int64_t per_epoch = steps_per_epoch(data_.train.size(), options_.batch_size);
    const int64_t steps = (step_ - 1) % per_epoch + 1;
    return static_cast<double>(steps * std::min(options_.batch_size, data_.train.size()));
  }

  double running_loss() const { return sums_[0].item<double>() / seen(); }

  void end_epoch(Progress& progress) {
    clock_.stop();
    const int64_t epoch = step_ / steps_per_epoch(data_.train.size(), options_.batch_size);
    const Evaluation train = evaluate(*network_, probe_.train, feeding_);
    const Evaluation test = evaluate(*network_, probe_.test, feeding_);
    const std::vector<double> layer_norms = norms(measured_);
    const double images = static_cast<double>(step_ * options_.batch_size);
    std::vector<double> row = {static_cast<double>(epoch),
                               static_cast<double>(step_),
                               stepper_.constrained() ? 1.0 : 0.0,
                               stepper_.learning_rate(),
                               running_loss(),
                               sums_[1].item<double>() / seen(),
                               train.loss,
                               train.accuracy,
                               train.logit_norm,
                               train.vanished,
                               train.calibration,
                               test.loss,
                               test.accuracy,
                               test.logit_norm,
                               test.calibration,
                               joint_norm(layer_norms),
                               joint_norm(norms(all_weights_)),
                               update_norm_,
                               clock_.times().whole,
                               images / clock_.times().whole};
    row.insert(row.end(), layer_norms.begin(), layer_norms.end());
    history_.add(std::move(row));
    if (test.accuracy > best_accuracy_) {
      best_accuracy_ = test.accuracy;
      best_epoch_ = epoch;
    }
    progress.print("epoch " + std::to_string(epoch) + "/" + std::to_string(options_.epochs) +
                   (stepper_.constrained() ? " (constrained)" : "") + "  train loss " +
                   fixed(train.loss, 4) + " accuracy " + percent(train.accuracy) + "  test loss " +
                   fixed(test.loss, 4) + " accuracy " + percent(test.accuracy) + "  logit norm " +
                   fixed(train.logit_norm, 2) + "  weight norm " +
                   fixed(joint_norm(layer_norms), 3));
    if (!options_.csv.empty()) history_.write_csv(options_.csv);
    if (!options_.checkpoint.empty() && options_.checkpoint_every > 0 && !finished() &&
        epoch % options_.checkpoint_every == 0) {
      save(options_.checkpoint);
    }
    clock_.start();
  }

  static constexpr int64_t kPadding = 4;

  std::shared_ptr<Classifier> network_;
  Stepper& stepper_;
  Split data_;
  Feeding feeding_;
  std::vector<at::Tensor> measured_;
  std::vector<at::Tensor> all_weights_;
  TrainerOptions options_;
  Settings settings_;
  Split probe_;

  at::Generator generator_;                       ///< orders the images, crops and flips them
  at::Tensor order_ = at::empty({0}, at::kLong);  ///< of the images in this epoch
  at::Tensor order_beside_data_;                  ///< the same, on the data's device
  at::Tensor sums_;                               ///< metric_sums() over this epoch's batches
  lawn::GradScaler scaler_;
  int64_t step_ = 0;
  int64_t position_ = 0;  ///< in order_; 0 between epochs
  int64_t skipped_ = 0;
  double update_norm_ = 0;  ///< of the measured weights in the last step of the last epoch
  History history_;
  double initial_norm_ = 0;
  double initial_norm_of_all_ = 0;
  double best_accuracy_ = 0;
  int64_t best_epoch_ = 0;
  StepClock clock_;
};

}  // namespace examples
