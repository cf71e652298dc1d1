// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <lawn/distributed/mpi.h>

namespace lawn::testing {

/// A test that all ranks run together.
class Ranks : public ::testing::Test {
 protected:
  Ranks() { torch::manual_seed(17); }

  int rank() const { return ranks.rank(); }
  int size() const { return ranks.size(); }
  int64_t rank64() const { return ranks.rank(); }
  int64_t size64() const { return ranks.size(); }

  static MpiOptions options() { return MpiOptions().timeout(std::chrono::seconds(60)); }

  /// That this tensor has the same bits on every rank.
  void expect_same_everywhere(const torch::Tensor& tensor, const std::string& where) {
    const auto all = ranks.gather(tensor.detach().contiguous());
    for (std::size_t i = 1; i < all.size(); ++i) {
      EXPECT_TRUE(torch::equal(all[0], all[i]))
          << where << ": rank " << i << " differs from rank 0";
    }
  }

  MpiGroup ranks{options()};
};

}  // namespace lawn::testing
