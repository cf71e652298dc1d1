// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/ScalarType.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/Exception.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <lawn/subnetwork/subnetwork.h>

/// The weights that a decorator works on, and where the optimizer that it decorates holds them.
namespace lawn::detail {

/// A weight, and what messages call it.
struct NamedWeight {
  std::string name;
  at::Tensor tensor;
};

/// The weights of a selection, in its order.
inline std::vector<NamedWeight> weights_of(const Subnetwork& selection) {
  std::vector<NamedWeight> weights;
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

/// A number that is to lie in [0, 1].
inline void check_fraction(const char* who, const char* what, double value) {
  TORCH_CHECK(value >= 0 && value <= 1, who, ": ", what, " must be in [0, 1], got ", value);
}

/// Group and index of each weight among the optimizer's parameters, one pair after the other.
/// @throws c10::Error that names a weight which the optimizer does not hold exactly once, or which
///         comes twice
inline std::vector<int64_t> positions_of(const char* who, const torch::optim::Optimizer& optimizer,
                                         const std::vector<NamedWeight>& weights) {
  struct Place {
    int64_t group;
    int64_t index;
    int times;
    bool taken;
  };
  std::vector<Place> places;
  std::unordered_map<const c10::TensorImpl*, std::size_t> held;  // the place of each parameter
  const auto& groups = optimizer.param_groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto& parameters = groups[g].params();
    for (std::size_t p = 0; p < parameters.size(); ++p) {
      const auto place = held.emplace(parameters[p].unsafeGetTensorImpl(), places.size());
      if (place.second) {
        places.push_back({static_cast<int64_t>(g), static_cast<int64_t>(p), 0, false});
      }
      ++places[place.first->second].times;
    }
  }
  std::vector<int64_t> positions;
  for (const auto& weight : weights) {
    const auto found = held.find(weight.tensor.unsafeGetTensorImpl());
    TORCH_CHECK(found != held.end(), who, ": expected the optimizer to hold every weight, got ",
                weight.name, " which it does not hold; give it to the optimizer or leave it out");
    Place& place = places[found->second];
    TORCH_CHECK(place.times == 1, who, ": expected the optimizer to hold every weight once, got ",
                weight.name, " ", place.times, " times");
    TORCH_CHECK(!place.taken, who, ": expected every weight once, got ", weight.name,
                " a second time; leave one out");
    place.taken = true;
    positions.push_back(place.group);
    positions.push_back(place.index);
  }
  return positions;
}

inline std::vector<std::string> names_of(const std::vector<NamedWeight>& weights) {
  std::vector<std::string> names;
  names.reserve(weights.size());
  for (const auto& weight : weights) names.push_back(weight.name);
  return names;
}

/// Writes which weights a rule's state belongs to.
inline void save_weights(torch::serialize::OutputArchive& archive,
                         const std::vector<NamedWeight>& weights,
                         const std::vector<int64_t>& positions) {
  archive.write("names", c10::IValue(names_of(weights)));
  archive.write("positions", c10::IValue(positions));
}

/// Refuses a state that `save_weights` says is of other weights.
inline void refuse_other_weights(const char* who, torch::serialize::InputArchive& archive,
                                 const std::vector<NamedWeight>& weights,
                                 const std::vector<int64_t>& positions) {
  c10::IValue names;
  c10::IValue saved;
  archive.read("names", names);
  archive.read("positions", saved);
  const auto mine = names_of(weights);
  TORCH_CHECK(saved.toIntVector() == positions, who, ": expected a checkpoint of the weights ",
              c10::ArrayRef<std::string>(mine), ", got one of ",
              c10::ArrayRef<std::string>(names.to<std::vector<std::string>>()),
              ": select the same; nothing was changed");
}

/// A tensor of a rule's state, onto the device of its weight.
/// @throws c10::Error if it is not there, or not of this shape and dtype
inline at::Tensor read_beside(const char* who, torch::serialize::InputArchive& archive,
                              const std::string& key, const NamedWeight& weight,
                              at::IntArrayRef shape, at::ScalarType dtype) {
  at::Tensor tensor;
  TORCH_CHECK(archive.try_read(key, tensor, /*is_buffer=*/true), who, ": the checkpoint lacks ",
              key, " of ", weight.name, "; nothing was changed");
  TORCH_CHECK(tensor.sizes() == shape && tensor.scalar_type() == dtype, who, ": expected ", key,
              " of ", weight.name, " to be ", dtype, " of shape ", shape, ", got ",
              tensor.scalar_type(), " of shape ", tensor.sizes(), "; nothing was changed");
  return tensor.to(weight.tensor.device());
}

}  // namespace lawn::detail
