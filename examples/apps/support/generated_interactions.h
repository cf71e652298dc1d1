// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <tuple>

#include "examples/apps/support/interactions.h"

namespace examples {

/// How interactions are drawn when there is no data set at hand.
struct GeneratedInteractionsOptions {
  int64_t users = 500;
  int64_t items = 400;
  int64_t interactions_per_user = 20;
  int64_t factors = 4;      ///< of a taste
  double taste = 6;         ///< standard deviation of the affinity of users and items, in nats
  double popularity = 0.5;  ///< the same of what all users like alike
  uint64_t seed = 0;
};

/// The affinities behind generated interactions: a_ui = taste p_u . q_i + popularity b_i with p_u
/// of length one, q_i and b_i standard normal, float64 [users, items]. Whoever knew them would rank
/// items as well as can be done.
inline at::Tensor draw_affinities(const GeneratedInteractionsOptions& options,
                                  at::Generator& generator) {
  const at::TensorOptions real(at::kDouble);
  const at::Tensor tastes = at::randn({options.users, options.factors}, generator, real);
  const at::Tensor traits = at::randn({options.items, options.factors}, generator, real);
  const at::Tensor liked = at::randn({options.items}, generator, real);
  const at::Tensor direction = tastes / tastes.norm(2, {1}, /*keepdim=*/true);
  return options.taste * direction.mm(traits.t()) + options.popularity * liked;
}

/// Draws interactions of users with tastes: a user takes one item after the other, without
/// repetition, with chances in proportion to e^a of those left. (Sorted by a_ui + Gumbel noise the
/// first n items are just that.) A user's n-th interaction is at time n; so the item held out is
/// liked a little less than the others, but far more than most.
/// All is computed in float64 from one CPU generator: equal seeds give equal interactions.
/// @throws c10::Error if a size is not positive or users would take every item
inline Interactions generate_interactions(const GeneratedInteractionsOptions& options) {
  TORCH_CHECK(options.users > 0 && options.factors > 0 && options.interactions_per_user > 0,
              "generated interactions: users, factors and interactions must be > 0, got ",
              options.users, ", ", options.factors, " and ", options.interactions_per_user);
  TORCH_CHECK(options.items > options.interactions_per_user,
              "generated interactions: expected more items than the ",
              options.interactions_per_user, " that a user takes, got ", options.items);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(options.seed);
  const at::Tensor affinity = draw_affinities(options, generator);
  const at::Tensor gumbel =
      -at::rand(affinity.sizes(), generator, affinity.options()).log().neg().log();
  const int64_t taken = options.interactions_per_user;
  const at::Tensor items = std::get<1>((affinity + gumbel).topk(taken, 1));
  const at::TensorOptions whole(at::kLong);
  return {"generated interactions",
          at::arange(options.users, whole).repeat_interleave(taken),
          items.reshape(-1),
          at::arange(taken, whole).repeat({options.users}),
          options.users,
          options.items};
}

}  // namespace examples
