// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/where.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/nn/module.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/checked_read.h>
#include <lawn/archive/copy_values.h>
#include <lawn/companions/eman/ema_options.h>
#include <lawn/companions/keep_random_state.h>
#include <lawn/companions/module_tensors.h>

namespace lawn {

namespace detail::eman {

/// Whether averages of a tensor are kept in float32 beside it: the tensor's own dtype does not
/// resolve a step of 1 - m = 0.001, which would be rounded away.
inline bool is_narrow(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
}

/// The dtype of a tensor's average.
inline at::ScalarType average_dtype(const at::Tensor& tensor) {
  return is_narrow(tensor) ? at::kFloat : tensor.scalar_type();
}

}  // namespace detail::eman

/// A teacher whose weights, and batch norm statistics, are running averages of a student's: EMAN.
///
///   t <- m t + (1 - m) s          every parameter and every buffer of floating point
///
/// The teacher is always in evaluation mode, even if `train()` is called on it or on a module that
/// holds it, so that its output for an image does not depend on the others in the batch. Its
/// parameters require no gradients. Averages of bfloat16 and half are kept in float32 and rounded
/// once. The teacher may be moved, or converted to another type, if the student is. The student is
/// neither held nor changed.
///
///   lawn::EmaTeacher teacher(*model, lawn::EmaOptions().decay(0.999));
///   ...
///   optimizer.step();
///   teacher.update(*model);
///   auto targets = teacher.forward(images).softmax(1);
///
/// A teacher of a TorchScript student is moved by `module()->to(device)`, not by `to`, since it is
/// no submodule of this object; its `forward` gives an IValue.
/// @tparam Net  the student's class: torch::jit::Module, or one derived from torch::nn::Module,
///         with a `forward`
/// @source  Cai et al. 2021, arXiv 2101.08482; Tarvainen and Valpola 2017, arXiv 1703.01780
template <class Net>
class EmaTeacher : public torch::nn::Module {
  static constexpr bool kScript = std::is_same_v<torch::jit::Module, Net>;
  static_assert(kScript || std::is_base_of_v<torch::nn::Module, Net>,
                "lawn::EmaTeacher takes a torch::nn::Module or a torch::jit::Module: pass *model, "
                "not model");

 public:
  /// Makes a copy of `student`: of TorchScript by `deepcopy()`, else by its `clone()`, which calls
  /// `reset()`. Since `reset()` draws random numbers, the state of the CPU's default generator is
  /// restored. Since it may tie or freeze parameters differently, values are copied; ties of the
  /// student that the copy has lost do no harm.
  /// @throws c10::Error for a decay outside [0, 1], and for a student that has no `clone()`
  explicit EmaTeacher(const Net& student, EmaOptions options = {})
      : EmaTeacher(student, cloned(student), std::move(options)) {}

  /// Takes a teacher that the caller has built, with the student's architecture, device and dtype.
  /// It becomes a frozen copy of `student` in evaluation mode.
  /// @throws c10::Error that names what differs, before the teacher is changed
  EmaTeacher(const Net& student, std::shared_ptr<Net> teacher, EmaOptions options = {})
      : options_(std::move(options)) {
    options_.validate();
    TORCH_CHECK(teacher != nullptr, kWho, ": expected a teacher, got a null pointer");
    teacher_ = std::move(teacher);
    const auto pairs = pairs_with(student);
    if constexpr (!kScript) {
      register_module("teacher", std::static_pointer_cast<torch::nn::Module>(teacher_));
    }
    const at::NoGradGuard no_grad;
    for (const auto& pair : pairs) {
      detail::archive::copy_values(pair.teacher.tensor, pair.student);
      averages_.push_back(wide(pair.teacher, pair.student));
      if (!pair.teacher.is_buffer) pair.teacher.tensor.set_requires_grad(false);
    }
    train();
  }

  // Two objects with one teacher would both move it.
  EmaTeacher(const EmaTeacher&) = delete;
  EmaTeacher& operator=(const EmaTeacher&) = delete;

