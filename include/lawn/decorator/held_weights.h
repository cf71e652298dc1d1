// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/ScalarType.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/archive/checked_read.h>
#include <lawn/module_view.h>
#include <lawn/parameters/held_once.h>
#include <lawn/subnetwork/subnetwork.h>

/// The weights on which a decorator works, and where its optimizer holds them.
namespace lawn::detail::decorator {

/// The weights of a selection, in its order.
inline std::vector<NamedTensor> weights_of(const Subnetwork& selection) {
  std::vector<NamedTensor> weights;
  for (const auto& parameter : selection.all()) {
    if (parameter.constrained()) weights.push_back({parameter.name, parameter.tensor});
  }
  return weights;
}

/// @throws c10::Error for a tensor that is undefined, empty, sparse or not of floating point
inline void check_weight(const char* who, const std::string& name, const at::Tensor& tensor) {
  TORCH_CHECK(tensor.defined(), who, ": expected a tensor for ", name,
              ", got an undefined one; leave it out");
  TORCH_CHECK(at::isFloatingType(tensor.scalar_type()), who,
              ": expected weights of floating point, got ", tensor.scalar_type(), " for ", name,
              "; leave it out");
  TORCH_CHECK(tensor.layout() == at::kStrided, who, ": expected dense weights, got a ",
              tensor.layout(), " one for ", name, "; leave it out");
  TORCH_CHECK(tensor.numel() > 0, who, ": expected weights with elements, got none in ", name,
              " of shape ", tensor.sizes(), "; leave it out");
}

/// @param of  list from which the weight may be left out, for the message: "the selection"
/// @throws c10::Error for a gradient that is sparse
inline void refuse_sparse_gradient(const char* who, const NamedTensor& weight, const char* of) {
  const at::Tensor& gradient = weight.tensor.grad();
  TORCH_CHECK(!gradient.defined() || gradient.layout() == at::kStrided, who,
              ": expected a dense gradient for ", weight.name, ", got one of layout ",
              gradient.layout(), ": make its embedding with sparse(false), or leave it out of ", of,
              " (parameters outside it may have sparse gradients)");
}

/// Refuses a number outside [0, 1].
inline void check_fraction(const char* who, const char* what, double value) {
  TORCH_CHECK(value >= 0 && value <= 1, who, ": ", what, " must be in [0, 1], got ", value);
}

/// The weights on which a decorator's rule works, each with its name, its shape when the optimizer
/// was wrapped, and its place in the optimizer.
class HeldWeights {
 public:
  HeldWeights() = default;
  /// @throws c10::Error that names a weight which the optimizer does not hold exactly once, or
  ///         which comes twice in the list
  HeldWeights(const char* who, const torch::optim::Optimizer& optimizer,
              const std::vector<NamedTensor>& weights) {
    std::unordered_map<const c10::TensorImpl*, std::string> taken;
    for (const auto& [name, tensor] : weights) {
      const auto [other, is_new] = taken.emplace(tensor.unsafeGetTensorImpl(), name);
      TORCH_CHECK(is_new, who, ": expected every weight once, got ", name,
                  name == other->second ? std::string() : ", which is " + other->second + ",",
                  " a second time; leave one out");
      names_.push_back(name);
      tensors_.push_back(tensor);
      shapes_.push_back(tensor.sizes().vec());
    }
    positions_.resize(tensors_.size());
    find(who, optimizer, "give it to the optimizer, or leave it out");
  }

  /// Begins every step, before anything is changed. If groups were added or removed, the weights'
  /// places are found anew.
  /// @throws c10::Error as `check_shapes` does, and for a weight that the optimizer no longer
  ///         holds, or holds more than once
  void check(const char* who, const torch::optim::Optimizer& optimizer) {
    check_shapes(who);
    if (parameters::fingerprint(optimizer.param_groups()) == parameters_) return;
    find(who, optimizer,
         "it was taken out of the groups after the optimizer was wrapped; nothing was changed");
  }

