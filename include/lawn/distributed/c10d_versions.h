// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceType.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

/// Calls of c10d that differ between the versions of LibTorch. Each is chosen by what the headers
/// have, not by a number: its first form is that of the newest version.
namespace lawn::detail::distributed {

/// Ends the backend's work on all ranks that it can reach. A backend of LibTorch 2.6 and older has
/// no such call: there the other ranks wait until their time limit.
template <class Backend>
auto abort_backend(Backend& backend, int) -> decltype(backend.abort()) {
  backend.abort();
}
template <class Backend>
void abort_backend(Backend& /*backend*/, long) {}

/// Lets `backend` serve devices of one more type, and makes it the group's default.
template <class Group>
auto add_backend(Group& group, c10::DeviceType type,
                 const c10::intrusive_ptr<c10d::Backend>& backend, int)
    -> decltype(group.setDefaultBackend(backend->getBackendName())) {
  const auto kind = Group::strToBackendType(backend->getBackendName());
  group.setBackend(type, kind, backend);
  group.setDefaultBackend(kind);
}
/// In LibTorch 2.4 and 2.5 the default of a group made without options is UNDEFINED.
template <class Group>
void add_backend(Group& group, c10::DeviceType type,
                 const c10::intrusive_ptr<c10d::Backend>& backend, long) {
  group.setBackend(type, Group::BackendType::UNDEFINED, backend);
}

/// What c10d's Reducer is made of.
struct ReducerParts {
  std::vector<at::Tensor> tensors;
  std::vector<std::vector<std::size_t>> buckets;
  std::vector<std::size_t> limits;  ///< in bytes, of each of these buckets
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  std::vector<bool> sparse;
  std::int64_t bucket_bytes;
  bool find_unused_parameters;
  bool gradient_as_bucket_view;
  std::unordered_map<std::size_t, std::string> names;
  std::int64_t first_bucket_bytes;
};

template <class Reducer = c10d::Reducer>
std::unique_ptr<Reducer> make_reducer(const ReducerParts& parts) {
  const auto& [tensors, buckets, limits, group, sparse, bytes, unused, view, names, first] = parts;
  using Tensors = std::vector<at::Tensor>;
  using Buckets = std::vector<std::vector<std::size_t>>;
  using Group = c10::intrusive_ptr<c10d::ProcessGroup>;
  using Names = std::unordered_map<std::size_t, std::string>;
  // Behind the first nine: skip_all_reduce_unused_params, use_python_reducer,
  // bucket_bytes_cap_list.
  if constexpr (std::is_constructible_v<Reducer, Tensors, Buckets, Group, std::vector<bool>,
                                        std::int64_t, bool, bool, Names, std::int64_t, bool, bool,
                                        std::vector<std::int64_t>>) {
    return std::make_unique<Reducer>(tensors, buckets, group, sparse, bytes, unused, view, names,
                                     first, false, false, std::vector<std::int64_t>{});
  } else if constexpr (std::is_constructible_v<Reducer, Tensors, Buckets, Group, std::vector<bool>,
                                               std::int64_t, bool, bool, Names, std::int64_t, bool,
                                               bool>) {
    return std::make_unique<Reducer>(tensors, buckets, group, sparse, bytes, unused, view, names,
                                     first, false, false);
  } else {
    return std::make_unique<Reducer>(tensors, buckets, limits, group, sparse, bytes, unused, view,
                                     names, first);
  }
}

}  // namespace lawn::detail::distributed
