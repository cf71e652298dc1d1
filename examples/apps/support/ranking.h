// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

namespace examples {

/// How many of the other candidates come before the first: those with a score at least as high, so
/// that a network which scores all candidates alike finds nothing. If the first score is NaN, all
/// others come before it; another NaN comes before the first.
/// @param scores  [users, candidates], of each user first the item held out
/// @return        int64 [users]
/// @note does not wait for the device
inline at::Tensor ranks_of_first(const at::Tensor& scores) {
  return scores.slice(1, 1).lt(scores.slice(1, 0, 1)).logical_not().sum(1);
}

/// Means over users of the two figures by which a ranked list of ten is judged.
struct RankingFigures {
  double hit_rate = 0;  ///< HR@10: share of users whose held-out item is in the list
  double ndcg = 0;  ///< NDCG@10: as HR@10, but a hit at place r = 0, 1, ... counts 1 / log2(r + 2)
};

constexpr int64_t kListLength = 10;

/// Sums over users of the figures: float64 [2], hits and discounted gains.
/// @param ranks  int64 [users], as of ranks_of_first()
/// @source He et al. 2017, arXiv 1708.05031, section 4.1, with one relevant item a user
inline at::Tensor ranking_sums(const at::Tensor& ranks) {
  const at::Tensor hit = ranks.lt(kListLength).to(at::kDouble);
  return at::stack({hit.sum(), (hit / (ranks.to(at::kDouble) + 2).log2()).sum()});
}

/// The figures of all users.
/// @note waits for the device
inline RankingFigures ranking_figures(const at::Tensor& ranks) {
  const at::Tensor means = (ranking_sums(ranks) / static_cast<double>(ranks.size(0))).cpu();
  return {means.const_data_ptr<double>()[0], means.const_data_ptr<double>()[1]};
}

/// What a network makes of pairs of users and items, as means over pairs.
struct PairFigures {
  double loss = 0;      ///< binary cross-entropy, in nats
  double logit = 0;     ///< absolute value of the logit
  double vanished = 0;  ///< share of pairs with |sigmoid(logit) - label| < kVanishedGradient
};

/// The figures of each pair: float64 [3, N] in PairFigures' order.
/// @param logits  floating point [N]
/// @param labels  [N], 1 for an interaction and 0 for none
/// @note does not wait for the device
inline at::Tensor pair_figures(const at::Tensor& logits, const at::Tensor& labels,
                               double vanished_below) {
  // With s = +-1 for label 1 and 0 the loss is log(1 + e^(-s x)), and |sigmoid(x) - y| is
  // sigmoid(-s x): neither subtracts numbers that are nearly equal.
  const at::Tensor x = logits.to(at::kDouble);
  const at::Tensor against = x * (1 - 2 * labels.to(at::kDouble));
  return at::stack({at::log_sigmoid(-against).neg(), x.abs(),
                    against.sigmoid().lt(vanished_below).to(at::kDouble)});
}

}  // namespace examples