  /// @throws c10::Error that names a weight whose shape has changed since the optimizer was wrapped
  void check_shapes(const char* who) const {
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      TORCH_CHECK(tensors_[i].sizes() == at::IntArrayRef(shapes_[i]), who, ": expected ", names_[i],
                  " to have the shape ", at::IntArrayRef(shapes_[i]),
                  " that it had when the optimizer was wrapped, got ", tensors_[i].sizes(),
                  ": wrap an optimizer of the new parameters; nothing was changed");
    }
  }

  std::size_t size() const { return tensors_.size(); }
  const std::vector<std::string>& names() const { return names_; }
  const std::vector<at::Tensor>& tensors() const { return tensors_; }
  NamedTensor at(std::size_t i) const { return {names_[i], tensors_[i]}; }
  /// Place of weight i at the last `check`.
  parameters::Position position(std::size_t i) const { return positions_[i]; }

  /// Writes the names and places of the weights to which a rule's state belongs.
  void save(torch::serialize::OutputArchive& archive) const {
    archive.write("names", c10::IValue(names_));
    archive.write("positions", c10::IValue(positions_in_a_row()));
  }

  /// Refuses a state that `save` wrote for other weights.
  void refuse_others(const char* who, torch::serialize::InputArchive& archive) const {
    const auto names = archive::read_texts(who, archive, "names");
    TORCH_CHECK(archive::read_ints(who, archive, "positions") == positions_in_a_row(), who,
                ": expected a checkpoint of the weights ", c10::ArrayRef<std::string>(names_),
                ", got one of ", c10::ArrayRef<std::string>(names),
                ": select the same; nothing was changed");
  }

 private:
  /// Finds the places of all weights, or throws and leaves them as they were.
  /// @param remedy  what to do about a weight that the optimizer does not hold, for the message
  void find(const char* who, const torch::optim::Optimizer& optimizer, const char* remedy) {
    struct Place {
      parameters::Position first;
      int times;
    };
    std::unordered_map<const c10::TensorImpl*, Place> held;
    const auto& groups = optimizer.param_groups();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto& parameters = groups[g].params();
      for (std::size_t p = 0; p < parameters.size(); ++p) {
        const auto* key = parameters[p].unsafeGetTensorImpl();
        ++held.emplace(key, Place{{g, p}, 0}).first->second.times;
      }
    }
    auto positions = positions_;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const auto found = held.find(tensors_[i].unsafeGetTensorImpl());
      TORCH_CHECK(found != held.end(), who, ": expected the optimizer to hold every weight, got ",
                  names_[i], " which it does not hold; ", remedy);
      TORCH_CHECK(found->second.times == 1, who,
                  ": expected the optimizer to hold every weight once, got ", names_[i], " ",
                  found->second.times,
                  " times; give the optimizer each tensor once, of a model with tied weights by "
                  "lawn::unique_parameters(*model)");
      positions[i] = found->second.first;
    }
    positions_ = std::move(positions);
    parameters_ = parameters::fingerprint(groups);
  }

  /// Group and index of each weight, one pair after the other.
  std::vector<int64_t> positions_in_a_row() const {
    std::vector<int64_t> row;
    for (const auto& position : positions_) {
      row.push_back(static_cast<int64_t>(position.group));
      row.push_back(static_cast<int64_t>(position.index));
    }
    return row;
  }

  std::vector<std::string> names_;
  std::vector<at::Tensor> tensors_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<parameters::Position> positions_;
  std::uint64_t parameters_ = 0;  ///< fingerprint of the optimizer's, when `positions_` were found
};

inline std::vector<std::string> names_of(const std::vector<NamedTensor>& weights) {
  std::vector<std::string> names;
  names.reserve(weights.size());
  for (const auto& weight : weights) names.push_back(weight.name);
  return names;
}

/// Reads a tensor of a rule's state onto the device of its weight.
/// @throws c10::Error if it is missing, or not of this shape and dtype
inline at::Tensor read_beside(const char* who, torch::serialize::InputArchive& archive,
                              const std::string& key, const NamedTensor& weight,
                              at::IntArrayRef shape, at::ScalarType dtype) {
  return archive::read_tensor(who, archive, key, " of " + weight.name, shape, dtype)
      .to(weight.tensor.device());
}

}  // namespace lawn::detail::decorator
