// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/subnetwork/graph_walk.h>
#include <lawn/subnetwork/homogeneity.h>

#include "tests/support/networks.h"
#include "tests/support/refusal.h"

namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;
using lawn::final_homogeneous_subnetwork;
using lawn::Homogeneity;
using lawn::Operator;
using lawn::OperatorTable;
using torch::Tensor;
using namespace lawn::testing;

using Names = std::vector<std::string>;

constexpr auto kStrict = Homogeneity::kStrict;
constexpr auto kUpToBiases = Homogeneity::kUpToBiases;
constexpr auto kUpToAdds = Homogeneity::kUpToAdds;
constexpr auto kMixed = std::nullopt;

/// A user's function, which the library cannot know: scales by three.
struct Triple : torch::autograd::Function<Triple> {
  static Tensor forward(torch::autograd::AutogradContext*, const Tensor& x) { return 3 * x; }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list& gradients) {
    return {3 * gradients[0]};
  }
};

std::string triple_node() { return "CppNode<" + c10::demangle(typeid(Triple).name()) + ">"; }

/// One network: what is constrained, and how it scales.
struct Row {
  std::string name;
  std::function<Network()> make;
  Names expected;
  Homogeneity homogeneity = kStrict;
  std::optional<int64_t> degree = kMixed;
  OperatorTable table = {};
  /// Whether the logits scale to the bit once biases are zero; what the homogeneity says unless
  /// given.
  std::optional<bool> exact = std::nullopt;
  bool deterministic = true;
};

std::ostream& operator<<(std::ostream& stream, const Row& row) { return stream << row.name; }

Network recurrent(const std::function<std::function<Tensor(Tensor)>(Parts&)>& make_cell) {
  auto net = parts();
  auto cell = make_cell(*net);
  auto head = net->add("head", dense(8, 4));
  return {net, [=, x = torch::randn({3, 2, 6})]() mutable { return head(cell(x)[-1]); }};
}

/// Self-attention between two linear layers; `attend` gets (3, 2, 8).
Network attention(const std::function<std::function<Tensor(Tensor)>(Parts&)>& make_attend) {
  auto net = parts();
  auto attend = make_attend(*net);
  auto head = net->add("head", dense(8, 4));
  return {net, [=, x = torch::randn({3, 2, 8})]() mutable { return head(attend(x)); }};
}

Network raw(const std::function<Tensor(const Tensor&, const Tensor&)>& multiply,
            std::vector<int64_t> sizes = {6, 4}) {
  auto net = parts();
  auto w = net->weight("w", sizes);
  return {net, [=, x = torch::randn({5, 6})] { return multiply(x, w); }};
}

