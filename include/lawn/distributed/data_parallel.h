// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/TensorOptions.h>
#include <c10/util/Exception.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <lawn/distributed/agreement.h>
#include <lawn/distributed/buffer_average.h>
#include <lawn/distributed/c10d_versions.h>
#include <lawn/distributed/data_parallel_options.h>
#include <lawn/distributed/process_group.h>
#include <lawn/distributed/replica.h>
#include <lawn/distributed/step_record.h>
#include <lawn/module_view.h>

namespace lawn {

namespace detail::distributed {

/// Whether records are checked at the end of a backward pass on a CPU, too. Tests set it on
/// machines without a GPU.
inline bool checks_late = false;

/// State of the present step of `DataParallel`, shared with the reducer's hook.
struct ParallelStep {
  ProcessGroup* ranks = nullptr;
  std::unique_ptr<StepRecord> record;
  BufferAverage* buffers = nullptr;
  /// Numbers of samples since the gradients were zero: of the first backward pass, in multiples of
  /// which losses are weighted, and of all passes.
  int64_t first_samples = 0;
  int64_t samples = 0;
  /// Factor of this rank's gradients before they are added, 0-dim; undefined until it is known.
  at::Tensor factor;

  /// Runs when the first bucket is full: waits for the other ranks' records, and sets `factor`.
  /// Records on a GPU are checked after the backward pass, so that the host does not wait during
  /// it.
  void know_the_others() {
    if (factor.defined()) return;
    if (is_host_the_device()) record->check();
    const auto share = record->share();
    factor = samples == 0
                 ? at::zeros_like(share)
                 : share * (static_cast<double>(first_samples) / static_cast<double>(samples));
    buffers->begin(*ranks, share);
  }

  /// Runs at the end of the backward pass.
  void end() const {
    if (!is_host_the_device()) record->check();
  }

  bool is_host_the_device() const { return !checks_late && ranks->device().is_cpu(); }
};

/// Hook that c10d's reducer calls for each full bucket, on the thread that runs the backward pass.
class WeightedSumHook : public c10d::CppCommHookInterface<std::shared_ptr<ParallelStep>> {
 public:
  using CppCommHookInterface::CppCommHookInterface;

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    state_->know_the_others();
    std::vector<at::Tensor> flat{bucket.getBufferRef()};
    flat[0].mul_(state_->factor);
    return state_->ranks->group()->allreduce(flat)->getFuture();
  }
};

}  // namespace detail::distributed

/// Trains copies of one model on several ranks, each with its own part of every batch.
///
///   g = sum_r n_r g_r / sum_r n_r       g_r: the gradient of rank r's mean loss over n_r samples
///
/// This is the gradient of the mean loss over the joint batch, even if the parts have different
/// sizes or are empty. The weights stay the same, bit for bit, on all ranks, whatever the optimizer
/// does with the gradients (LAWN needs nothing more).
///
///   lawn::MpiGroup ranks;
///   lawn::DataParallel parallel(*model, ranks);            // all weights and buffers from rank 0
///   lawn::LAWN optimizer(torch::optim::Adam(model->parameters()), ...);
///   for (const auto& batch : my_part_of_the_data) {
///     optimizer.zero_grad();
///     parallel.backward(loss(model->forward(batch.x), batch.y), batch.x.size(0));
///     optimizer.step();
///   }
///
/// The constructor fixes which parameters are trained: construct the object anew after freezing or
/// unfreezing one.
///
/// Buckets, and their overlap with the backward pass, are those of c10d's `Reducer`. Every rank
/// calls `backward` equally often; a rank that has no samples left calls `backward_without_batch`.
/// Gradients must be dense. Construct the object when the model is on its device and before
/// anything that reads the weights: LAWN with `Radius::kInitial`, `Admm`, `magnitude_masks`, an
/// `EmaTeacher`, a `Snapshot`. Model and group must outlive it.
/// @source Li et al. 2020, arXiv 2006.15704
class DataParallel {
 public:
  /// Checks that all ranks have the same model (names, shapes, dtypes of parameters and buffers)
  /// and the same options, then gives every rank the values of rank 0.
  /// @param model    of torch::nn or TorchScript, with at least one parameter that requires a
  ///                 gradient, on `ranks`' device
  /// @param ranks    must outlive this object, as the model must
  /// @param options  the same on every rank
  /// @throws c10::Error on every rank, if one differs, before anything is changed; the message says
  ///         which rank, and in what
  DataParallel(const ModuleView& model, ProcessGroup& ranks,
               const DataParallelOptions& options = {})
      : options_(options),
        ranks_(ranks),
        parameters_(detail::each_once(model.parameters())),
        buffers_(detail::each_once(model.buffers())),
        average_(options.buffers() == BufferPolicy::kAverage ? buffers_
                                                             : std::vector<detail::NamedTensor>{}) {
    detail::distributed::tell_of_errors(ranks_, [&] { options_.validate(); });
    check_agreement(ranks_, "lawn::DataParallel", "model",
                    detail::distributed::describe("parameter", parameters_) +
                        detail::distributed::describe("buffer", buffers_));
    check_agreement(ranks_, "lawn::DataParallel", "options", options_.describe());
    detail::distributed::tell_of_errors(ranks_, [&] {
      check_devices(parameters_);
      check_devices(buffers_);
      for (const auto& parameter : parameters_) {
        if (parameter.tensor.requires_grad()) trained_.push_back(parameter);
      }
      TORCH_CHECK(
          !trained_.empty(),
          "lawn::DataParallel: expected a model with parameters that require gradients, got "
          "none");
      detail::distributed::broadcast_(ranks_, parameters_, 0);
      detail::distributed::broadcast_(ranks_, buffers_, 0);
      make_reducer();
    });
  }
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  /// Runs a backward pass, after which each rank has the gradient over the joint batch.
  /// @param loss     the mean over this rank's samples, 0-dim
  /// @param samples  number of these samples, > 0
  /// @param step     the program's own number of the step: if given, it must be the same on all
  ///                 ranks, so that a rank which skips a step is found at once
  /// @throws c10::Error on every rank, if a rank is lost or late, is in another step, has other
  ///         weights, or fails in its own backward pass; the message names the rank and the reason
  /// @note   every parameter must get a gradient on every rank, unless `find_unused_parameters` is
  ///         set
  void backward(const at::Tensor& loss, int64_t samples,
                std::optional<int64_t> step = std::nullopt) {
    detail::distributed::tell_of_errors(ranks_, [&] {
      check_loss(loss, samples);
      reduce({loss}, {seed(loss, samples)}, step);
    });
  }

