// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <iterator>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/TensorBase.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/cpp_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <lawn/distributed/agreement.h>
#include <lawn/distributed/collective.h>

/// Marks parameters that are one rank's part of a whole. Functions that decide by gradients
/// (`GradScaler`, `clip_grad_norm_`) read the mark from the part itself. This header needs neither
/// c10d nor MPI.
namespace lawn::detail::distributed {

/// Mark on a part: the ranks that hold the rest of the parameter.
class ShardMark {
 public:
  /// The mark of `tensor`; null if it is not a part.
  static const ShardMark* of(const at::Tensor& tensor) {
    const Hook* hook = find(tensor);
    return hook == nullptr ? nullptr : hook->mark.get();
  }

  /// The mark of `tensor`, created if there is none.
  static std::shared_ptr<ShardMark> make(const at::Tensor& tensor) {
    const Hook* hook = find(tensor);
    if (hook != nullptr) return hook->mark;
    auto* meta = torch::autograd::impl::materialize_autograd_meta(tensor);
    if (meta->cpp_hooks_list_ == nullptr) {
      torch::autograd::impl::create_cpp_hook(tensor, /*is_retains_grad_hooks=*/false);
    }
    auto mark = std::make_shared<ShardMark>();
    meta->cpp_hooks_list_->emplace_back(Hook{mark});
    return mark;
  }

  /// The ranks of the last object that cut the parameter and still lives; null if there is none.
  Collective* ranks() const { return ranks_.empty() ? nullptr : ranks_.back(); }

  void add(Collective& ranks) { ranks_.push_back(&ranks); }
  void remove(const Collective& ranks) {
    const auto found = std::find(ranks_.rbegin(), ranks_.rend(), &ranks);
    if (found != ranks_.rend()) ranks_.erase(std::next(found).base());
  }

 private:
  /// Holder of the mark: a hook of the tensor that leaves gradients as they are. Hooks belong to
  /// the tensor as its gradient does. They end with the tensor and survive `set_data()`, unlike a
  /// `c10::BackendMeta`; clones, views and checkpoints do not get them.
  struct Hook {
    std::shared_ptr<ShardMark> mark;
    at::TensorBase operator()(const at::TensorBase&) const { return {}; }
  };

  static const Hook* find(const at::Tensor& tensor) {
    if (!tensor.defined()) return nullptr;
    const auto* meta = torch::autograd::impl::get_autograd_meta(tensor);
    if (meta == nullptr || meta->cpp_hooks_list_ == nullptr) return nullptr;
    for (const auto& hook : *meta->cpp_hooks_list_) {
      if (const Hook* ours = hook.target<Hook>()) return ours;
    }
    return nullptr;
  }

  std::vector<Collective*> ranks_;
};

/// Marks tensors as parts, as long as this object lives.
class ShardMarks {
 public:
  explicit ShardMarks(Collective& ranks) : ranks_(ranks) {}
  ShardMarks(const ShardMarks&) = delete;
  ShardMarks& operator=(const ShardMarks&) = delete;
  ~ShardMarks() {
    for (const auto& mark : marks_) mark->remove(ranks_);
  }

  void add(const at::Tensor& part) {
    marks_.push_back(ShardMark::make(part));
    marks_.back()->add(ranks_);
  }

 private:
  Collective& ranks_;
  std::vector<std::shared_ptr<ShardMark>> marks_;
};

/// The ranks over which some of `parameters` are sharded; null if all are whole.
/// @param who  in the message
/// @throws c10::Error for parts of two groups of ranks, and for parts that have outlived the object
///         that cut them
inline Collective* ranks_of(const char* who, const std::vector<at::Tensor>& parameters) {
  Collective* ranks = nullptr;
  for (const at::Tensor& parameter : parameters) {
    const ShardMark* mark = ShardMark::of(parameter);
    if (mark == nullptr) continue;
    TORCH_CHECK(mark->ranks() != nullptr, who,
                ": expected the lawn::ParameterShards or lawn::ShardedSpheres of every shard, got "
                "a shard of shape ",
                parameter.sizes(),
                " that has outlived it; keep it while its shards are trained, or train clones");
    TORCH_CHECK(ranks == nullptr || ranks == mark->ranks(), who,
                ": expected shards over the same ranks, got parameters that are sharded over two "
                "groups; give each group a call and an optimizer of its own");
    ranks = mark->ranks();
  }
  return ranks;
}

/// Runs `action`, and tells the other ranks, if there are any, about an error in it.
template <class Action>
void tell_ranks_of_errors(Collective* ranks, const Action& action) {
  if (ranks == nullptr) return action();
  tell_of_errors(*ranks, action);
}

/// Gathers one number from each rank, by rank; all ranks get the same bits.
/// @param mine  0-dim, of the same dtype on every rank, on a device that the collective takes
/// @return `[size]`, like `mine`
/// @note   takes one sum over the ranks. Each place has one number that may be nonzero, so the sum
///         is exact, and an infinity or NaN stays in its place
inline at::Tensor gather_numbers(Collective& ranks, const at::Tensor& mine) {
  auto all = at::zeros({ranks.size()}, mine.options());
  all[ranks.rank()].copy_(mine);
  ranks.sum_(all);
  return all;
}

}  // namespace lawn::detail::distributed