const Row kRows[] = {
    {"MlpWithoutBias",
     [] { return mlp(false); },
     {"hidden1.weight", "hidden2.weight", "head.weight"},
     kStrict,
     3},
    {"MlpWithBias",
     [] { return mlp(true); },
     {"hidden1.weight", "hidden2.weight", "head.weight"},
     kUpToBiases,
     3},
    {"VggWithoutNormalisation",
     [] { return vgg(true); },
     {"conv1.weight", "conv2.weight", "head.weight"},
     kUpToBiases,
     3},
    {"VggWithoutBias",
     [] { return vgg(false); },
     {"conv1.weight", "conv2.weight", "head.weight"},
     kStrict,
     3},
    {"ResNetWithBatchNorm", [] { return resnet(); }, {"head.weight"}, kUpToBiases, 1},
    {"ResidualWithoutNormalisation",
     [] { return residual(); },
     {"stem.weight", "conv1.weight", "conv2.weight", "head.weight"},
     kUpToAdds,
     kMixed},
    {"LayerNormTransformer", [] { return transformer(); }, {"head.weight"}, kStrict, 1},
    {"NeuMF",
     [] { return neumf(); },
     {"gmf_user.weight", "gmf_item.weight", "mlp_user.weight", "mlp_item.weight", "mlp1.weight",
      "mlp2.weight", "output.weight"},
     kUpToAdds,
     kMixed},

    // Convolutions.
    {"GroupedConvolution",
     [] { return around_images(nn::Conv2d(nn::Conv2dOptions(4, 6, 3).groups(2).bias(false))); },
     {"stem.weight", "body.weight", "head.weight"},
     kStrict,
     3},
    {"TransposedConvolution",
     [] {
       return around_images(nn::ConvTranspose2d(nn::ConvTranspose2dOptions(4, 6, 3).bias(false)));
     },
     {"stem.weight", "body.weight", "head.weight"},
     kStrict,
     3},
    {"DepthwiseSeparableConvolution",
     [] { return around_images(nn::Sequential(conv(4, 4, false, 4), conv(4, 6))); },
     {"stem.weight", "body.0.weight", "body.1.weight", "head.weight"},
     kStrict,
     4},
    {"GroupNorm",
     [] { return around_images(nn::Sequential(conv(4, 6), nn::GroupNorm(2, 6))); },
     {"head.weight"},
     kStrict,
     1},
    {"InstanceNorm",
     [] { return around_images(nn::Sequential(conv(4, 6), nn::InstanceNorm2d(6))); },
     {"head.weight"},
     kStrict,
     1},
    {"UpsamplingPaddingAndShuffling",
     [] {
       return around_images(nn::Sequential(
           nn::ZeroPad2d(1), nn::ReflectionPad2d(1), conv(4, 24), nn::PixelShuffle(2),
           nn::Upsample(nn::UpsampleOptions().scale_factor(std::vector<double>{2, 2})),
           nn::AvgPool2d(2), nn::LeakyReLU(), nn::AdaptiveMaxPool2d(3)));
     },
     {"stem.weight", "body.2.weight", "head.weight"},
     kStrict,
     3},
    {"FrozenConvolutionBias",
     [] {
       auto net = parts();
       auto stem = net->add("stem", conv(3, 4, true));
       auto head = net->add("head", dense(4, 4));
       stem->bias.set_requires_grad(false);
       return Network{net, [=, x = images()]() mutable {
                        return head(torch::relu(stem(x)).mean({2, 3}));
                      }};
     },
     {"stem.weight", "head.weight"},
     kUpToBiases,
     2},

    // Embeddings.
    {"EmbeddingAndLinear",
     [] {
       auto net = parts();
       auto table = net->add("table", nn::Embedding(9, 6));
       auto head = net->add("head", dense(6, 4));
       return Network{
           net, [=, x = torch::randint(9, {5})]() mutable { return head(torch::relu(table(x))); }};
     },
     {"table.weight", "head.weight"},
     kStrict,
     2},
    {"EmbeddingBag",
     [] {
       auto net = parts();
       auto table = net->add("table", nn::EmbeddingBag(9, 6));
       auto head = net->add("head", dense(6, 4));
       return Network{net, [=, x = torch::randint(9, {5, 3})]() mutable { return head(table(x)); }};
     },
     {"table.weight", "head.weight"},
     kStrict,
     2},
    {"ContinuousBagOfWords",
     [] {
       auto net = parts();
       auto table = net->add("table", nn::Embedding(9, 6));
       auto head = net->add("head", dense(6, 9));
       return Network{
           net, [=, x = torch::randint(9, {5, 4})]() mutable { return head(table(x).mean(1)); }};
     },
     {"table.weight", "head.weight"},
     kStrict,
     2},
    {"TiedEmbedding",
     [] { return tied(false); },
     {"tokens.weight", "hidden.weight", "neck.weight"},
     kStrict,
     4},
    {"TiedEmbeddingAcrossLayerNorm", [] { return tied(true); }, {"neck.weight"}, kStrict, 1},
    {"RowsByIndex",
     [] {
       return raw([i = torch::randint(6, {5})](const Tensor& x, const Tensor& w) {
         return torch::relu(w.index({i})) + x.new_ones({}) * w.index_select(0, i);
       });
     },
     {"w"},
     kStrict,
     1},
    {"GraphMessagePassing",
     [] {
       return around([i = torch::randint(5, {5})](const Tensor& h) {
         return torch::relu(torch::zeros_like(h).index_add(0, i, h));
       });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},

    // Gates, sharing, frozen and detached parts.
    {"SqueezeAndExcitation", [] { return squeeze_excitation(); }, {"head.weight"}, kStrict, 1},
    {"SigmoidGate",
     [] {
       auto net = parts();
       auto value = net->add("value", dense(6, 8));
       auto gate = net->add("gate", dense(6, 8));
       auto head = net->add("head", dense(8, 4));
       return Network{net, [=, x = torch::randn({5, 6})]() mutable {
                        return head(value(x) * torch::sigmoid(gate(x)));
                      }};
     },
     {"value.weight", "head.weight"},
     kStrict,
     2},
    {"GatedLinearUnit",
     [] { return around([](const Tensor& h) {
            return torch::glu(torch::cat({h, h}, 1));
          }); },
     {"head.weight"},
     kStrict,
     1},
    {"SplitGate",
     [] {
       return around([](const Tensor& h) {
         const auto halves = h.chunk(2, 1);
         return torch::cat({halves[0], halves[0] * torch::sigmoid(halves[1])}, 1);
       });
     },
     {"head.weight"},
     kStrict,
     1},
    {"LearnedScalarGate",
     [] {
       auto net = parts();
       auto gate = net->weight("gate", {});
       auto scale = net->weight("scale", {1});
       return around([=](const Tensor& h) { return h * gate + h * scale; }, net);
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"LearnedScalePerChannel",
     [] {
       auto net = parts();
       auto scale = net->weight("scale", {8});
       return around([=](const Tensor& h) { return torch::relu(h) * scale; }, net);
     },
     {"scale", "hidden.weight", "head.weight"},
     kStrict,
     3},
    {"FrozenLayer",
     [] {
       Network network = mlp(false);
       for (auto& item : network.module->named_parameters()) {
         if (item.key() == "hidden2.weight") item.value().set_requires_grad(false);
       }
       return network;
     },
     {"hidden1.weight", "head.weight"},
     kStrict,
     2},
    {"FrozenBias",
     [] {
       Network network = mlp(true);
       for (auto& item : network.module->named_parameters()) {
         if (item.key().find("bias") != std::string::npos) item.value().set_requires_grad(false);
       }
       return network;
     },
     {"hidden1.weight", "hidden2.weight", "head.weight"},
     kUpToBiases,
     3},
    // What is detached is a constant to the walk, although it follows the weights: the check shows
    // it.
    {"DetachedBranch",
     [] {
       auto net = parts();
       auto other = net->add("other", dense(8, 8));
       return around([=](const Tensor& h) mutable { return h + other(h.detach()); }, net);
     },
     {"other.weight", "hidden.weight", "head.weight"},
     kStrict,
     2,
     {},
     false},
    {"ModuleBehindDetachOnly",
     [] {
       auto net = parts();
       auto body = net->add("body", dense(6, 8));
       auto head = net->add("head", dense(8, 4));
       return Network{net,
                      [=, x = torch::randn({5, 6})]() mutable { return head(body(x).detach()); }};
     },
     {"head.weight"},
     kStrict,
     1},
    {"SharedModule",
     [] {
       auto net = parts();
       auto shared = net->add("shared", dense(8, 8));
       net->register_module("same", shared.ptr());
       return around(
           [=](const Tensor& h) mutable { return torch::relu(shared(torch::relu(shared(h)))); },
           net);
     },
     {"shared.weight", "hidden.weight", "head.weight"},
     kStrict,
     4},
    {"SharedModuleAlsoBehindBoundary",
     [] {
       auto net = parts();
       auto shared = net->add("shared", dense(8, 8));
       return around([=](const Tensor& h) mutable { return shared(torch::tanh(shared(h))); }, net);
     },
     {"head.weight"},
     kStrict,
     1},
    {"Siamese",
     [] {
       auto net = parts();
       auto encoder = net->add("encoder", dense(6, 8));
       auto head = net->add("head", dense(8, 1));
       return Network{net, [=, a = torch::randn({5, 6}), b = torch::randn({5, 6})]() mutable {
                        return head((encoder(a) - encoder(b)).abs());
                      }};
     },
     {"encoder.weight", "head.weight"},
     kStrict,
     2},

    // Attention.
    {"PackedMultiHeadAttention",
     [] {
       return attention([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto heads = net.add("heads", nn::MultiheadAttention(nn::MultiheadAttentionOptions(8, 2)));
         return [=](const Tensor& x) mutable { return std::get<0>(heads(x, x, x)); };
       });
     },
     {"heads.out_proj.weight", "head.weight"},
     kUpToBiases,
     2},
    {"SeparateMultiHeadAttentionWithBiases",
     [] {
       return attention([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto heads = net.add(
             "heads", nn::MultiheadAttention(nn::MultiheadAttentionOptions(8, 2).kdim(6).vdim(6)));
         heads->in_proj_bias.data().normal_();
         return [=](const Tensor& x) mutable {
           return std::get<0>(heads(x, x.slice(2, 0, 6), x.slice(2, 0, 6)));
         };
       });
     },
     {"heads.v_proj_weight", "heads.out_proj.weight", "head.weight"},
     kUpToBiases,
     3},
    {"TransformerEncoderLayer",
     [] {
       return attention([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto layer = net.add(
             "layer", nn::TransformerEncoderLayer(
                          nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(16).dropout(0)));
         return [=](const Tensor& x) mutable { return layer(x); };
       });
     },
     {"head.weight"},
     kStrict,
     1},
    {"SeparateMultiHeadAttention",
     [] {
       return attention([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto heads =
             net.add("heads", nn::MultiheadAttention(
                                  nn::MultiheadAttentionOptions(8, 2).kdim(6).vdim(6).bias(false)));
         return [=](const Tensor& x) mutable {
           return std::get<0>(heads(x, x.slice(2, 0, 6), x.slice(2, 0, 6)));
         };
       });
     },
     {"heads.v_proj_weight", "heads.out_proj.weight", "head.weight"},
     kStrict,
     3},
    {"FusedAttention",
     [] {
       return attention([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto query = net.add("query", dense(8, 8));
         auto key = net.add("key", dense(8, 8));
         auto value = net.add("value", dense(8, 8));
         return [=](const Tensor& x) mutable {
           return at::scaled_dot_product_attention(query(x).unsqueeze(1), key(x).unsqueeze(1),
                                                   value(x).unsqueeze(1))
               .squeeze(1);
         };
       });
     },
     {"value.weight", "head.weight"},
     kStrict,
     2},
    {"AttentionPooling",
     [] {
       return attention([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto score = net.add("score", dense(8, 1));
         auto value = net.add("value", dense(8, 8));
         return [=](const Tensor& x) mutable {
           return (torch::softmax(score(x), 0) * value(x)).sum(0);
         };
       });
     },
     {"value.weight", "head.weight"},
     kStrict,
     2},
    {"AttentionPoolingOverItsOwnScores",
     [] {
       return attention([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto score = net.add("score", dense(8, 1));
         auto value = net.add("value", dense(8, 8));
         return [=](const Tensor& x) mutable {
           const auto h = value(x);
           return (torch::softmax(score(h), 0) * h).sum(0);
         };
       });
     },
     {"head.weight"},
     kStrict,
     1},

    // Recurrent networks.
    {"Lstm",
     [] {
       return recurrent([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto cell = net.add("cell", nn::LSTM(6, 8));
         return [=](const Tensor& x) mutable { return std::get<0>(cell(x)); };
       });
     },
     {"head.weight"},
     kStrict,
     1},
    {"Gru",
     [] {
       return recurrent([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto cell = net.add("cell", nn::GRU(6, 8));
         return [=](const Tensor& x) mutable { return std::get<0>(cell(x)); };
       });
     },
     {"head.weight"},
     kStrict,
     1},
    {"ReluRnn",
     [] {
       return recurrent([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto cell = net.add("cell", nn::RNN(nn::RNNOptions(6, 8).nonlinearity(torch::kReLU)));
         return [=](const Tensor& x) mutable { return std::get<0>(cell(x)); };
       });
     },
     {"cell.weight_ih_l0", "cell.weight_hh_l0", "head.weight"},
     kUpToAdds,
     kMixed},

    {"LstmOfTwoLayersInBothDirections",
     [] {
       return recurrent([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto cell =
             net.add("cell", nn::LSTM(nn::LSTMOptions(6, 4).num_layers(2).bidirectional(true)));
         return [=](const Tensor& x) mutable { return std::get<0>(cell(x)); };
       });
     },
     {"head.weight"},
     kStrict,
     1},
    {"GruCellByCell",
     [] {
       return recurrent([](Parts& net) -> std::function<Tensor(Tensor)> {
         auto cell = net.add("cell", nn::GRUCell(6, 8));
         return [=](const Tensor& x) mutable {
           Tensor h;
           for (const Tensor& step : x.unbind(0)) h = cell(step, h);
           return h.unsqueeze(0);
         };
       });
     },
     {"head.weight"},
     kStrict,
     1},

    // Activations and normalisations.
    {"Prelu",
     [] {
       auto net = parts();
       auto prelu = net->add("prelu", nn::PReLU(nn::PReLUOptions().num_parameters(8)));
       return around([=](const Tensor& h) mutable { return prelu(h); }, net);
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"Maxout",
     [] {
       return around([](const Tensor& h) {
         return std::get<0>(h.view({5, 4, 2}).max(2)).repeat({1, 2});
       });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"MaximumOfBranches",
     [] { return around([](const Tensor& h) { return torch::maximum(h, -2 * h.flip(1)); }); },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"ReluAsComparison",
     [] {
       return around(
           [](const Tensor& h) { return torch::where(h > 0, h, 0.1 * h).masked_fill(h > 0.5, 0); });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2,
     {},
     false},  // the 0.5 does not scale: unseen
    {"DropoutInTraining",
     [] {
       return around([](const Tensor& h) { return torch::dropout(torch::relu(h), 0.5, true); });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2,
     {},
     std::nullopt,
     false},
    {"RootMeanSquareNorm",
     [] {
       auto net = parts();
       auto gain = net->weight("gain", {8});
       return around([=](const Tensor& h) { return torch::rms_norm(h, {8}, gain); }, net);
     },
     {"head.weight"},
     kStrict,
     1},
    {"NormalisedFeatures",
     [] { return around([](const Tensor& h) { return F::normalize(h); }); },
     {"head.weight"},
     kStrict,
     1},
    {"LocalResponseNorm",
     [] { return around_images(nn::Sequential(conv(4, 6), nn::LocalResponseNorm(2))); },
     {"head.weight"},
     kStrict,
     1},
    {"WeightNorm",
     [] {
       auto net = parts();
       auto direction = net->weight("direction", {8, 8});
       auto length = net->weight("length", {8, 1});
       return around(
           [=](const Tensor& h) {
             return torch::linear(h, torch::_weight_norm(direction, length));
           },
           net);
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"WeightNormWrittenOut",
     [] {
       auto net = parts();
       auto direction = net->weight("direction", {8, 8});
       auto length = net->weight("length", {8, 1});
       return around(
           [=](const Tensor& h) {
             return torch::linear(h, length * (direction / direction.norm(2, 1, true)));
           },
           net);
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"UnknownFunction",
     [] { return around([](const Tensor& h) { return Triple::apply(h); }); },
     {"head.weight"},
     kStrict,
     1},
    {"FunctionOfTheUser",
     [] { return around([](const Tensor& h) { return Triple::apply(h); }); },
     {"hidden.weight", "head.weight"},
     kStrict,
     2,
     OperatorTable().classify(triple_node(), Operator::homogeneous())},
    {"ReluToTheUserABoundary",
     [] { return mlp(false); },
     {"head.weight"},
     kStrict,
     1,
     OperatorTable().classify("Relu", Operator::boundary("said so"))},
    {"ClampAtZeroOfTheUser",
     [] { return around([](const Tensor& h) { return h.clamp_min(0); }); },
     {"hidden.weight", "head.weight"},
     kStrict,
     2,
     OperatorTable().classify("ClampMinBackward0", Operator::homogeneous())},

    // Weights without a module, and expressions of weights.
    {"RawProduct",
     [] { return raw([](const Tensor& x, const Tensor& w) { return x.mm(w); }); },
     {"w"},
     kStrict,
     1},
    {"RawProductFromTheLeft",
     [] {
       return raw([](const Tensor& x, const Tensor& w) { return w.mm(x.t()).t(); }, {4, 6});
     },
     {"w"},
     kStrict,
     1},
    {"Einsum",
     [] {
       return raw(
           [](const Tensor& x, const Tensor& w) {
             return torch::einsum("bi,oi->bo", {x, w});
           },
           {4, 6});
     },
     {"w"},
     kStrict,
     1},
    {"BatchOfExperts",
     [] {
       return raw(
           [](const Tensor& x, const Tensor& w) { return torch::relu(torch::matmul(x, w)).sum(0); },
           {3, 6, 4});
     },
     {"w"},
     kStrict,
     1},
    {"Bilinear",
     [] {
       auto net = parts();
       auto both = net->add("both", nn::Bilinear(nn::BilinearOptions(8, 8, 8).bias(false)));
       return around([=](const Tensor& h) mutable { return both(h, torch::relu(h)); }, net);
     },
     {"both.weight", "hidden.weight", "head.weight"},
     kStrict,
     4},
    {"LowRankAdaptation",
     [] {
       auto net = parts();
       auto base = net->weight("base", {4, 6});
       auto up = net->weight("up", {4, 2});
       auto down = net->weight("down", {2, 6});
       return Network{net, [=, x = torch::randn({5, 6})] {
                        return torch::linear(x, base + 0.5 * up.mm(down));
                      }};
     },
     {"base", "up", "down"},
     kUpToAdds,
     kMixed},
    {"NoisyLayer",
     [] {
       auto net = parts();
       auto mu = net->weight("weight_mu", {4, 8});
       auto sigma = net->weight("weight_sigma", {4, 8});
       auto bias = net->weight("bias_mu", {4});
       auto bias_sigma = net->weight("bias_sigma", {4});
       auto hidden = net->add("hidden", dense(6, 8));
       return Network{net, [=, x = torch::randn({5, 6}), a = torch::randn({4, 8}),
                            b = torch::randn({4})]() mutable {
                        return torch::linear(torch::relu(hidden(x)), mu + sigma * a,
                                             bias + bias_sigma * b);
                      }};
     },
     {"weight_mu", "weight_sigma", "hidden.weight"},
     kUpToBiases,
     2},
    {"StraightThroughQuantisation",
     [] {
       auto net = parts();
       auto w = net->weight("w", {6, 4, 3});
       return around(
           [=](const Tensor& h) {
             const auto rounded = w + (torch::round(8 * w) / 8 - w).detach();
             return torch::conv1d(h.view({5, 4, 2}), rounded, {}, 1, 2)
                 .mean({2})
                 .repeat({1, 2})
                 .slice(1, 0, 8);
           },
           net);
     },
     {"w", "hidden.weight", "head.weight"},
     kUpToAdds,
     kMixed},
    {"RowsOfAWeightFilled",
     [] {
       auto net = parts();
       auto w = net->weight("w", {4, 6});
       return Network{net, [=, x = torch::randn({5, 6})] {
                        return torch::linear(x, w.index_fill(0, torch::tensor({1}), 0.0));
                      }};
     },
     {"w"},
     kUpToAdds,
     kMixed,
     {},
     true},
    {"HeadsTogether",
     [] {
       auto net = parts();
       auto w1 = net->weight("w1", {2, 8});
       auto w2 = net->weight("w2", {3, 8});
       auto b1 = net->weight("b1", {2});
       auto b2 = net->weight("b2", {3});
       auto hidden = net->add("hidden", dense(6, 8));
       return Network{net, [=, x = torch::randn({5, 6})]() mutable {
                        return torch::linear(torch::relu(hidden(x)), torch::cat({w1, w2}),
                                             torch::cat({b1, b2}));
                      }};
     },
     {"w1", "w2", "hidden.weight"},
     kUpToBiases,
     2},
    {"MaskedByHand",
     [] {
       auto net = parts();
       auto weight = net->weight("weight_orig", {4, 8});
       auto bias = net->weight("bias_orig", {4});
       auto hidden = net->add("hidden", dense(6, 8));
       return Network{net, [=, x = torch::randn({5, 6}), mask = torch::ones({4, 8}).tril(),
                            of_bias = torch::tensor({1.F, 0.F, 1.F, 1.F})]() mutable {
                        return torch::linear(torch::relu(hidden(x)), weight * mask, bias * of_bias);
                      }};
     },
     {"weight_orig", "hidden.weight"},
     kUpToBiases,
     2},
    {"DiagonalWeightsOfTheInput",
     [] {
       auto net = parts();
       auto w = net->weight("w", {6});
       auto b = net->weight("b", {6});
       return Network{net, [=, x = torch::randn({5, 6})] { return x * w + b; }};
     },
     {"w"},
     kUpToBiases,
     1},
    {"GainBehindALayerNormWithoutOne",
     [] {
       auto net = parts();
       auto gain = net->weight("gain", {8});
       return around([=](const Tensor& h) { return torch::layer_norm(h, {8}) * gain; }, net);
     },
     {"head.weight"},
     kStrict,
     1},
    {"OutputOverwritten",
     [] {
       auto net = parts();
       auto lost = net->add("lost", dense(8, 8));
       return around(
           [=](const Tensor& h) mutable {
             auto buffer = lost(h);
             buffer.copy_(torch::relu(h));
             return buffer;
           },
           net);
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"SumOfBiases",
     [] {
       auto net = parts();
       auto b1 = net->weight("b1", {8});
       auto b2 = net->weight("b2", {8});
       return around([=](const Tensor& h) { return torch::relu(h + 2 * (b1 + b2)); }, net);
     },
     {"hidden.weight", "head.weight"},
     kUpToBiases,
     2},
    {"BiasAlsoBehindABoundary",
     [] {
       auto net = parts();
       auto bias = net->weight("bias", {8});
       return around([=](const Tensor& h) { return torch::relu(h + bias) * torch::sigmoid(bias); },
                     net);
     },
     {"hidden.weight", "head.weight"},
     kUpToBiases,
     2},
    {"FrozenLinearBias",
     [] {
       auto network = mlp(true);
       auto parameters = network.module->named_parameters();
       for (const char* name : {"hidden1.bias", "head.bias"})
         parameters[name].set_requires_grad(false);
       return network;
     },
     {"hidden1.weight", "hidden2.weight", "head.weight"},
     kUpToBiases,
     3},
    {"BufferAddedAsABias",
     [] {
       return around([shift = torch::randn({8})](const Tensor& h) {
         return torch::addmm(shift, h, torch::eye(8));
       });
     },
     {"hidden.weight", "head.weight"},
     kUpToAdds,
     kMixed},
    {"LearnedPositions",
     [] {
       auto net = parts();
       auto positions = net->weight("positions", {5, 8});
       return around([=](const Tensor& h) { return h + positions; }, net);
     },
     {"hidden.weight", "head.weight"},
     kUpToBiases,
     2},
    {"ClassToken",
     [] {
       auto net = parts();
       auto token = net->weight("token", {1, 8});
       return around([=](const Tensor& h) { return torch::cat({token, h}); }, net);
     },
     {"token", "hidden.weight", "head.weight"},
     kStrict,
     2},
    {"WeightThatIsAddedAsWell",
     [] {
       auto net = parts();
       auto both = net->weight("both", {8});
       return around([=](const Tensor& h) { return h * both + both; }, net);
     },
     {"both", "hidden.weight", "head.weight"},
     kUpToAdds,
     kMixed},
    {"LeafOutsideTheModule",
     [] {
       return around([w = torch::ones({8}).requires_grad_()](const Tensor& h) { return h * w; });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},

    // Sums, joins, and the like.
    {"ConstantAdded",
     [] { return around([](const Tensor& h) { return h + 1; }); },
     {"hidden.weight", "head.weight"},
     kUpToAdds,
     kMixed},
    {"ConstantTensorAdded",
     [] { return around([](const Tensor& h) { return torch::ones({8}) - h; }); },
     {"hidden.weight", "head.weight"},
     kUpToAdds,
     kMixed},
    {"SkipOfAnotherDegreeJoined",
     [] {
       auto net = parts();
       auto narrow = net->add("narrow", dense(8, 4));
       return around(
           [=](const Tensor& h) mutable {
             return torch::cat({narrow(torch::relu(h)), h.slice(1, 0, 4)}, 1);
           },
           net);
     },
     {"narrow.weight", "hidden.weight", "head.weight"},
     kUpToAdds,
     kMixed},
    {"BranchesOfOneDegreeJoined",
     [] {
       return around([](const Tensor& h) {
         const auto halves = h.split(4, 1);
         return torch::cat({halves[0].relu(), halves[1]}, 1) + torch::stack({h, h}).sum(0);
       });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"CastToBFloat16",
     [] {
       return around(
           [](const Tensor& h) { return torch::relu(h.to(torch::kBFloat16)).to(torch::kFloat); });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"CopyIntoABuffer",
     [] {
       return around([](const Tensor& h) {
         auto buffer = torch::zeros({5, 8});
         buffer.slice(1, 0, 6).copy_(h.slice(1, 0, 6));
         return buffer;
       });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"OverwrittenWhole",
     [] {
       return around([](const Tensor& h) {
         auto buffer = torch::sigmoid(h).detach() * h;
         buffer.copy_(h);
         return buffer;
       });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"ReluWrittenIntoAView",
     [] {
       return around([](const Tensor& h) {
         auto other = 2 * h;
         other.slice(1, 0, 4).relu_();
         return other;
       });
     },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
    {"SigmoidWrittenIntoAView",
     [] {
       return around([](const Tensor& h) {
         auto other = 2 * h;
         other.slice(1, 0, 4).sigmoid_();
         return other;
       });
     },
     {"head.weight"},
     kStrict,
     1},
    {"WeightMultipliedIntoAView",
     [] {
       auto net = parts();
       auto scale = net->weight("scale", {4});
       return around(
           [=](const Tensor& h) {
             auto other = 2 * h;
             other.slice(1, 0, 4).mul_(scale);
             return other;
           },
           net);
     },
     {"scale", "hidden.weight", "head.weight"},
     kUpToAdds,
     kMixed},
    {"Interpolation",
     [] { return around([](const Tensor& h) { return torch::lerp(h, torch::relu(h), 0.3); }); },
     {"hidden.weight", "head.weight"},
     kStrict,
     2},
};

class GraphWalk : public ::testing::TestWithParam<Row> {
 protected:
  void SetUp() override {
    torch::manual_seed(0);
    network_ = GetParam().make();
  }
  Network network_;
};

TEST_P(GraphWalk, FindsWhatIsHomogeneous) {
  const auto subnetwork =
      final_homogeneous_subnetwork(network_.logits(), *network_.module, GetParam().table);
  EXPECT_EQ(subnetwork.names(), GetParam().expected) << subnetwork;
  EXPECT_EQ(subnetwork.homogeneity(), GetParam().homogeneity) << subnetwork;
  EXPECT_EQ(subnetwork.degree(), GetParam().degree) << subnetwork;
}

TEST_P(GraphWalk, GivesAReasonForEachThatIsOutsideAndOnlyForThose) {
  const auto subnetwork =
      final_homogeneous_subnetwork(network_.logits(), *network_.module, GetParam().table);
  for (const auto& parameter : subnetwork.all()) {
    EXPECT_EQ(parameter.reason.empty(), parameter.inside) << parameter.name;
    EXPECT_EQ(parameter.node.empty(),
              parameter.reason.find("frozen") == 0 || parameter.reason.find("not used") == 0)
        << parameter.name;
    EXPECT_LT(parameter.unit_dim, std::max<int64_t>(1, parameter.tensor.dim())) << parameter.name;
  }
}

TEST_P(GraphWalk, ScalesAsItsHomogeneitySays) {
  if (!GetParam().deterministic) return;  // its own test shows that the check refuses it
  const auto subnetwork =
      final_homogeneous_subnetwork(network_.logits(), *network_.module, GetParam().table);
  const auto check = check_homogeneity(network_.logits, subnetwork);
  EXPECT_EQ(check.exact, GetParam().exact.value_or(GetParam().homogeneity != kUpToAdds)) << check;
  EXPECT_EQ(check.largest_error == 0, check.exact) << check;
  if (GetParam().homogeneity != kUpToAdds) {
    EXPECT_EQ(subnetwork.added_biases().empty(), GetParam().homogeneity == kStrict) << subnetwork;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, GraphWalk, ::testing::ValuesIn(kRows),
                         [](const auto& row) { return row.param.name; });

// What the table does not show: roles, nodes, unit dimensions, reasons, boundaries, refusals.

const lawn::SubnetworkParameter& find(const lawn::Subnetwork& subnetwork, const std::string& name) {
  for (const auto& parameter : subnetwork.all()) {
    if (parameter.name == name) return parameter;
  }
  throw std::out_of_range(name);
}

lawn::Subnetwork walk(const Network& network) {
  return final_homogeneous_subnetwork(network.logits(), *network.module);
}

class GraphWalkDetails : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TEST_F(GraphWalkDetails, ListsEveryParameterInModuleOrder) {
  const auto network = resnet();
  const auto subnetwork = walk(network);
  const auto expected = network.module->named_parameters();
  ASSERT_EQ(subnetwork.all().size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(subnetwork.all()[i].name, expected[i].key());
    EXPECT_TRUE(subnetwork.all()[i].tensor.is_same(expected[i].value()));
  }
  ASSERT_EQ(subnetwork.parameters().size(), 1U);
  EXPECT_TRUE(subnetwork.parameters()[0].is_same(expected["head.weight"]));
}

TEST_F(GraphWalkDetails, TellsWeightsBiasesAndEmbeddingsApart) {
  const auto subnetwork = walk(neumf());
  EXPECT_EQ(find(subnetwork, "gmf_user.weight").role, lawn::Role::kEmbedding);
  EXPECT_EQ(find(subnetwork, "gmf_user.weight").node, "EmbeddingBackward0");
  EXPECT_EQ(find(subnetwork, "mlp1.weight").role, lawn::Role::kWeight);
  EXPECT_EQ(find(subnetwork, "mlp1.weight").node, "AddmmBackward0");
  EXPECT_EQ(find(subnetwork, "mlp1.bias").role, lawn::Role::kBias);
  EXPECT_TRUE(find(subnetwork, "mlp1.bias").inside);
  EXPECT_FALSE(find(subnetwork, "mlp1.bias").constrained());
}

TEST_F(GraphWalkDetails, TakesABiasForOneWhateverItsNameIs) {
  auto net = parts();
  auto shift = net->weight("shift", {8});
  auto bias = net->weight("bias", {8});
  const auto subnetwork =
      walk(around([=](const Tensor& h) { return torch::relu(h) * bias + shift; }, net));
  EXPECT_EQ(find(subnetwork, "shift").role, lawn::Role::kBias);
  EXPECT_EQ(find(subnetwork, "bias").role, lawn::Role::kWeight);
  EXPECT_TRUE(find(subnetwork, "bias").constrained());
}

TEST_F(GraphWalkDetails, TakesWhatIsAddedToTheInputForABias) {
  auto net = parts();
  auto positions = net->weight("positions", {6});
  auto head = net->add("head", dense(6, 4));
  const auto subnetwork =
      walk({net, [=, x = torch::randn({5, 6})]() mutable { return head(x + positions); }});
  EXPECT_EQ(find(subnetwork, "positions").role, lawn::Role::kBias);
}

TEST_F(GraphWalkDetails, KnowsABiasByTheWordInItsName) {
  auto net = parts();
  net->add("heads", nn::MultiheadAttention(nn::MultiheadAttentionOptions(8, 2).add_bias_kv(true)));
  net->add("cell", nn::LSTM(6, 8));
  net->weight("unbiased", {3});
  net->weight("biases_of_others", {3});
  net->weight("out_bias", {3});
  const auto subnetwork = walk(around([](const Tensor& h) { return h; }, net));
  for (const char* name : {"heads.in_proj_bias", "heads.bias_k", "heads.out_proj.bias",
                           "cell.bias_ih_l0", "out_bias"}) {
    EXPECT_EQ(find(subnetwork, name).role, lawn::Role::kBias) << name;
    EXPECT_FALSE(find(subnetwork, name).added) << name;
  }
  for (const char* name :
       {"heads.in_proj_weight", "cell.weight_ih_l0", "unbiased", "biases_of_others"}) {
    EXPECT_EQ(find(subnetwork, name).role, lawn::Role::kWeight) << name;
  }
}

TEST_F(GraphWalkDetails, TellsWhichBiasesAreAddedWithin) {
  const auto normalised = walk(resnet());
  EXPECT_TRUE(find(normalised, "head.bias").added);
  EXPECT_FALSE(find(normalised, "norm2.bias").added);
  ASSERT_EQ(normalised.added_biases().size(), 1U);
  EXPECT_TRUE(normalised.added_biases()[0].is_same(find(normalised, "head.bias").tensor));
}

TEST_F(GraphWalkDetails, KeepsTheNamedRoleOfWhatIsOutside) {
  const auto subnetwork = walk(resnet());
  EXPECT_EQ(find(subnetwork, "norm1.weight").role, lawn::Role::kWeight);
  EXPECT_EQ(find(subnetwork, "norm1.bias").role, lawn::Role::kBias);
  EXPECT_EQ(find(subnetwork, "norm1.bias").node, "NativeBatchNormBackward0");
}

/// The unit dimension of the weight w of six inputs and `outputs` outputs, or the other way round.
int64_t unit_dim(const std::function<Tensor(const Tensor&, const Tensor&)>& multiply,
                 const std::vector<int64_t>& sizes) {
  return find(walk(raw(multiply, sizes)), "w").unit_dim;
}

TEST_F(GraphWalkDetails, FindsTheDimensionOfOutputUnits) {
  using T = const Tensor&;
  EXPECT_EQ(unit_dim([](T x, T w) { return x.mm(w); }, {6, 4}), 1);
  EXPECT_EQ(unit_dim([](T x, T w) { return x.mm(w); }, {6, 6}), 1);
  EXPECT_EQ(unit_dim([](T x, T w) { return x.mm(w.t()); }, {6, 6}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return x.mm(w.t().contiguous().t()); }, {6, 6}), 1);
  EXPECT_EQ(unit_dim([](T x, T w) { return w.mm(x.t()); }, {6, 6}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return w.t().mm(x.t()); }, {6, 6}), 1);
  EXPECT_EQ(unit_dim([](T x, T w) { return x.mm(w.permute({1, 0})); }, {6, 6}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return torch::linear(x, w); }, {4, 6}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return torch::matmul(x, w); }, {3, 6, 4}), 2);
  EXPECT_EQ(unit_dim([](T x, T w) { return w.mv(x[0]); }, {4, 6}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return w.permute({1, 0}).mv(x[0]); }, {6, 4}), 1);
  EXPECT_EQ(unit_dim([](T x, T w) { return x.mv(w); }, {6}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return torch::einsum("bi,oi->bo", {x, w}); }, {4, 6}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return torch::einsum("bi,io->bo", {x, w}); }, {6, 4}), 1);
  EXPECT_EQ(unit_dim([](T x, T w) { return torch::einsum("oi,bi->ob", {w, x}); }, {4, 6}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return x.mm(w + torch::ones({6, 4})); }, {6, 4}), 1);
  EXPECT_EQ(unit_dim([](T x, T w) { return x.mm(w.view({4, 6}).t()); }, {4, 3, 2}), 0);
  EXPECT_EQ(unit_dim([](T x, T w) { return torch::linear(x, w.squeeze(-1)); }, {4, 6, 1}), 0);
}

TEST_F(GraphWalkDetails, CountsUnitsOfConvolutionsByTheirModule) {
  const auto plain = walk(around_images(nn::Conv2d(nn::Conv2dOptions(4, 6, 3))));
  EXPECT_EQ(find(plain, "body.weight").unit_dim, 0);
  const auto transposed =
      walk(around_images(nn::ConvTranspose2d(nn::ConvTranspose2dOptions(4, 6, 3))));
  EXPECT_EQ(find(transposed, "body.weight").unit_dim, 1);
  EXPECT_EQ(find(transposed, "body.bias").unit_dim, 0);
}

TEST_F(GraphWalkDetails, CountsUnitsOfConvolutionsOutsideModulesByTheirOutputs) {
  using T = const Tensor&;
  const auto image = [](T x) { return x.reshape({5, 6, 1, 1}).expand({5, 6, 3, 3}); };
  const auto line = [](T x) { return x.reshape({5, 6, 1}).expand({5, 6, 3}); };
  const auto plain = [=](T x, T w) { return torch::conv2d(image(x), w); };
  const auto transposed = [=](T x, T w) { return torch::conv_transpose2d(image(x), w); };
  EXPECT_EQ(unit_dim(plain, {4, 6, 2, 2}), 0);
  EXPECT_EQ(unit_dim(plain, {6, 6, 2, 2}), 0);
  EXPECT_EQ(unit_dim(transposed, {6, 4, 2, 2}), 1);
  EXPECT_EQ(unit_dim([=](T x, T w) { return torch::conv_transpose1d(line(x), w); }, {6, 4, 2}), 1);
  EXPECT_EQ(unit_dim([=](T x, T w) { return torch::conv_transpose3d(image(x).unsqueeze(-1), w); },
                     {6, 4, 2, 2, 1}),
            1);
  EXPECT_EQ(unit_dim(
                [=](T x, T w) {
                  return torch::conv_transpose2d(image(x), w + torch::randn({6, 4, 2, 2}));
                },
                {6, 4, 2, 2}),
            1);
  EXPECT_EQ(unit_dim([=](T x, T w) { return plain(x, w.transpose(0, 1)); }, {6, 4, 2, 2}), 1);
  EXPECT_EQ(unit_dim([=](T x, T w) { return plain(x, w.permute({1, 0, 2, 3})); }, {6, 4, 2, 2}), 1);
  EXPECT_EQ(unit_dim([=](T x, T w) { return plain(x, w.transpose(2, 3)); }, {4, 6, 2, 2}), 0);
  EXPECT_EQ(unit_dim([=](T x, T w) { return transposed(x, w.transpose(0, 1)); }, {4, 6, 2, 2}), 0);
  EXPECT_EQ(unit_dim([=](T x, T w) { return plain(x, w.view({4, 6, 1, 1})); }, {4, 6}), 0);
  const auto as_image = [](T x, T w) { return torch::conv2d(w, x.reshape({5, 6, 1, 1})); };
  EXPECT_EQ(unit_dim(as_image, {2, 6, 2, 2}), 0) << "not a kernel";
}

TEST_F(GraphWalkDetails, SaysWhyAParameterIsOutside) {
  const auto gate = walk(squeeze_excitation());
  EXPECT_EQ(find(gate, "excite.weight").reason,
            "behind SigmoidBackward0: an activation that is not positively homogeneous");
  EXPECT_EQ(find(gate, "body.weight").reason,
            "also used behind SigmoidBackward0: an activation that is not positively homogeneous");

  const auto shared = walk(tied(true));
  EXPECT_EQ(find(shared, "tokens.weight").reason,
            "also used behind NativeLayerNormBackward0: layer norm does not scale with its input");

  const auto normalised = walk(around([](const Tensor& h) { return h / h.norm(); }));
  EXPECT_EQ(find(normalised, "hidden.weight").reason,
            "also used behind DivBackward0: division by something that depends on weights");

  auto net = parts();
  net->weight("unused", {2, 2});
  net->weight("frozen", {2, 2}).set_requires_grad(false);
  const auto gated = net->weight("gate", {});
  const auto foreign = torch::ones({8}).requires_grad_();
  const auto others = walk(around([=](const Tensor& h) { return h * gated * foreign; }, net));
  EXPECT_EQ(find(others, "unused").reason, "not used by these logits, or detached from them");
  EXPECT_EQ(find(others, "frozen").reason, "frozen (requires_grad is false)");
  EXPECT_EQ(find(others, "gate").reason,
            "a single element: there is no direction to train in once its norm is held");
  EXPECT_EQ(find(others, "(not in the module)").reason, "not a parameter of the module");
  EXPECT_TRUE(find(others, "(not in the module)").tensor.is_same(foreign));
  EXPECT_EQ(others.all().back().name, "(not in the module)");
  EXPECT_FALSE(find(others, "(not in the module)").added);
}

TEST_F(GraphWalkDetails, LeavesTheScaleOfANormalisationOutside) {
  auto net = parts();
  auto gain = net->weight("gain", {8});
  const auto subnetwork =
      walk(around([=](const Tensor& h) { return torch::rms_norm(h, {8}, gain); }, net));
  EXPECT_EQ(find(subnetwork, "gain").reason, "behind MulBackward0: the scale of a normalisation");
  ASSERT_EQ(subnetwork.boundaries().size(), 1U);
  EXPECT_EQ(subnetwork.boundaries()[0].node, "RsqrtBackward0");
}

TEST_F(GraphWalkDetails, LeavesComplexWeightsOutside) {
  auto net = parts();
  auto phase = net->register_parameter("phase", torch::randn({8}, torch::kComplexFloat));
  const auto subnetwork = walk(around(
      [=](const Tensor& h) { return torch::real(h.to(torch::kComplexFloat) * phase); }, net));
  EXPECT_EQ(find(subnetwork, "phase").reason, "not of a real floating-point type");
  EXPECT_EQ(subnetwork.names(), (Names{"hidden.weight", "head.weight"}));
}

TEST_F(GraphWalkDetails, ListsEachBoundaryOnceFromTheLogitsDown) {
  auto net = parts();
  auto other = net->add("other", dense(6, 8));
  const auto subnetwork = walk(around(
      [=](const Tensor& h) {
        return torch::tanh(h) + torch::tanh(2 * h) + torch::softmax(torch::exp(h), 1);
      },
      net));
  std::multiset<std::string> nodes;
  for (const auto& boundary : subnetwork.boundaries()) nodes.insert(boundary.node);
  EXPECT_EQ(nodes, (std::multiset<std::string>{"SoftmaxBackward0", "TanhBackward0"}));
  EXPECT_TRUE(walk(mlp(true)).boundaries().empty());
}

TEST_F(GraphWalkDetails, NamesWhatItDoesNotKnowAndHowToClassifyIt) {
  const auto subnetwork = walk(around([](const Tensor& h) { return Triple::apply(h); }));
  ASSERT_EQ(subnetwork.boundaries().size(), 1U);
  EXPECT_EQ(subnetwork.boundaries()[0].node, triple_node());
  EXPECT_NE(subnetwork.boundaries()[0].reason.find("OperatorTable().classify(\"" + triple_node()),
            std::string::npos)
      << subnetwork.boundaries()[0].reason;
}

TEST_F(GraphWalkDetails, ReportsATensorUnderItsFirstNameOnly) {
  auto net = parts();
  auto shared = net->add("shared", dense(8, 8));
  net->register_module("same", shared.ptr());
  const auto subnetwork = walk(around([=](const Tensor& h) mutable { return shared(h); }, net));
  EXPECT_EQ(subnetwork.all().size(), 3U);
  EXPECT_EQ(subnetwork.all()[0].name, "shared.weight");
}

TEST_F(GraphWalkDetails, DoesNotDependOnTheOrderInWhichPathsAreFound) {
  // The boundary is reached first in one, last in the other.
  for (const bool first : {true, false}) {
    const auto subnetwork = walk(around([=](const Tensor& h) {
      const auto gate = torch::sigmoid(h);
      return first ? gate * torch::relu(h) : torch::relu(h) * gate;
    }));
    EXPECT_EQ(subnetwork.names(), (Names{"head.weight"}));
    EXPECT_NE(find(subnetwork, "hidden.weight").reason.find("also used behind Sigmoid"),
              std::string::npos);
  }
}

TEST_F(GraphWalkDetails, WalksAGraphOfAHundredThousandNodes) {
  const auto subnetwork = walk(around([](Tensor h) {
    for (int i = 0; i < 50000; ++i) h = torch::relu(2 * h);
    return h;
  }));
  EXPECT_EQ(subnetwork.names(), (Names{"hidden.weight", "head.weight"}));
  EXPECT_EQ(subnetwork.degree(), 2);
}

TEST_F(GraphWalkDetails, GivesUpADegreeThatWouldOverflow) {
  const auto subnetwork = walk(around([](Tensor h) {
    for (int i = 0; i < 70; ++i) h = h * h;
    return h;
  }));
  EXPECT_EQ(subnetwork.degree(), std::nullopt);
  EXPECT_EQ(subnetwork.homogeneity(), kStrict);
}

TEST_F(GraphWalkDetails, WalksTheGraphOfAnyFloatingPointType) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    auto hidden = dense(6, 8);
    nn::Sequential net(hidden, nn::ReLU(), dense(8, 4));
    net->to(dtype);
    const auto logits = [&, x = torch::randn({5, 6}).to(dtype)] { return net->forward(x); };
    const auto subnetwork = final_homogeneous_subnetwork(logits(), *net);
    EXPECT_EQ(subnetwork.names(), (Names{"0.weight", "2.weight"})) << dtype;
    EXPECT_TRUE(check_homogeneity(logits, subnetwork).exact) << dtype;
  }
}

TEST_F(GraphWalkDetails, StillReadsAGraphThatBackwardHasUsed) {
  const auto network = mlp(true);
  const auto logits = network.logits();
  logits.sum().backward();
  EXPECT_EQ(final_homogeneous_subnetwork(logits, *network.module).names().size(), 3U);
}

TEST_F(GraphWalkDetails, TakesAViewWrittenInPlaceForUnknownAfterBackward) {
  const auto network = around([](const Tensor& h) {
    auto other = 2 * h;
    other.slice(1, 0, 4).relu_();
    return other;
  });
  const auto logits = network.logits();
  logits.sum().backward();
  const auto subnetwork = final_homogeneous_subnetwork(logits, *network.module);
  EXPECT_EQ(subnetwork.names(), (Names{"head.weight"}));
  EXPECT_EQ(subnetwork.boundaries()[0].node, "CopySlices");
}

TEST_F(GraphWalkDetails, RefusesLogitsWithoutAGraph) {
  const auto network = mlp(true);
  const auto& module = *network.module;
  const std::string expected =
      "lawn::final_homogeneous_subnetwork: expected logits with an autograd graph, got a Float "
      "tensor without one; compute them from parameters that require gradients, outside "
      "NoGradGuard";
  expect_refusal([&] { final_homogeneous_subnetwork(network.logits().detach(), module); },
                 expected);
  expect_refusal(
      [&] {
        const torch::NoGradGuard no_grad;
        final_homogeneous_subnetwork(network.logits(), module);
      },
      expected);
  expect_refusal([&] { final_homogeneous_subnetwork(network.logits().argmax(1), module); },
                 "expected logits with an autograd graph, got a Long tensor without one");
  expect_refusal([&] { final_homogeneous_subnetwork(Tensor(), module); },
                 "expected logits, got an undefined tensor; pass the output of forward()");
  expect_refusal(
      [&] { final_homogeneous_subnetwork(network.logits().to(torch::kComplexFloat), module); },
      "expected real logits, got ComplexFloat");
}

TEST_F(GraphWalkDetails, RefusesWhatLiesPastTheLogits) {
  const auto network = mlp(true);
  const auto target = torch::zeros({5}, torch::kLong);
  const auto refuse = [&](const Tensor& output, const std::string& expected) {
    expect_refusal([&] { final_homogeneous_subnetwork(output, *network.module); }, expected);
  };
  const auto logits = network.logits();
  refuse(torch::log_softmax(logits, 1),
         "expected logits, got the output of LogSoftmaxBackward0: this looks like "
         "log-probabilities: pass the logits");
  refuse(torch::log_softmax(logits, 1).t().unsqueeze(0),
         "this looks like log-probabilities: pass the logits");
  refuse(F::logsigmoid(logits), "this looks like log-probabilities: pass the logits");
  refuse(torch::softmax(logits, 1), "this looks like probabilities: pass the logits");
  refuse(torch::sigmoid(logits), "this looks like probabilities: pass the logits");
  refuse(F::cross_entropy(logits, target), "this looks like a loss: pass the logits");
  refuse(F::mse_loss(logits, torch::zeros({5, 4})), "this looks like a loss: pass the logits");
  refuse(F::cross_entropy(logits, torch::softmax(torch::zeros({5, 4}), 1)),
         "the walk from the logits ended at LogSoftmaxBackward0");
}

TEST_F(GraphWalkDetails, RefusesANetworkWithoutASubnetworkAndNamesTheBoundary) {
  const auto refuse = [&](const Network& network, const std::string& expected) {
    expect_refusal([&] { walk(network); }, expected);
  };
  const auto tanh = mlp(true);
  refuse({tanh.module, [&] { return torch::tanh(tanh.logits()); }},
         "expected a weight from which every path to the logits is homogeneous, got none: the walk "
         "from the logits ended at TanhBackward0 (an activation that is not positively "
         "homogeneous); pass what comes before that operator, classify it, or select by hand");
  refuse({tanh.module, [&] { return F::normalize(tanh.logits()); }},
         "ended at DivBackward0 (division by something that depends on weights)");

  // Cosine classifier: features and weights are both normalised.
  auto net = parts();
  auto hidden = net->add("hidden", dense(6, 8));
  auto w = net->weight("w", {4, 8});
  auto scale = net->weight("scale", {});
  refuse({net,
          [=, x = torch::randn({5, 6})]() mutable {
            return scale * torch::linear(F::normalize(hidden(x)), F::normalize(w));
          }},
         "ended at DivBackward0 (division by something that depends on weights)");

  // The graph holds no weight of this module at all.
  refuse({mlp(true).module, tanh.logits},
         "ended at the leaves of the graph, none of which is a weight of the module");
}

}  // namespace