  /// The same on a rank that has no samples, or none left after `accumulate`.
  void backward_without_batch(std::optional<int64_t> step = std::nullopt) {
    detail::distributed::tell_of_errors(ranks_, [&] {
      forget_dropped();
      std::vector<at::Tensor> roots, zeros;
      for (const auto& [name, parameter] : trained_) {
        if (!parameter.requires_grad()) continue;  // frozen since
        roots.push_back(parameter.view_as(parameter));
        zeros.push_back(at::zeros_like(parameter));
      }
      reduce(roots, zeros, step);
    });
  }

  /// Runs a backward pass of this rank alone. Its gradients become part of the next `backward`,
  /// weighted by their samples. The number of these calls may differ from rank to rank.
  /// `zero_grad()` drops the gradients and their samples. `zero_grad(/*set_to_none=*/false)` must
  /// not be called between `accumulate` and `backward`: it leaves gradients of zero, whose samples
  /// would still count.
  void accumulate(const at::Tensor& loss, int64_t samples) {
    detail::distributed::tell_of_errors(ranks_, [&] {
      check_loss(loss, samples);
      const auto weight = seed(loss, samples);
      torch::autograd::backward({loss}, {weight});
    });
  }

 private:
  void make_reducer() {
    std::vector<at::Tensor> tensors;
    std::unordered_map<std::size_t, std::string> names;
    for (const auto& [name, tensor] : trained_) {
      names[tensors.size()] = name;
      tensors.push_back(tensor);
    }
    const std::vector<bool> sparse(tensors.size(), false);
    // The backward pass begins with the last layers: theirs is the first bucket.
    auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(
        tensors,
        {static_cast<std::size_t>(options_.first_bucket_bytes()),
         static_cast<std::size_t>(options_.bucket_bytes())},
        sparse);
    std::reverse(buckets.begin(), buckets.end());
    std::reverse(limits.begin(), limits.end());
    // Gradients that are views of buckets (true) cannot be detached, as zero_grad() does in C++.
    constexpr bool kGradientAsBucketView = false;
    reducer_ = detail::distributed::make_reducer(
        {tensors, buckets, limits, ranks_.group(), sparse, options_.bucket_bytes(),
         options_.find_unused_parameters(), kGradientAsBucketView, names,
         options_.first_bucket_bytes()});
    state_->ranks = &ranks_;
    state_->buffers = &average_;
    reducer_->register_comm_hook(std::make_unique<detail::distributed::WeightedSumHook>(state_));
  }

  void check_devices(const std::vector<detail::NamedTensor>& tensors) const {
    for (const auto& [name, tensor] : tensors) {
      TORCH_CHECK(ranks_.serves(tensor.device()), "lawn::DataParallel: expected a model on ",
                  ranks_.device(), ", the device of the ranks, got ", name, " on ", tensor.device(),
                  "; move it there first");
    }
  }

