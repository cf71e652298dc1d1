// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/python/update_graph_executor_opt.h>

#include <lawn/subnetwork/graph_walk.h>
#include <lawn/subnetwork/operators.h>
#include <lawn/subnetwork/subnetwork.h>

namespace lawn {

namespace detail::subnetwork {

/// Keeps TorchScript's executor from optimizing in this thread while it lives, as LibTorch's
/// `GraphOptimizerEnabledGuard(false)` does, whose header is long.
class UnoptimizedForNow {
 public:
  UnoptimizedForNow() { torch::jit::setGraphExecutorOptimize(false); }
  UnoptimizedForNow(const UnoptimizedForNow&) = delete;
  UnoptimizedForNow& operator=(const UnoptimizedForNow&) = delete;
  ~UnoptimizedForNow() { torch::jit::setGraphExecutorOptimize(before_); }

 private:
  bool before_ = torch::jit::getGraphExecutorOptimize();
};

}  // namespace detail::subnetwork

/// Finds the final homogeneous sub-network of a TorchScript module, at any time:
///
///   torch::jit::Module model = torch::jit::load("model.pt");
///   const auto sub = lawn::final_homogeneous_subnetwork(model, {x});
///   lawn::LAWN optimizer(torch::optim::Adam(lawn::unique_parameters(model), 1e-3), sub, ...);
///
/// From its second call on, a TorchScript module runs optimized code, whose graph hides operators;
/// switching the optimization off does not undo that. This function therefore calls `forward` of a
/// clone, which shares the tensors and has code of its own, without optimization. It does to random
/// numbers and running statistics what any call of `forward` does.
///
/// @param module  with parameters; `torch::jit::freeze` makes constants of them
/// @param inputs  the arguments of `forward`, which must return the logits as one tensor
/// @param table   as for a module of torch::nn
/// @return as for a module of torch::nn; the tensors are aliases of the module's
/// @throws c10::Error if there are no parameters, if `forward` returns something else than a
///         tensor, whatever `forward` throws, and as the function that takes logits
/// @note   does not wait for the device; call it in the mode in which you train
/// @source Gupta et al. 2021, arXiv 2108.05839
inline Subnetwork final_homogeneous_subnetwork(const torch::jit::Module& module,
                                               std::vector<c10::IValue> inputs,
                                               const OperatorTable& table = OperatorTable()) {
  constexpr const char* kWho = "lawn::final_homogeneous_subnetwork";
  TORCH_CHECK(module.parameters().size() != 0, kWho,
              ": expected a TorchScript module with parameters, got one without any; load one that "
              "was not frozen (torch.jit.freeze makes constants of parameters)");
  const c10::IValue logits = [&] {
    const detail::subnetwork::UnoptimizedForNow unoptimized;
    return module.clone(/*inplace=*/true).forward(std::move(inputs));
  }();
  TORCH_CHECK(logits.isTensor(), kWho,
              ": expected a TorchScript module whose forward returns the logits, got ",
              logits.tagKind(),
              "; compute the logits of module.clone(/*inplace=*/true) under "
              "torch::jit::GraphOptimizerEnabledGuard(false), and pass them with the module");
  return final_homogeneous_subnetwork(logits.toTensor(), module, table);
}

}  // namespace lawn
