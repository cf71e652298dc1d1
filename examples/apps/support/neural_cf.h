// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>
#include <torch/nn/init.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <memory>
#include <string>
#include <vector>

namespace examples {

/// A network from pairs of users and items to logits: what a trainer needs to know of it.
class Recommender : public torch::nn::Module {
 public:
  /// @param users  int64 [N]
  /// @param items  int64 [N]
  /// @return       logits [N]: the chance that the user takes the item is their sigmoid
  virtual at::Tensor forward(const at::Tensor& users, const at::Tensor& items) = 0;
};

/// What tells one network for collaborative filtering from another.
struct NeuralCFOptions {
  int64_t users = 1;
  int64_t items = 1;
  int64_t factors = 8;  ///< F: what each branch hands to the output
  bool product = true;  ///< the branch of GMF
  bool tower = true;    ///< the branch of MLP; NeuMF has both
};

/// Generalised matrix factorisation, a multi-layer perceptron, or both side by side:
///   g = p_u * q_i                                          p, q embeddings of size F
///   m = ReLU(A_3 ReLU(A_2 ReLU(A_1 [r_u; s_i] + b_1) + b_2) + b_3)
///                                                          r, s embeddings of size 2F;
///                                                          layers of 4F, 2F and F units
///   logit = h^T [g; m] + c
/// Embeddings are dense parameters and start at N(0, 0.01^2), linear layers at Glorot's uniform
/// distribution, biases at zero. In every weight the network is positively homogeneous up to its
/// biases: no normalisation, ReLU only.
/// @source He et al. 2017, arXiv 1708.05031, eqs. 8 to 12 and section 4.1
class NeuralCFImpl : public Recommender {
 public:
  explicit NeuralCFImpl(const NeuralCFOptions& options) {
    TORCH_CHECK(options.product || options.tower, "NeuralCF: expected at least one branch");
    TORCH_CHECK(options.factors > 0, "NeuralCF: factors must be > 0, got ", options.factors);
    const int64_t factors = options.factors;
    if (options.product) {
      product_user_ = embedding("product_user", options.users, factors);
      product_item_ = embedding("product_item", options.items, factors);
    }
    if (options.tower) {
      tower_user_ = embedding("tower_user", options.users, 2 * factors);
      tower_item_ = embedding("tower_item", options.items, 2 * factors);
      int64_t in = 4 * factors;
      for (const int64_t units : {4 * factors, 2 * factors, factors}) {
        tower_.push_back(linear("tower" + std::to_string(tower_.size() + 1), in, units));
        in = units;
      }
    }
    output_ = linear("output", options.product && options.tower ? 2 * factors : factors, 1);
  }

  at::Tensor forward(const at::Tensor& users, const at::Tensor& items) override {
    std::vector<at::Tensor> branches;
    if (product_user_) branches.push_back(product_user_(users) * product_item_(items));
    if (tower_user_) {
      at::Tensor x = at::cat({tower_user_(users), tower_item_(items)}, 1);
      for (auto& layer : tower_) x = at::relu(layer(x));
      branches.push_back(x);
    }
    return output_(branches.size() == 1 ? branches[0] : at::cat(branches, 1)).squeeze(1);
  }

 private:
  static constexpr double kEmbeddingDeviation = 0.01;

  torch::nn::Embedding embedding(const std::string& name, int64_t rows, int64_t size) {
    torch::nn::Embedding made = register_module(name, torch::nn::Embedding(rows, size));
    torch::nn::init::normal_(made->weight, 0, kEmbeddingDeviation);
    return made;
  }

  torch::nn::Linear linear(const std::string& name, int64_t in, int64_t out) {
    torch::nn::Linear made = register_module(name, torch::nn::Linear(in, out));
    torch::nn::init::xavier_uniform_(made->weight);
    torch::nn::init::zeros_(made->bias);
    return made;
  }

  torch::nn::Embedding product_user_ = nullptr;
  torch::nn::Embedding product_item_ = nullptr;
  torch::nn::Embedding tower_user_ = nullptr;
  torch::nn::Embedding tower_item_ = nullptr;
  std::vector<torch::nn::Linear> tower_;
  torch::nn::Linear output_ = nullptr;
};
TORCH_MODULE(NeuralCF);

/// The networks that make_recommender() knows.
inline const std::vector<std::string> kRecommenders = {"gmf", "mlp", "neumf"};

/// A new network, its weights drawn from torch's default generator.
/// @param name  one of kRecommenders
inline std::shared_ptr<Recommender> make_recommender(const std::string& name, int64_t users,
                                                     int64_t items, int64_t factors) {
  TORCH_CHECK(name == "gmf" || name == "mlp" || name == "neumf", "unknown network '", name,
              "'; expected one of ", kRecommenders);
  NeuralCFOptions options;
  options.users = users;
  options.items = items;
  options.factors = factors;
  options.product = name != "mlp";
  options.tower = name != "gmf";
  return NeuralCF(options).ptr();
}

}  // namespace examples
