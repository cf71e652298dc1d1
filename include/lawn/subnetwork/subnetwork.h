// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include <lawn/finite_math.h>

namespace lawn {

/// What a parameter does in the network.
enum class Role {
  kWeight,     ///< multiplies what comes in
  kBias,       ///< is added
  kEmbedding,  ///< is looked up by row
};

/// One parameter of a module, and its place relative to the final homogeneous sub-network.
struct SubnetworkParameter {
  /// Dotted name in the module; "parameter 0", ... for tensors given by hand without a module.
  std::string name;
  /// The parameter itself (an alias, not a copy).
  at::Tensor tensor;
  /// Its role in the network.
  Role role = Role::kWeight;
  /// Autograd node that uses it, for example "AddmmBackward0"; empty if the graph was not read or
  /// does not use it.
  std::string node;
  /// Whether it belongs to the sub-network.
  bool inside = false;
  /// Whether it is a bias that is added within the sub-network, be it frozen or used elsewhere as
  /// well. For selections by hand, whether it is a bias by name that was not selected.
  bool added = false;
  /// Dimension that counts output units: 0 for linear layers, convolutions and embeddings; 1 for
  /// transposed convolutions and `x.mm(w)`. Graph and module decide: a parameter of your own that
  /// goes into `conv_transpose2d` counts as a convolution's if it is square in channels, or
  /// reshaped on the way there, or if the graph was not read. A tensor of fewer than two dimensions
  /// is one unit.
  int64_t unit_dim = 0;
  /// Why it is outside; empty if inside.
  std::string reason;

  /// Whether it is a weight or an embedding of the sub-network, whose norm LAWN holds. Biases stay
  /// free by default.
  bool constrained() const { return inside && role != Role::kBias; }
};

/// An autograd node at which the walk from the logits stopped.
struct Boundary {
  std::string node;    ///< for example "NativeLayerNormBackward0"
  std::string reason;  ///< for example "layer norm does not scale with its input"
};

/// How far f(a w) = a^k f(w) holds, w being all constrained parameters together.
enum class Homogeneity {
  kStrict,      ///< exactly, for every a > 0
  kUpToBiases,  ///< except for biases, which are added and do not scale: exactly once they are zero
  kUpToAdds,    ///< branches of different degree are added or joined; there may be biases as well
  kUnknown,     ///< selected by hand: the graph was not read
};

/// The parameters of a network that LAWN constrains, and why the others are left alone.
///
/// Made by `final_homogeneous_subnetwork` or by one of the `select` functions; an immutable list.
class Subnetwork {
 public:
  /// Takes the parameters in module order.
  /// @param parameters   every parameter considered, inside or not; aliases, not copies
  /// @param boundaries   nodes at which the walk ended, in order of distance from the logits
  /// @param homogeneity  what is known of the function
  /// @param degree       k of f(a w) = a^k f(w), if there is one
  /// @throws c10::Error if a tensor is undefined or comes twice, if one that is inside is not of
  ///         a real floating-point type, or if none is constrained
  /// @note   does not wait for the device
  explicit Subnetwork(std::vector<SubnetworkParameter> parameters,
                      std::vector<Boundary> boundaries = {},
                      Homogeneity homogeneity = Homogeneity::kUnknown,
                      std::optional<int64_t> degree = std::nullopt)
      : all_(std::move(parameters)),
        boundaries_(std::move(boundaries)),
        homogeneity_(homogeneity),
        degree_(degree) {
    validate();
  }

  /// Every parameter of the module, in module order.
  const std::vector<SubnetworkParameter>& all() const& noexcept { return all_; }
  /// The same for a temporary, by value: `for (auto& p : select(...).all())` must not dangle.
  std::vector<SubnetworkParameter> all() && { return std::move(all_); }

  /// Names of the constrained parameters, in module order.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const SubnetworkParameter& parameter : all_) {
      if (parameter.constrained()) names.push_back(parameter.name);
    }
    return names;
  }

  /// The constrained parameters, in module order (aliases, not copies).
  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> tensors;
    for (const SubnetworkParameter& parameter : all_) {
      if (parameter.constrained()) tensors.push_back(parameter.tensor);
    }
    return tensors;
  }

  /// The biases because of which the logits scale only up to biases, in module order (aliases).
  std::vector<at::Tensor> added_biases() const {
    std::vector<at::Tensor> tensors;
    for (const SubnetworkParameter& parameter : all_) {
      if (parameter.added) tensors.push_back(parameter.tensor);
    }
    return tensors;
  }

  /// Where the walk from the logits ended; empty if nothing stopped it, or if selected by hand.
  const std::vector<Boundary>& boundaries() const& noexcept { return boundaries_; }
  /// The same for a temporary.
  std::vector<Boundary> boundaries() && { return std::move(boundaries_); }

  /// Whether, and how, the logits scale with the weights inside.
  Homogeneity homogeneity() const noexcept { return homogeneity_; }

  /// k of f(a w) = a^k f(w), biases aside; nothing if branches differ in degree or if selected by
  /// hand.
  std::optional<int64_t> degree() const noexcept { return degree_; }

 private:
  void validate() const {
    std::unordered_set<const c10::TensorImpl*> seen;
    bool any = false;
    for (const SubnetworkParameter& parameter : all_) {
      const at::Tensor& tensor = parameter.tensor;
      TORCH_CHECK(tensor.defined(), "lawn::Subnetwork: expected a tensor for '", parameter.name,
                  "', got an undefined one; leave it out");
      TORCH_CHECK(seen.insert(tensor.unsafeGetTensorImpl()).second,
                  "lawn::Subnetwork: expected every tensor once, got '", parameter.name,
                  "' a second time; select it once");
      TORCH_CHECK(!parameter.inside || at::isFloatingType(tensor.scalar_type()),
                  "lawn::Subnetwork: expected parameters of a real floating-point type, got '",
                  parameter.name, "' of type ", tensor.scalar_type(), "; leave it out");
      any = any || parameter.constrained();
    }
    TORCH_CHECK(any, "lawn::Subnetwork: expected at least one weight to constrain, got none of ",
                all_.size(), " parameters; select a weight");
  }

  std::vector<SubnetworkParameter> all_;
  std::vector<Boundary> boundaries_;
  Homogeneity homogeneity_;
  std::optional<int64_t> degree_;
};

}  // namespace lawn
