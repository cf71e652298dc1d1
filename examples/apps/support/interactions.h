// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>

#include <string>
#include <tuple>
#include <utility>

namespace examples {

/// The number that a file gives a user or an item.
/// @param ids  of all, or an undefined tensor if they are numbered as in the file
inline int64_t id_of(const at::Tensor& ids, int64_t number) {
  return ids.defined() ? ids[number].item<int64_t>() : number;
}

/// Who took which item, and when: entry i of each tensor belongs to interaction i.
struct Interactions {
  std::string name;  ///< for tables and messages
  at::Tensor users;  ///< int64 [N], each in [0, user_count)
  at::Tensor items;  ///< int64 [N], each in [0, item_count)
  at::Tensor times;  ///< int64 [N], in any unit
  int64_t user_count = 0;
  int64_t item_count = 0;
  at::Tensor user_ids = {};  ///< of id_of(), for messages
  at::Tensor item_ids = {};

  int64_t size() const { return users.size(0); }

  Interactions to(at::Device device) const {
    return with(users.to(device), items.to(device), times.to(device));
  }

  /// Others of the same users and items.
  Interactions with(at::Tensor other_users, at::Tensor other_items, at::Tensor other_times) const {
    Interactions others = *this;
    others.users = std::move(other_users);
    others.items = std::move(other_items);
    others.times = std::move(other_times);
    return others;
  }
};

/// One number for each pair of user and item; equal numbers are equal pairs.
inline at::Tensor pair_keys(const Interactions& data) {
  return data.users * data.item_count + data.items;
}

/// Refuses interactions that do not fit together, or in which a user takes an item twice.
/// @throws c10::Error that names the data and what is wrong
inline void check_interactions(const Interactions& data) {
  const int64_t count = data.users.numel();
  TORCH_CHECK(count > 0, data.name, ": holds no interactions");
  for (const at::Tensor& column : {data.users, data.items, data.times}) {
    TORCH_CHECK(column.scalar_type() == at::kLong && column.dim() == 1 && column.size(0) == count,
                data.name, ": expected users, items and times as int64 [", count, "], got ",
                column.scalar_type(), " ", column.sizes());
  }
  const auto refuse_outside = [&](const at::Tensor& column, int64_t bound, const char* what) {
    const at::Tensor wrong = at::logical_or(column < 0, column >= bound).nonzero();
    if (wrong.size(0) == 0) return;
    TORCH_CHECK(false, data.name, ": ", what, " ", column[wrong[0].item<int64_t>()].item<int64_t>(),
                " of interaction ", wrong[0].item<int64_t>(), " is out of range; expected 0 to ",
                bound - 1);
  };
  refuse_outside(data.users, data.user_count, "user");
  refuse_outside(data.items, data.item_count, "item");
  const at::Tensor keys = std::get<0>(pair_keys(data).sort());
  const at::Tensor repeated =
      keys.slice(0, 1).eq(keys.slice(0, 0, count - 1)).nonzero();  // next to its like
  if (repeated.size(0) == 0) return;
  const int64_t key = keys[repeated[0].item<int64_t>()].item<int64_t>();
  TORCH_CHECK(false, data.name, ": user ", id_of(data.user_ids, key / data.item_count),
              " takes item ", id_of(data.item_ids, key % data.item_count),
              " more than once; keep one of these interactions");
}

/// Where the block of each user begins in a list that is sorted by user: int64 [users + 1], the
/// last entry being the length of the list.
inline at::Tensor user_offsets(const at::Tensor& users, int64_t user_count) {
  const at::Tensor counts = users.bincount(/*weights=*/{}, user_count);
  return at::cat({at::zeros({1}, counts.options()), counts.cumsum(0)});
}

/// The interactions user by user, each user's by time. Of two at one time the item that comes later
/// in a shuffle of all items, the same on every run, counts as the later one: the order of lines in
/// a file says nothing, and to go by the item's number would favour what was numbered first.
inline Interactions in_order_of_time(const Interactions& data) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(0);
  const at::Tensor place = at::randperm(data.item_count, generator, at::TensorOptions(at::kLong))
                               .to(data.items.device());
  at::Tensor order;
  // Stable sorts, the least important key first.
  const auto sort_by = [&](const at::Tensor& key) {
    const at::Tensor sorted =
        std::get<1>((order.defined() ? key.index_select(0, order) : key)
                        .sort(/*stable=*/true, /*dim=*/0, /*descending=*/false));
    order = order.defined() ? order.index_select(0, sorted) : sorted;
  };
  sort_by(place.index_select(0, data.items));
  sort_by(data.times);
  sort_by(data.users);
  return data.with(data.users.index_select(0, order), data.items.index_select(0, order),
                   data.times.index_select(0, order));
}

/// What is trained on, and of each user one item that is not.
struct HeldOut {
  Interactions train;  ///< user by user, by time
  at::Tensor items;    ///< int64 [users], of each user the item held out
};

/// Leave-one-out by time: each user's latest item is held out. For choosing learning rates and the
/// like, `validation` holds out the latest but one, and leaves the latest, that of the test, out
/// altogether.
/// @throws c10::Error that names a user with too few interactions to be trained on
/// @source He et al. 2017, arXiv 1708.05031, section 4.1
inline HeldOut leave_one_out(const Interactions& data, bool validation) {
  const int64_t left_out = validation ? 2 : 1;
  const Interactions sorted = in_order_of_time(data);
  const at::Tensor offsets = user_offsets(sorted.users, data.user_count);
  const at::Tensor counts = offsets.diff();
  const at::Tensor too_few = counts.le(left_out).nonzero();
  TORCH_CHECK(too_few.size(0) == 0, data.name, ": user ",
              id_of(data.user_ids, too_few[0].item<int64_t>()), " has ",
              counts[too_few[0].item<int64_t>()].item<int64_t>(),
              " interactions; expected at least ", left_out + 1, ", ", left_out,
              " of which are not trained on; leave users with fewer out");
  const at::Tensor ends = offsets.slice(0, 1);
  const at::Tensor place = at::arange(data.size(), sorted.users.options());
  const at::Tensor kept =
      (place < ends.index_select(0, sorted.users) - left_out).nonzero().squeeze(1);
  return {data.with(sorted.users.index_select(0, kept), sorted.items.index_select(0, kept),
                    sorted.times.index_select(0, kept)),
          sorted.items.index_select(0, ends - left_out)};
}

}  // namespace examples
