// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "examples/apps/support/interactions.h"

namespace examples {

/// Draws items that a user has not taken, each with the same chance, and without rejecting draws: a
/// draw is the rank r of an item among the unseen ones, and the item of that rank is r + k, k being
/// how many of the user's items s_0 < s_1 < ... have s_j - j <= r. One search in a sorted table
/// finds k for any number of draws.
/// @note only the constructor waits for the device
class UnseenItems {
 public:
  /// @param seen  what the users have taken; draws come out on its device
  /// @throws c10::Error that names a user who has taken every item
  explicit UnseenItems(const Interactions& seen)
      : item_count_(seen.item_count), user_ids_(seen.user_ids) {
    const at::Tensor keys = std::get<0>(pair_keys(seen).sort());
    const at::Tensor users = keys.div(item_count_, "floor");
    const at::Tensor offsets = user_offsets(users, seen.user_count);
    begins_ = offsets.slice(0, 0, seen.user_count).contiguous();
    unseen_ = item_count_ - offsets.diff();
    const at::Tensor place =
        at::arange(keys.size(0), keys.options()) - begins_.index_select(0, users);
    gaps_ = keys - place;  // user * item_count + s_j - j: ascending over all users
    const at::Tensor none_left = unseen_.le(0).nonzero();
    TORCH_CHECK(none_left.size(0) == 0, seen.name, ": user ",
                id_of(user_ids_, none_left[0].item<int64_t>()), " has taken all ", item_count_,
                " items: none is left to be drawn");
  }

  /// For each entry of `users`, int64 [N], one item that this user has not taken: int64 [N].
  /// @param generator  of the device of `users`
  at::Tensor draw(const at::Tensor& users, at::Generator& generator) const {
    const at::Tensor counts = unseen_.index_select(0, users);
    const at::Tensor share = at::rand(users.sizes(), generator, users.options().dtype(at::kDouble));
    // share < 1, but the product may round up to the count.
    return at_rank(users, at::minimum((share * counts).to(at::kLong), counts - 1));
  }

  /// For every user `count` different items that this user has not taken: int64 [users, count].
  /// @param generator  of the CPU, so that equal seeds draw the same for every device
  /// @throws c10::Error that names a user with fewer unseen items
  at::Tensor draw_distinct(int64_t count, at::Generator& generator) const {
    const at::Tensor counts = unseen_.cpu();
    const at::Tensor too_few = counts.lt(count).nonzero();
    TORCH_CHECK(too_few.size(0) == 0, "user ", id_of(user_ids_, too_few[0].item<int64_t>()),
                " has not taken ", counts[too_few[0].item<int64_t>()].item<int64_t>(),
                " items only; expected at least ", count, " to draw from");
    constexpr int64_t kUsersAtOnce = 512;  // bounds memory
    std::vector<at::Tensor> parts;
    for (int64_t begin = 0; begin < counts.size(0); begin += kUsersAtOnce) {
      const at::Tensor part = counts.slice(0, begin, begin + kUsersAtOnce);
      at::Tensor chance = at::rand({part.size(0), item_count_}, generator, at::TensorOptions());
      const at::Tensor ranks = at::arange(item_count_, at::TensorOptions(at::kLong));
      chance.masked_fill_(ranks.unsqueeze(0) >= part.unsqueeze(1), -1);
      parts.push_back(std::get<1>(chance.topk(count)));
    }
    const at::Tensor ranks = at::cat(parts).to(unseen_.device());
    const at::Tensor users =
        at::arange(counts.size(0), ranks.options()).unsqueeze(1).expand_as(ranks);
    return at_rank(users.reshape(-1), ranks.reshape(-1)).view_as(ranks);
  }

 private:
  at::Tensor at_rank(const at::Tensor& users, const at::Tensor& ranks) const {
    const at::Tensor found = at::searchsorted(gaps_, users * item_count_ + ranks,
                                              /*out_int32=*/false, /*right=*/true);
    return ranks + (found - begins_.index_select(0, users));
  }

  int64_t item_count_;
  at::Tensor user_ids_;  ///< of id_of()
  at::Tensor begins_;    ///< int64 [users], of each user's block in gaps_
  at::Tensor unseen_;    ///< int64 [users], how many items each user has not taken
  at::Tensor gaps_;      ///< int64 [N], ascending
};

}  // namespace examples
