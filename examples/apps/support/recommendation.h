// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/support/interactions.h"
#include "examples/apps/support/metrics.h"
#include "examples/apps/support/neural_cf.h"
#include "examples/apps/support/ranking.h"
#include "examples/apps/support/table.h"
#include "examples/apps/support/task.h"
#include "examples/apps/support/unseen_items.h"

namespace examples {

/// What a recommender is trained on, and the lists that it is asked to rank.
struct RankingData {
  Interactions train;     ///< the positive samples; negative ones are drawn in every epoch
  at::Tensor candidates;  ///< int64 [users, 1 + others], of each user first the item held out

  RankingData to(at::Device device) const { return {train.to(device), candidates.to(device)}; }
};

/// Items that a user has never taken beside the one held out, in the test.
constexpr int64_t kTestNegatives = 99;

/// Holds one item of each user out and draws the others to rank it among: different items that the
/// user takes neither in the training data nor later. The draw depends on the data alone, so that
/// runs with different seeds rank the same lists.
/// @throws c10::Error as leave_one_out() and UnseenItems do
/// @source He et al. 2017, arXiv 1708.05031, section 4.1
inline RankingData make_ranking_data(const Interactions& all, bool validation) {
  HeldOut split = leave_one_out(all, validation);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(validation ? 1 : 0);
  const at::Tensor others = UnseenItems(all).draw_distinct(kTestNegatives, generator);
  return {std::move(split.train), at::cat({split.items.unsqueeze(1), others}, 1)};
}

/// What a network makes of recommendations.
struct RecommendationFigures {
  RankingFigures ranking;
  PairFigures train;  ///< over interactions and drawn items as they are trained on
  PairFigures test;   ///< over candidates, the items held out weighing as in training
};

/// How a recommender is trained.
struct RecommendationOptions {
  int64_t negatives = 4;       ///< drawn for each interaction, anew in every epoch
  int64_t probe_size = 2'000;  ///< interactions that the training figures of an epoch come from
};

/// Trains a network to tell the items that users take from others, by binary cross-entropy. All is
/// drawn, put into batches and measured by operations on whole tensors, on the data's device.
class Recommendation : public Task {
 public:
  /// @param network  trained in place; must stay on the data's device
  Recommendation(std::shared_ptr<Recommender> network, RankingData data,
                 RecommendationOptions options)
      : network_(std::move(network)),
        data_(std::move(data)),
        options_(options),
        unseen_(data_.train),
        generator_(at::globalContext().defaultGenerator(device()).clone()) {
    TORCH_CHECK(options_.negatives > 0, "Recommendation: negatives must be > 0, got ",
                options_.negatives);
    at::Generator fixed_seed = at::make_generator<at::CPUGeneratorImpl>(1);
    probe_ = draw_pairs(fixed_seed, options_.probe_size);
  }

  torch::nn::Module& network() override { return *network_; }
  at::Device device() const override { return data_.train.users.device(); }
  std::string unit() const override { return "samples"; }
  int64_t size() const override { return data_.train.size() * (1 + options_.negatives); }

  void begin_epoch(at::Generator& generator) override {
    epoch_ = draw_pairs(generator, data_.train.size());
  }

  Batch batch(int64_t begin, int64_t end, at::Generator& /*generator*/) override {
    const Pairs pairs = epoch_.slice(begin, end);
    const at::Tensor logits = network_->forward(pairs.users, pairs.items);
    const at::Tensor loss = at::binary_cross_entropy_with_logits(logits, pairs.labels);
    return {loss, (loss.detach().to(at::kDouble) * (end - begin)).unsqueeze(0)};
  }

  std::vector<std::string> batch_columns() const override { return {"batch_loss"}; }

  std::vector<std::string> columns() const override {
    return {"train_loss", "train_logit",   "train_vanished", "test_loss",
            "test_logit", "test_vanished", "hit_rate",       "ndcg"};
  }

  Measured measure() override {
    const RecommendationFigures all = measured_on(probe_);
    return {{all.train.loss, all.train.logit, all.train.vanished, all.test.loss, all.test.logit,
             all.test.vanished, all.ranking.hit_rate, all.ranking.ndcg},
            all.ranking.hit_rate,
            "train loss " + fixed(all.train.loss, 4) + "  test loss " + fixed(all.test.loss, 4) +
                "  HR@10 " + fixed(all.ranking.hit_rate, 4) + "  NDCG@10 " +
                fixed(all.ranking.ndcg, 4) + "  |logit| " + fixed(all.train.logit, 2)};
  }