  /// Moves the averages towards the student's present values: call it after the optimizer's step.
  /// @param student  has the teacher's architecture, dtype and device
  /// @throws c10::Error that names what differs, and for a scheduled decay outside [0, 1]; nothing
  ///         is changed then
  /// @note   does not wait for the device
  void update(const Net& student) {
    const auto pairs = pairs_with(student);
    const double decay = options_.decay_at(steps_);
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> averages;
    std::vector<at::Tensor> values;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const auto& mine = pairs[i].teacher;
      follow(mine, averages_[i]);
      if (mine.is_buffer && options_.buffers() == EmaBuffers::kLeave) continue;
      if (!mine.is_real() || (mine.is_buffer && options_.buffers() == EmaBuffers::kCopy)) {
        detail::archive::copy_values(mine.tensor, pairs[i].student);
        averages_[i] = wide(mine, pairs[i].student);
        continue;
      }
      const at::Tensor& average = averages_[i];
      const at::Tensor& moving = average.defined() ? average : mine.tensor;
      const auto value = average.defined() ? pairs[i].student.to(at::kFloat) : pairs[i].student;
      if (mine.is_buffer || !pairs[i].student.requires_grad()) {
        approach_constant(moving, value, decay);
      } else {
        averages.push_back(moving);
        values.push_back(value);
      }
    }
    approach(averages, values, decay);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      if (averages_[i].defined()) {
        detail::archive::copy_values(pairs[i].teacher.tensor, averages_[i]);
      }
    }
    ++steps_;
  }

  /// The teacher's output, in evaluation mode and without gradients.
  template <class... Arguments>
  auto forward(Arguments&&... arguments) {
    const at::NoGradGuard no_grad;
    teacher_->eval();
    if constexpr (kScript) {
      return teacher_->forward({c10::IValue(std::forward<Arguments>(arguments))...});
    } else {
      return teacher_->forward(std::forward<Arguments>(arguments)...);
    }
  }

  /// Leaves the teacher in evaluation mode.
  void train(bool /*on*/ = true) override {
    torch::nn::Module::train(false);
    if constexpr (kScript) teacher_->eval();  // which is no submodule
  }

  /// The teacher itself (an alias). Change its values only through this object.
  const std::shared_ptr<Net>& module() const { return teacher_; }

  /// Number of updates so far.
  int64_t steps() const { return steps_; }

  /// The options that the constructor got.
  const EmaOptions& options() const { return options_; }

  /// Writes averages and count; `torch::save` calls it.
  void save(torch::serialize::OutputArchive& archive) const override {
    auto mine = detail::companions::module_tensors(*teacher_);
    archive.write("steps", c10::IValue(steps_));
    archive.write("tensors", c10::IValue(detail::companions::describe(mine)));
    mine = detail::companions::each_once(mine);
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const at::Tensor& tensor = mine[i].tensor;
      const at::Tensor& value = averages_[i].defined() ? averages_[i] : tensor;
      archive.write("tensor/" + std::to_string(i), value.to(detail::eman::average_dtype(tensor)),
                    /*is_buffer=*/true);
    }
  }

  /// Reads what `save` wrote; `torch::load` calls it. Checkpoints do not hold options.
  /// @throws c10::Error for a teacher of another architecture or dtype; nothing is changed then
  void load(torch::serialize::InputArchive& archive) override {
    auto mine = detail::companions::module_tensors(*teacher_);
    using namespace detail::archive;
    c10::IValue tensors;
    TORCH_CHECK(archive.try_read("tensors", tensors) && tensors.isList(), kWho,
                ": expected a checkpoint of an EmaTeacher, got one of something else; nothing was "
                "changed");
    detail::companions::refuse_other_architecture(kWho, "a checkpoint", mine,
                                                  read_texts(kWho, archive, "tensors"));
    const int64_t steps = read_int(kWho, archive, "steps");
    mine = detail::companions::each_once(mine);
    std::vector<at::Tensor> values;
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const at::Tensor& tensor = mine[i].tensor;
      values.push_back(read_tensor(kWho, archive, "tensor/" + std::to_string(i),
                                   " of " + mine[i].name, tensor.sizes(),
                                   detail::eman::average_dtype(tensor)));
    }
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < mine.size(); ++i) {
      copy_values(mine[i].tensor, values[i]);
      averages_[i] = wide(mine[i], values[i]);
    }
    steps_ = steps;
  }

  friend torch::serialize::OutputArchive& operator<<(torch::serialize::OutputArchive& archive,
                                                     const EmaTeacher& teacher) {
    teacher.save(archive);
    return archive;
  }
  friend torch::serialize::InputArchive& operator>>(torch::serialize::InputArchive& archive,
                                                    EmaTeacher& teacher) {
    teacher.load(archive);
    return archive;
  }

 private:
  static constexpr const char* kWho = "lawn::EmaTeacher";

  struct Pair {
    detail::companions::ModuleTensor teacher;
    at::Tensor student;
  };

  static std::shared_ptr<Net> cloned(const Net& student) {
    if constexpr (kScript) {
      const at::NoGradGuard no_grad;  // the copies are to be leaves
      return std::make_shared<Net>(student.deepcopy());
    } else {
      return cloned_by_class(student);
    }
  }

  static std::shared_ptr<Net> cloned_by_class(const Net& student) {
    const detail::companions::KeepRandomState keep;
    std::shared_ptr<torch::nn::Module> copy;
    try {
      copy = student.clone();
    } catch (const c10::Error& error) {
      TORCH_CHECK(false, kWho, ": expected a student that can be cloned, got one that says '",
                  error.what_without_backtrace(),
                  "'; build a teacher of the same class and pass it beside the student");
    }
    auto teacher = std::dynamic_pointer_cast<Net>(copy);
    TORCH_CHECK(teacher != nullptr, kWho, ": expected clone() to give a module of the student's ",
                "class, got another; build a teacher and pass it beside the student");
    return teacher;
  }

  /// The teacher's tensors, each once, paired with the student's.
  std::vector<Pair> pairs_with(const Net& student) const {
    const auto mine = detail::companions::module_tensors(*teacher_);
    const auto other = detail::companions::module_tensors(student);
    detail::companions::refuse_other_architecture(kWho, "a student", mine,
                                                  detail::companions::describe(other));
    detail::companions::refuse_other_ties(kWho, mine, other);
    std::vector<Pair> pairs;
    std::unordered_set<const void*> seen;
    for (std::size_t i = 0; i < mine.size(); ++i) {
      TORCH_CHECK(mine[i].tensor.device() == other[i].tensor.device(), kWho,
                  ": expected a student on the teacher's device ", mine[i].tensor.device(),
                  ", got ", other[i].name, " on ", other[i].tensor.device(),
                  "; move one of them by to(); nothing was changed");
      if (seen.insert(mine[i].tensor.unsafeGetTensorImpl()).second) {
        pairs.push_back({mine[i], other[i].tensor});
      }
    }
    return pairs;
  }

  /// A copy of `value` in float32 on the teacher's device, if its average is kept in float32; else
  /// undefined.
  static at::Tensor wide(const detail::companions::ModuleTensor& mine, const at::Tensor& value) {
    if (!detail::eman::is_narrow(mine.tensor)) return {};
    return value.detach().to(mine.tensor.device(), at::kFloat, /*non_blocking=*/false,
                             /*copy=*/true);
  }

  /// The teacher may have been moved, or converted, since the last update.
  static void follow(const detail::companions::ModuleTensor& mine, at::Tensor& average) {
    if (!average.defined()) {
      average = wide(mine, mine.tensor);
    } else if (detail::eman::is_narrow(mine.tensor)) {
      average = average.to(mine.tensor.device());
    } else {
      detail::archive::copy_values(mine.tensor, average);
      average.reset();
    }
  }

  static void approach(const std::vector<at::Tensor>& averages,
                       const std::vector<at::Tensor>& values, double decay) {
    if (averages.empty() || decay == 1) return;  // 0 times an infinity would be NaN
    if (decay == 0) {
      at::_foreach_copy_(averages, values);
    } else {
      at::_foreach_lerp_(averages, values, 1 - decay);
    }
  }

  /// The same for a tensor that is not trained, which may hold infinities, as a mask does: lerp
  /// subtracts them from each other.
  static void approach_constant(const at::Tensor& average, const at::Tensor& value, double decay) {
    if (decay == 1) return;
    using detail::archive::copy_values;
    if (decay == 0) {
      copy_values(average, value);
      return;
    }
    copy_values(average,
                at::where(at::eq(average, value), average, at::lerp(average, value, 1 - decay)));
  }

  EmaOptions options_;
  std::shared_ptr<Net> teacher_;
  /// Averages in float32, one for each tensor of the teacher; undefined if the tensor itself is
  /// wide.
  std::vector<at::Tensor> averages_;
  int64_t steps_ = 0;
};

}  // namespace lawn