  /// Forgets samples whose gradients were dropped since they were accumulated.
  void forget_dropped() {
    const bool dropped = std::none_of(trained_.begin(), trained_.end(), [](const auto& parameter) {
      return parameter.tensor.grad().defined();
    });
    if (dropped) state_->samples = 0;
  }

  /// Factor of a loss: its number of samples divided by that of the first loss.
  at::Tensor seed(const at::Tensor& loss, int64_t samples) {
    forget_dropped();
    if (state_->samples == 0) state_->first_samples = samples;
    state_->samples += samples;
    return at::ones_like(loss) *
           (static_cast<double>(samples) / static_cast<double>(state_->first_samples));
  }

  void reduce(const std::vector<at::Tensor>& roots, const std::vector<at::Tensor>& seeds,
              std::optional<int64_t> step) {
    check_frozen();
    ranks_.enter_step(step.value_or(steps_));
    reducer_->prepare_for_forward();
    reducer_->rebuild_buckets();
    const auto every = options_.compare_weights_every();
    const bool compare = every > 0 && steps_ % every == 0;
    state_->factor.reset();
    state_->record = std::make_unique<detail::distributed::StepRecord>(
        ranks_, step.value_or(steps_), state_->samples,
        compare ? detail::distributed::fingerprint(parameters_, ranks_.device())
                : at::zeros({}, at::TensorOptions(ranks_.device()).dtype(at::kLong)));
    reducer_->prepare_for_backward(options_.find_unused_parameters() ? roots
                                                                     : std::vector<at::Tensor>{});
    torch::autograd::backward(roots, seeds);
    check_reduced();
    state_->end();
    average_.end();
    state_->samples = 0;
    ++steps_;
  }

  /// Checks that the same parameters require gradients as at construction, when the reducer was
  /// made for them. With `find_unused_parameters` a parameter may have been frozen since.
  void check_frozen() const {
    std::string frozen, unfrozen;
    auto trained = trained_.begin();  // some of `parameters_`, in the same order
    for (const auto& [name, parameter] : parameters_) {
      const bool was_trained = trained != trained_.end() && trained->tensor.is_same(parameter);
      if (was_trained) ++trained;
      if (was_trained == parameter.requires_grad()) continue;
      if (was_trained && options_.find_unused_parameters()) continue;
      auto& names = was_trained ? frozen : unfrozen;
      names += (names.empty() ? "" : ", ") + name;
    }
    TORCH_CHECK(frozen.empty() && unfrozen.empty(),
                "lawn::DataParallel: expected the parameters to require gradients as they did when "
                "it was constructed, got ",
                frozen, frozen.empty() ? "" : " frozen since",
                frozen.empty() || unfrozen.empty() ? "" : ", ", unfrozen,
                unfrozen.empty() ? "" : " unfrozen since",
                "; construct it anew, on every rank, after requires_grad_ was called");
  }

  void check_reduced() {
    try {
      reducer_->check_finalized();
    } catch (const c10::Error&) {
      std::string without;
      for (const auto& [name, parameter] : trained_) {
        if (!parameter.grad().defined()) without += (without.empty() ? " " : ", ") + name;
      }
      TORCH_CHECK(false,
                  "lawn::DataParallel: expected a gradient for every parameter, got none for",
                  without.empty() ? " some" : without,
                  "; freeze what the loss does not use (requires_grad_(false)) before constructing "
                  "it, or set find_unused_parameters");
    }
  }

  static void check_loss(const at::Tensor& loss, int64_t samples) {
    TORCH_CHECK(
        loss.defined() && loss.dim() == 0 && loss.requires_grad(),
        "lawn::DataParallel: expected a loss of no dimension that requires a gradient, got ",
        loss.defined() ? "one of shape " + c10::str(loss.sizes()) : "an undefined tensor",
        "; a rank without samples calls backward_without_batch");
    TORCH_CHECK(samples > 0, "lawn::DataParallel: expected samples > 0, got ", samples,
                "; a rank without samples calls backward_without_batch");
  }

  DataParallelOptions options_;
  ProcessGroup& ranks_;
  std::vector<detail::NamedTensor> parameters_;
  std::vector<detail::NamedTensor> buffers_;
  std::vector<detail::NamedTensor> trained_;
  detail::distributed::BufferAverage average_;
  std::shared_ptr<detail::distributed::ParallelStep> state_ =
      std::make_shared<detail::distributed::ParallelStep>();
  std::unique_ptr<c10d::Reducer> reducer_;
  int64_t steps_ = 0;
};

}  // namespace lawn