  /// The same with all interactions and as many drawn items as in an epoch, always the same.
  RecommendationFigures on_all_data() {
    at::Generator fixed_seed = at::make_generator<at::CPUGeneratorImpl>(2);
    return measured_on(draw_pairs(fixed_seed, data_.train.size()));
  }

  /// The samples of this epoch, in their order.
  const at::Tensor& epoch_users() const { return epoch_.users; }
  const at::Tensor& epoch_items() const { return epoch_.items; }
  const at::Tensor& epoch_labels() const { return epoch_.labels; }

 private:
  static constexpr int64_t kPairsAtOnce = 16'384;  ///< measured at once, to bound memory

  struct Pairs {
    at::Tensor users;   ///< int64 [N]
    at::Tensor items;   ///< int64 [N]
    at::Tensor labels;  ///< float32 [N]

    Pairs slice(int64_t begin, int64_t end) const {
      return {users.slice(0, begin, end), items.slice(0, begin, end), labels.slice(0, begin, end)};
    }
  };

  /// Some interactions and drawn items beside them, shuffled.
  Pairs draw_pairs(at::Generator& seeding, int64_t interactions) {
    // Only the seed comes from the host; the device draws the rest.
    constexpr int64_t kSeeds = int64_t{1} << 53;
    generator_.set_current_seed(static_cast<uint64_t>(
        at::randint(kSeeds, {1}, seeding, at::TensorOptions(at::kLong)).item<int64_t>()));
    const at::TensorOptions whole = data_.train.users.options();
    Interactions taken = data_.train;
    if (interactions < taken.size()) {
      const at::Tensor chosen =
          at::randperm(taken.size(), generator_, whole).slice(0, 0, interactions);
      taken.users = taken.users.index_select(0, chosen);
      taken.items = taken.items.index_select(0, chosen);
    }
    const at::Tensor beside = taken.users.repeat({options_.negatives});
    const at::Tensor drawn = unseen_.draw(beside, generator_);
    const at::Tensor order =
        at::randperm(taken.users.size(0) * (1 + options_.negatives), generator_, whole);
    return {at::cat({taken.users, beside}).index_select(0, order),
            at::cat({taken.items, drawn}).index_select(0, order),
            order.lt(taken.users.size(0)).to(at::kFloat)};
  }

  at::Tensor logits(const at::Tensor& users, const at::Tensor& items) {
    std::vector<at::Tensor> parts;
    for (int64_t begin = 0; begin < users.size(0); begin += kPairsAtOnce) {
      const int64_t end = std::min(begin + kPairsAtOnce, users.size(0));
      parts.push_back(network_->forward(users.slice(0, begin, end), items.slice(0, begin, end)));
    }
    return at::cat(parts);
  }

  RecommendationFigures measured_on(const Pairs& pairs) {
    const at::NoGradGuard no_grad;
    const bool was_training = network_->is_training();
    network_->eval();
    const at::Tensor train =
        pair_figures(logits(pairs.users, pairs.items), pairs.labels, kVanishedGradient).mean(1);

    const at::Tensor& candidates = data_.candidates;
    const at::Tensor users = at::arange(candidates.size(0), candidates.options())
                                 .unsqueeze(1)
                                 .expand_as(candidates)
                                 .reshape(-1);
    const at::Tensor scores = logits(users, candidates.reshape(-1)).view_as(candidates);
    network_->train(was_training);
    const at::Tensor held_out = scores.slice(1, 0, 1).reshape(-1);
    const at::Tensor others = scores.slice(1, 1).reshape(-1);
    const auto negatives = static_cast<double>(options_.negatives);
    const at::Tensor test =
        (pair_figures(held_out, at::ones_like(held_out), kVanishedGradient).mean(1) +
         negatives * pair_figures(others, at::zeros_like(others), kVanishedGradient).mean(1)) /
        (1 + negatives);
    return {ranking_figures(ranks_of_first(scores)), to_figures(train), to_figures(test)};
  }

  static PairFigures to_figures(const at::Tensor& means) {
    const at::Tensor host = means.cpu();
    const auto* mean = host.const_data_ptr<double>();
    return {mean[0], mean[1], mean[2]};
  }

  std::shared_ptr<Recommender> network_;
  RankingData data_;
  RecommendationOptions options_;
  UnseenItems unseen_;
  at::Generator generator_;  ///< of the data's device, seeded anew for each epoch
  Pairs epoch_;
  Pairs probe_;
};

}  // namespace examples
